//! Sets of synonyms of an English word, from the extract of WordNet inside the METEOR jar.
//!
//! Two words are synonyms if their sets intersect. A word's sets are those of its written form and those of its base form, which is found with WordNet's
//! list of exceptions (`geese`) or its rules of detachment (`dogs`, `barking`). Relations between sets (hypernyms) play no part.

use std::collections::HashMap;

/// Endings and what stands for them in the base form. The first rule that gives a known word counts.
const DETACHMENTS: [(&str, &str); 18] = [
    ("s", ""),
    ("ses", "s"),
    ("xes", "x"),
    ("zes", "z"),
    ("ches", "ch"),
    ("shes", "sh"),
    ("men", "man"),
    ("ies", "y"),
    ("es", "e"),
    ("es", ""),
    ("ed", "e"),
    ("ed", ""),
    ("ing", "e"),
    ("ing", ""),
    ("er", ""),
    ("est", ""),
    ("er", "e"),
    ("est", "e"),
];

/// Words and the numbers of their synonym sets.
#[derive(Debug, Clone, Default)]
pub struct WordNet {
    sets: HashMap<Box<str>, (u32, u32)>,
    numbers: Vec<u32>,
    exceptions: HashMap<Box<str>, Vec<Box<str>>>,
}

impl WordNet {
    /// Reads the two lists of the jar. `synsets`: a line with a word, then one with the numbers of its sets. `exceptions`: a line with a base form, then
    /// one with its irregular forms.
    ///
    /// # Errors
    /// The number (from 1) of the line of `synsets` that is not a list of numbers.
    pub fn parse(synsets: &str, exceptions: &str) -> Result<Self, usize> {
        let mut result = Self::default();
        let mut lines = synsets.lines().enumerate();
        while let (Some((_, word)), Some((at, list))) = (lines.next(), lines.next()) {
            let start = result.numbers.len();
            for number in list.split_whitespace() {
                result.numbers.push(number.parse().map_err(|_| at + 1)?);
            }
            result.sets.insert(word.into(), (start as u32, result.numbers.len() as u32));
        }
        let mut lines = exceptions.lines();
        while let (Some(base), Some(forms)) = (lines.next(), lines.next()) {
            for form in forms.split_whitespace() {
                result.exceptions.entry(form.into()).or_default().push(base.into());
            }
        }
        Ok(result)
    }

    /// Sets of the written form; empty if WordNet does not have it.
    pub fn sets(&self, word: &str) -> &[u32] {
        self.sets.get(word).map_or(&[], |&(start, end)| &self.numbers[start as usize..end as usize])
    }

    /// Sets of the base form, in no particular order, possibly repeated; empty if there is none. Words of one or two letters and words that end in `ss`
    /// are their own base form.
    pub fn base_form_sets(&self, word: &str) -> Vec<u32> {
        if let Some(bases) = self.exceptions.get(word) {
            return bases.iter().flat_map(|base| self.sets(base)).copied().collect();
        }
        if word.ends_with("ss") || word.chars().nth(2).is_none() {
            return self.sets(word).to_vec();
        }
        let mut base = String::with_capacity(word.len() + 2);
        for (ending, replacement) in DETACHMENTS {
            let Some(stem) = word.strip_suffix(ending) else { continue };
            base.clear();
            base.push_str(stem);
            base.push_str(replacement);
            let sets = self.sets(&base);
            if !sets.is_empty() {
                return sets.to_vec();
            }
        }
        Vec::new()
    }

    /// All sets of a word, ascending.
    pub(crate) fn all_sets(&self, word: &str) -> Vec<u32> {
        let mut all = self.base_form_sets(word);
        all.extend(self.sets(word));
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// Whether two ascending lists have a number in common.
pub(crate) fn intersect(mut left: &[u32], mut right: &[u32]) -> bool {
    while let ([l, left_rest @ ..], [r, right_rest @ ..]) = (left, right) {
        match l.cmp(r) {
            std::cmp::Ordering::Equal => return true,
            std::cmp::Ordering::Less => left = left_rest,
            std::cmp::Ordering::Greater => right = right_rest,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_base_forms() {
        let synsets = "dog\n1 2\nbark\n3\ngoose\n4\nss\n5\nglass\n6\nglas\n7\nas\n8\na\n9\n";
        let wordnet = WordNet::parse(synsets, "goose\ngeese\n").unwrap();
        for (word, expected) in [
            ("dogs", &[1, 2][..]),
            ("barking", &[3]),
            ("geese", &[4]),
            ("glass", &[6]),
            ("as", &[8]),
            ("goose", &[]),
            ("cats", &[]),
        ] {
            assert_eq!(wordnet.base_form_sets(word), expected, "{word}");
        }
        assert_eq!(wordnet.all_sets("dog"), [1, 2]);
        assert_eq!(WordNet::parse("dog\n1 2\ncat\nx\n", "").unwrap_err(), 4);
    }

    #[test]
    fn intersects() {
        assert!(intersect(&[1, 5, 9], &[2, 9]));
        assert!(!intersect(&[1, 5], &[2, 6]));
        assert!(!intersect(&[], &[1]));
    }
}
