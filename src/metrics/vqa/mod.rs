//! Accuracy of answers to questions about images (VQA 2.0), as the official evaluation and as the evaluator behind the
//! published dev numbers of VLP compute it, and the soft targets that training uses.
//!
//! Strings in, numbers out. It reads no files and predicts nothing.
//!
//! | module | what |
//! |---|---|
//! | [`normalise`] | the two steps of answer normalisation |
//! | [`accuracy`] | the official rule (github.com/GT-Vision-Lab/VQA, a013f00) |
//! | [`legacy`] | the rule of pythia's `legacy/eval_model` (c6796cc), which VLP's published dev accuracy comes from |
//! | [`soft_targets`] | scores of the classes of an answer vocabulary (pythia c6796cc) |
//!
//! ```
//! use vlp::metrics::vqa::{Evaluator, HumanAnswer, VqaEntry, score_vqa};
//! let answers = ["2", "two", "2", "2", "two", "3", "2", "2", "2", "4"];
//! let answers = answers.iter().enumerate().map(|(i, a)| HumanAnswer { answer: (*a).into(), identity: i.to_string() });
//! let entry = VqaEntry {
//!     question_id: 1,
//!     question_type: "how many".into(),
//!     answer_type: "number".into(),
//!     answers: answers.collect(),
//!     prediction: "Two.".into(),
//! };
//! assert_eq!(score_vqa(std::slice::from_ref(&entry), Evaluator::Official)?.overall, 100.0);
//! // The legacy rule leaves the people's `two` a word, so that only six of them agree; that is still enough.
//! assert_eq!(score_vqa(&[entry], Evaluator::Legacy)?.overall, 100.0);
//! # Ok::<(), vlp::metrics::vqa::VqaError>(())
//! ```

pub mod accuracy;
pub mod legacy;
pub mod normalise;
pub mod soft_targets;

use std::collections::BTreeMap;

/// One question: what people answered, and what was predicted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VqaEntry {
    /// Names the question in errors.
    pub question_id: u64,
    /// How the question begins, e.g. `how many`.
    pub question_type: String,
    /// `yes/no`, `number` or `other`.
    pub answer_type: String,
    /// The people's answers, ten in VQA 2.0.
    pub answers: Vec<HumanAnswer>,
    /// The predicted answer.
    pub prediction: String,
}

/// The answer of one person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HumanAnswer {
    /// As it was written.
    pub answer: String,
    /// Whatever else the annotation says about it (its `answer_id`, its confidence), as one text.
    ///
    /// When an answer is left out, all that equal it in BOTH fields are left out with it: an annotation without distinct
    /// `answer_id`s makes the official tools drop the twins of an answer too.
    pub identity: String,
}

/// Which rule decides whether an answer is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Evaluator {
    /// The official evaluation; test-dev and test-standard numbers are made with it.
    #[default]
    Official,
    /// The one that VLP's published dev accuracy was made with; lower where answers are unclean.
    Legacy,
}

/// Accuracies in percent, 0 to 100, unrounded.
#[derive(Debug, Clone, PartialEq)]
pub struct VqaScores {
    /// The rule.
    pub evaluator: Evaluator,
    /// Mean over all questions.
    pub overall: f64,
    /// By answer type.
    pub per_answer_type: BTreeMap<String, Group>,
    /// By question type.
    pub per_question_type: BTreeMap<String, Group>,
    /// By question, in the order given.
    pub per_question: Vec<f64>,
}

/// Questions of one type.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Group {
    /// How many.
    pub questions: usize,
    /// Their mean accuracy in percent.
    pub accuracy: f64,
}

/// Why answers cannot be scored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VqaError {
    /// The set is empty.
    #[error("no answers to score\n  help: give at least one question with a predicted answer")]
    NoQuestions,
    /// Nobody answered a question.
    #[error(
        "question {question_id} has no human answer\n  help: leave the question out, or take the official annotations"
    )]
    NoAnswers {
        /// The question.
        question_id: u64,
    },
    /// A question has more answers than a soft target is made of.
    #[error("{found} human answers to one question, at most {most} expected\n  help: keep ten answers per question")]
    TooManyAnswers {
        /// Answers given.
        found: usize,
        /// Answers a target is made of.
        most: usize,
    },
    /// The answer vocabulary cannot be used.
    #[error("the answer vocabulary has no `<unk>`\n  help: give a list of answers with `<unk>` in its first line")]
    NoUnknown,
}

/// Scores predicted answers.
///
/// The mean over questions, and over those of each type; a question that is not among `entries` does not count.
///
/// # Errors
/// [`VqaError::NoQuestions`] and [`VqaError::NoAnswers`].
pub fn score_vqa(entries: &[VqaEntry], evaluator: Evaluator) -> Result<VqaScores, VqaError> {
    if entries.is_empty() {
        return Err(VqaError::NoQuestions);
    }
    if let Some(entry) = entries.iter().find(|entry| entry.answers.is_empty()) {
        return Err(VqaError::NoAnswers { question_id: entry.question_id });
    }
    let rule = match evaluator {
        Evaluator::Official => accuracy::accuracy,
        Evaluator::Legacy => legacy::accuracy,
    };
    let fractions: Vec<f64> = entries.iter().map(|entry| rule(&entry.prediction, &entry.answers)).collect();
    Ok(VqaScores {
        evaluator,
        overall: percent(fractions.iter().sum(), fractions.len()),
        per_answer_type: groups(entries, &fractions, |entry| &entry.answer_type),
        per_question_type: groups(entries, &fractions, |entry| &entry.question_type),
        per_question: fractions.iter().map(|fraction| 100.0 * fraction).collect(),
    })
}

fn groups(entries: &[VqaEntry], fractions: &[f64], name: fn(&VqaEntry) -> &String) -> BTreeMap<String, Group> {
    let mut sums: BTreeMap<&str, (f64, usize)> = BTreeMap::new();
    for (entry, fraction) in entries.iter().zip(fractions) {
        let (sum, questions) = sums.entry(name(entry)).or_default();
        *sum += fraction;
        *questions += 1;
    }
    let group = |(sum, questions)| Group { questions, accuracy: percent(sum, questions) };
    sums.into_iter().map(|(name, sum)| (name.to_owned(), group(sum))).collect()
}

fn percent(sum: f64, count: usize) -> f64 {
    100.0 * sum / count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(question_id: u64, answer_type: &str, prediction: &str, answers: &[&str]) -> VqaEntry {
        let answer =
            |(index, text): (usize, &&str)| HumanAnswer { answer: (*text).into(), identity: index.to_string() };
        VqaEntry {
            question_id,
            question_type: "is the".into(),
            answer_type: answer_type.into(),
            answers: answers.iter().enumerate().map(answer).collect(),
            prediction: prediction.into(),
        }
    }

    #[test]
    fn means_by_type() {
        let yes = ["yes"; 10];
        let entries =
            [entry(1, "yes/no", "yes", &yes), entry(2, "yes/no", "no", &yes), entry(3, "number", "2", &["2"; 10])];
        let scores = score_vqa(&entries, Evaluator::Official).unwrap();
        assert_eq!(scores.per_question, [100.0, 0.0, 100.0]);
        assert_eq!(scores.overall, 200.0 / 3.0);
        assert_eq!(scores.per_answer_type["yes/no"], Group { questions: 2, accuracy: 50.0 });
        assert_eq!(scores.per_answer_type["number"], Group { questions: 1, accuracy: 100.0 });
        assert_eq!(scores.per_question_type["is the"], Group { questions: 3, accuracy: 200.0 / 3.0 });
    }

    #[test]
    fn refuses_what_cannot_be_scored() {
        assert_eq!(score_vqa(&[], Evaluator::Official), Err(VqaError::NoQuestions));
        let error = score_vqa(&[entry(7, "other", "a", &[])], Evaluator::Legacy).unwrap_err();
        assert_eq!(
            error.to_string(),
            "question 7 has no human answer\n  help: leave the question out, or take the official annotations"
        );
    }
}
