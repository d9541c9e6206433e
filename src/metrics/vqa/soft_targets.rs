//! Soft targets of VQA training: how right each class of an answer vocabulary is (pythia c6796cc, as VLP calls it with the
//! text processor `simple_word`).
//!
//! A cleaning of its own, simpler than that of the evaluation. It reads no files.

use std::collections::HashMap;

use super::VqaError;

/// Answers that a target is made of; fewer are padded with `<unk>`.
pub const ANSWERS: usize = 10;

/// The word for answers outside the vocabulary.
pub const UNKNOWN: &str = "<unk>";

/// The classes of a VQA model: answers by index.
#[derive(Debug, Clone)]
pub struct AnswerVocabulary {
    answers: Vec<String>,
    indices: HashMap<String, u32>,
    unknown: u32,
}

impl AnswerVocabulary {
    /// The lines of an answer file, white space at their edges removed. Of equal answers the last one counts.
    ///
    /// # Errors
    /// [`VqaError::NoUnknown`] if none is `<unk>`.
    pub fn new<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<Self, VqaError> {
        let answers: Vec<String> = lines.into_iter().map(|line| line.trim().to_owned()).collect();
        let indices: HashMap<String, u32> = answers.iter().cloned().zip(0..).collect();
        let unknown = *indices.get(UNKNOWN).ok_or(VqaError::NoUnknown)?;
        Ok(Self { answers, indices, unknown })
    }

    /// Number of classes.
    pub fn len(&self) -> usize {
        self.answers.len()
    }

    /// Never: there is always `<unk>`.
    pub fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    /// The answer of a class.
    pub fn answer(&self, index: u32) -> Option<&str> {
        self.answers.get(index as usize).map(String::as_str)
    }

    /// The class of a cleaned answer (see [`simple_word`]); that of `<unk>` for one that is not listed.
    pub fn index(&self, answer: &str) -> u32 {
        self.indices.get(answer).copied().unwrap_or(self.unknown)
    }

    /// The class of `<unk>`.
    pub fn unknown(&self) -> u32 {
        self.unknown
    }
}

/// The target of one question.
#[derive(Debug, Clone, PartialEq)]
pub struct SoftTarget {
    /// Class of each answer, padded with `<unk>`.
    pub indices: [u32; ANSWERS],
    /// Class and score of the classes that score, ascending; every other class is 0. `<unk>` never scores.
    pub scores: Vec<(u32, f32)>,
}

/// Cleans an answer: lower case, `,` and `?` removed, `'s` parted from its word, edges stripped.
pub fn simple_word(text: &str) -> String {
    text.to_lowercase().replace([',', '?'], "").replace("'s", " 's").trim().to_owned()
}

/// The target of a question from what people answered.
///
/// A class that k of the ten answers name scores the mean over the ten leave-one-out subsets of `min(1, k'/3)`: 0.3, 0.6,
/// 0.9, 1 for k = 1, 2, 3 and more.
///
/// # Errors
/// [`VqaError::TooManyAnswers`] for more than ten.
pub fn soft_target<T: AsRef<str>>(answers: &[T], vocabulary: &AnswerVocabulary) -> Result<SoftTarget, VqaError> {
    if answers.len() > ANSWERS {
        return Err(VqaError::TooManyAnswers { found: answers.len(), most: ANSWERS });
    }
    let mut indices = [vocabulary.unknown; ANSWERS];
    for (index, answer) in indices.iter_mut().zip(answers) {
        *index = vocabulary.index(&simple_word(answer.as_ref()));
    }
    let mut classes: Vec<u32> = indices.iter().copied().filter(|&class| class != vocabulary.unknown).collect();
    classes.sort_unstable();
    classes.dedup();
    Ok(SoftTarget { indices, scores: classes.into_iter().map(|class| (class, score(class, &indices))).collect() })
}

fn score(class: u32, indices: &[u32; ANSWERS]) -> f32 {
    let agreeing = indices.iter().filter(|&&index| index == class).count();
    let others = |index: u32| agreeing - usize::from(index == class);
    let sum: f64 = indices.iter().map(|&index| (others(index) as f64 / 3.0).min(1.0)).sum();
    (sum / ANSWERS as f64) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_by_number_of_people() {
        let vocabulary = AnswerVocabulary::new(["<unk>", "yes", "no ", "man 's", "2"]).unwrap();
        let answers = ["Yes", "yes?", "yes,", "no", "Man's", " man's ", "blue", "2"];
        let target = soft_target(&answers, &vocabulary).unwrap();
        assert_eq!(target.indices, [1, 1, 1, 2, 3, 3, 0, 4, 0, 0]);
        assert_eq!(target.scores, [(1, 0.9), (2, 0.3), (3, 0.6), (4, 0.3)]);
    }

    #[test]
    fn refuses_what_it_cannot_use() {
        assert_eq!(AnswerVocabulary::new(["yes"]).err(), Some(VqaError::NoUnknown));
        let vocabulary = AnswerVocabulary::new([UNKNOWN]).unwrap();
        assert_eq!(soft_target(&["a"; 11], &vocabulary), Err(VqaError::TooManyAnswers { found: 11, most: 10 }));
        assert_eq!(soft_target(&["a"; 10], &vocabulary).unwrap().scores, []);
    }
}
