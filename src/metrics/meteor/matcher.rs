//! All matches between the words and phrases of two sentences. Choosing among them is the aligner's part.

use rayon::prelude::*;
use rust_stemmers::Stemmer;

use super::aligner::{Match, Module};
use super::normaliser::{is_delimiter, normalise};
use super::paraphrase::{Opening, Paraphrases, Phrase};
use super::resources::Language;
use super::wordnet::intersect;
use crate::metrics::ngram::Interner;

/// A caption as METEOR normalises it, in lower case.
pub(crate) fn normalised(text: &str, language: &Language) -> String {
    // Nothing in the rules of the normaliser concerns letters and digits, and most captions have nothing else.
    let plain = text.bytes().all(|byte| matches!(byte, b' ' | b'a'..=b'z' | b'0'..=b'9'));
    if plain { text.to_owned() } else { normalise(text, &language.abbreviations).to_lowercase() }
}

/// The different words of some sentences, and what the matchers need to know of each. Captions have few different words: each
/// is analysed once, and sentences are numbers.
pub(crate) struct Lexicon<'a> {
    words: Vec<Word<'a>>,
}

struct Word<'a> {
    text: &'a str,
    /// Equal numbers are equal stems.
    stem: u32,
    synonym_sets: Vec<u32>,
    /// A bit per synonym set, of which several share one: words without a common bit have no common set.
    signature: u64,
    is_function_word: bool,
    opening: Option<Opening>,
}

/// A sentence by the numbers of its words, and its phrases in the paraphrase table.
pub(crate) struct Sentence {
    words: Vec<u32>,
    /// By position.
    phrases: Vec<Phrase>,
    /// The same, by number.
    by_number: Vec<Phrase>,
}

impl<'a> Lexicon<'a> {
    /// The words of `texts` ([`normalised`]), and each text as numbers of words.
    pub(crate) fn new<I: Iterator<Item = &'a str>>(
        texts: I,
        language: &Language,
        stemmer: &Stemmer,
        paraphrases: &Paraphrases,
    ) -> (Self, Vec<Vec<u32>>) {
        let mut interner = Interner::default();
        let mut words = Vec::new();
        let mut number = |word: &'a str| {
            let number = interner.number(word);
            if number as usize == words.len() {
                words.push(word);
            }
            number
        };
        let split = |text: &'a str| text.split(is_delimiter).filter(|word| !word.is_empty());
        let numbers = texts.map(|text| split(text).map(&mut number).collect()).collect();
        let analyse = |text: &&'a str| {
            let synonym_sets = language.wordnet.all_sets(text);
            let word = Word {
                text,
                stem: 0,
                signature: synonym_sets.iter().fold(0, |bits, set| bits | 1 << (set % 64)),
                synonym_sets,
                is_function_word: language.function_words.contains(*text),
                opening: paraphrases.opening(text),
            };
            (word, stemmer.stem(text))
        };
        let (mut words, stems): (Vec<Word>, Vec<_>) = words.par_iter().map(analyse).unzip();
        let mut interner = Interner::default();
        words.iter_mut().zip(&stems).for_each(|(word, stem)| word.stem = interner.number(stem));
        (Self { words }, numbers)
    }

    /// A sentence of these words.
    pub(crate) fn sentence(&self, words: Vec<u32>, paraphrases: &Paraphrases) -> Sentence {
        let of = |at: usize| &self.words[words[at] as usize];
        let phrases = paraphrases.phrases(words.len(), |at| of(at).text, |at| of(at).opening);
        let mut by_number = phrases.clone();
        by_number.sort_unstable();
        Sentence { words, phrases, by_number }
    }

    /// The words of a sentence, normalised and in lower case.
    pub(crate) fn texts(&self, sentence: &Sentence) -> Vec<String> {
        sentence.words.iter().map(|word| self.words[*word as usize].text.to_owned()).collect()
    }

    /// How many of `length` words of a sentence from `start` are function words.
    pub(crate) fn function_words(&self, sentence: &Sentence, start: usize, length: usize) -> usize {
        let stretch = &sentence.words[start..start + length];
        stretch.iter().filter(|word| self.words[**word as usize].is_function_word).count()
    }

    /// Whether `module` matches two words.
    fn matching(&self, one: u32, other: u32, module: Module) -> bool {
        let (left, right) = (&self.words[one as usize], &self.words[other as usize]);
        match module {
            Module::Exact => one == other,
            Module::Stem => left.stem == right.stem && one != other,
            Module::Synonym => {
                left.signature & right.signature != 0
                    && one != other
                    && intersect(&left.synonym_sets, &right.synonym_sets)
            }
            Module::Paraphrase => false,
        }
    }
}

impl Sentence {
    /// Number of words.
    pub(crate) fn len(&self) -> usize {
        self.words.len()
    }
}

/// For each word of the reference, the matches that start there, in the order in which METEOR finds them, which decides ties: module by module, and
/// paraphrases from the reference's phrases before those from the candidate's. A pair found twice counts twice.
pub(crate) fn matches(
    lexicon: &Lexicon,
    candidate: &Sentence,
    reference: &Sentence,
    paraphrases: &Paraphrases,
) -> Vec<Vec<Match>> {
    let mut found: Vec<Vec<Match>> = vec![Vec::new(); reference.len()];
    for (start, (here, word)) in found.iter_mut().zip(&reference.words).enumerate() {
        for module in [Module::Exact, Module::Stem, Module::Synonym] {
            let matching =
                candidate.words.iter().enumerate().filter(|(_, other)| lexicon.matching(*word, **other, module));
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
