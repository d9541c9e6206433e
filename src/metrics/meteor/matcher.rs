//! All matches between the words and phrases of two sentences. Choosing among them is the aligner's part.

use rust_stemmers::Stemmer;

use super::aligner::{Match, Module};
use super::normaliser::{is_delimiter, normalise};
use super::paraphrase::{Paraphrases, Phrase};
use super::resources::Language;
use super::wordnet::intersect;

/// A sentence and what the matchers need to know of it.
pub(crate) struct Sentence {
    words: Vec<Word>,
    /// Phrases of the paraphrase table, by position.
    phrases: Vec<Phrase>,
    /// The same, by number.
    by_number: Vec<Phrase>,
}

struct Word {
    text: String,
    stem: String,
    synonym_sets: Vec<u32>,
    is_function_word: bool,
}

impl Sentence {
    /// Normalises and analyses a caption.
    pub(crate) fn new(text: &str, language: &Language, stemmer: &Stemmer, paraphrases: &Paraphrases) -> Self {
        let text = normalise(text, &language.abbreviations).to_lowercase();
        let texts: Vec<&str> = text.split(is_delimiter).filter(|word| !word.is_empty()).collect();
        let phrases = paraphrases.phrases(&texts);
        let mut by_number = phrases.clone();
        by_number.sort_unstable();
        let words = texts
            .into_iter()
            .map(|text| Word {
                text: text.to_owned(),
                stem: stemmer.stem(text).into_owned(),
                synonym_sets: language.wordnet.all_sets(text),
                is_function_word: language.function_words.contains(text),
            })
            .collect();
        Self { words, phrases, by_number }
    }

    /// Number of words.
    pub(crate) fn len(&self) -> usize {
        self.words.len()
    }

    /// The words, normalised and in lower case.
    pub(crate) fn words(&self) -> impl Iterator<Item = &str> {
        self.words.iter().map(|word| word.text.as_str())
    }

    /// How many of `length` words from `start` are function words.
    pub(crate) fn function_words(&self, start: usize, length: usize) -> usize {
        self.words[start..start + length].iter().filter(|word| word.is_function_word).count()
    }
}

/// For each word of the reference, the matches that start there, in the order in which METEOR finds them, which decides ties: module by module, and
/// paraphrases from the reference's phrases before those from the candidate's. A pair found twice counts twice.
pub(crate) fn matches(candidate: &Sentence, reference: &Sentence, paraphrases: &Paraphrases) -> Vec<Vec<Match>> {
    let mut found: Vec<Vec<Match>> = vec![Vec::new(); reference.len()];
    for (start, (here, word)) in found.iter_mut().zip(&reference.words).enumerate() {
        for module in [Module::Exact, Module::Stem, Module::Synonym] {
            let matching = candidate.words.iter().enumerate().filter(|(_, other)| word.matches(other, module));
            here.extend(matching.map(|(at, _)| Match {
                reference_start: start,
                reference_length: 1,
                candidate_start: at,
                candidate_length: 1,
                module,
            }));
        }
    }
    let mut add = |reference: &Phrase, candidate: &Phrase| {
        found[reference.start].push(Match {
            reference_start: reference.start,
            reference_length: reference.length,
            candidate_start: candidate.start,
            candidate_length: candidate.length,
            module: Module::Paraphrase,
        });
    };
    for phrase in &reference.phrases {
        paraphrases.of(phrase.number).select(&candidate.by_number).for_each(|other| add(phrase, other));
    }
    for phrase in &candidate.phrases {
        paraphrases.of(phrase.number).select(&reference.by_number).for_each(|other| add(other, phrase));
    }
    found
}

impl Word {
    fn matches(&self, other: &Self, module: Module) -> bool {
        match module {
            Module::Exact => self.text == other.text,
            Module::Stem => self.stem == other.stem && self.text != other.text,
            Module::Synonym => intersect(&self.synonym_sets, &other.synonym_sets) && self.text != other.text,
            Module::Paraphrase => false,
        }
    }
}
