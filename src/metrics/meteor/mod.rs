//! METEOR 1.5 (Denkowski and Lavie, WMT 2014) for English, as the COCO caption tools use it: native, without Java.
//!
//! Reads the linguistic data (WordNet extract, function words, abbreviations) out of `meteor-1.5.jar` and the paraphrase table `paraphrase-en.gz`, which are
//! not part of this crate (LGPL; PyPI's `pycocoevalcap` carries them). Scores equal those of the jar. Only the setting of the COCO tools is implemented:
//! English, parameters of the task `rank`, normalisation with punctuation kept. [`jar::Jar`] runs the real jar, to check this module against it.
//!
//! ```no_run
//! use std::path::Path;
//! use vlp::metrics::meteor::Meteor;
//! let meteor = Meteor::open(Path::new("meteor"), Path::new("cache"))?;
//! // Captions as the tokenizer of the COCO tools gives them.
//! let scores = meteor.score(&[("a dog runs", vec!["the dog is running", "a dog on the grass"])]);
//! println!("{:.3}", scores.corpus);
//! # Ok::<(), vlp::metrics::meteor::MeteorError>(())
//! ```

pub mod aligner;
pub mod jar;
mod matcher;
pub mod normaliser;
pub mod paraphrase;
pub mod resources;
pub mod score;
pub mod wordnet;

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use rust_stemmers::{Algorithm, Stemmer};

use aligner::Match;
use matcher::{Lexicon, Sentence, normalised};
use paraphrase::Paraphrases;
use resources::{Files, Language};
use score::SegmentStatistics;

/// METEOR with its resources.
pub struct Meteor {
    language: Language,
    stemmer: Stemmer,
    paraphrases: Paraphrases,
}

/// Scores, 0 to 1.
#[derive(Debug, Clone, PartialEq)]
pub struct MeteorScores {
    /// Score of the summed statistics of all images; not the mean of the images' scores.
    pub corpus: f64,
    /// Scores of the images, in the order given.
    pub per_image: Vec<f64>,
}

impl MeteorScores {
    /// Scores that follow from the statistics of the images.
    pub fn from_statistics(images: &[SegmentStatistics]) -> Self {
        let mut sum = SegmentStatistics::default();
        images.iter().for_each(|image| sum.add(image));
        Self { corpus: sum.score(), per_image: images.iter().map(SegmentStatistics::score).collect() }
    }
}

/// What METEOR finds out about one candidate and one reference.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// Words of the candidate, normalised.
    pub candidate: Vec<String>,
    /// Words of the reference, normalised.
    pub reference: Vec<String>,
    /// The alignment, by position in the reference.
    pub matches: Vec<Match>,
    /// The counts.
    pub statistics: SegmentStatistics,
}

/// Why METEOR cannot be computed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MeteorError {
    /// The resources are not where they were expected.
    #[error(
        "METEOR needs {files}, not found in {}\n  help: run scripts/meteor.sh, or take pycocoevalcap/meteor/meteor-1.5.jar and \
         pycocoevalcap/meteor/data/paraphrase-en.gz out of PyPI's pycocoevalcap 1.2 (pip download --no-deps pycocoevalcap==1.2; a wheel is a zip file)",
        .folder.display()
    )]
    Missing {
        /// Where they were looked for.
        folder: PathBuf,
        /// Names of those that are missing.
        files: String,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {source}\n  help: check its permissions, or fetch it again with scripts/meteor.sh", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The jar is damaged, or another program's.
    #[error("{} is not the jar of METEOR 1.5: {reason}\n  help: fetch it again with scripts/meteor.sh", .path.display())]
    BadJar {
        /// The jar.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The paraphrase table is damaged.
    #[error(
        "{} is not a paraphrase table of METEOR 1.5: line {line} is not what it should be (a probability, a phrase and its paraphrase, each on a line)\n  \
         help: fetch it again with scripts/meteor.sh",
        .path.display()
    )]
    BadParaphrases {
        /// The table.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// The compiled paraphrase table cannot be kept.
    #[error("compiled paraphrase table {}: {reason}\n  help: make its folder writable, or name another cache folder", .path.display())]
    Cache {
        /// The index file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The real jar did not do its work.
    #[error("the METEOR jar {}: {reason}\n  help: {help}", .jar.display())]
    Jar {
        /// The jar.
        jar: PathBuf,
        /// What happened.
        reason: String,
        /// What to do.
        help: &'static str,
    },
}

impl MeteorError {
    fn read(path: &Path, source: std::io::Error) -> Self {
        Self::Read { path: path.to_owned(), source }
    }

    fn cache(path: &Path, reason: impl ToString) -> Self {
        Self::Cache { path: path.to_owned(), reason: reason.to_string() }
    }
}

impl Meteor {
    /// Opens the resources in the folder `resources`: `meteor-1.5.jar` and `paraphrase-en.gz` (or `data/paraphrase-en.gz`).
    ///
    /// The first time it compiles the paraphrase table into an index in the folder `cache` (about 10 seconds); later it maps that index into memory.
    ///
    /// # Errors
    /// [`MeteorError`] tells which file is missing or damaged.
    pub fn open(resources: &Path, cache: &Path) -> Result<Self, MeteorError> {
        let files = Files::find(resources)?;
        let (language, paraphrases) =
            rayon::join(|| Language::read(&files.jar), || Paraphrases::open(&files.paraphrases, cache));
        Ok(Self { language: language?, stemmer: Stemmer::create(Algorithm::English), paraphrases: paraphrases? })
    }

    /// Scores images: for each, the candidate and its references, tokenised (words separated by single spaces).
    ///
    /// As in `pycocoevalcap`, `|||` is removed from the candidate and divides a reference into several, and an image without references has an empty one.
    pub fn score<C, R>(&self, images: &[(C, Vec<R>)]) -> MeteorScores
    where
        C: AsRef<str> + Sync,
        R: AsRef<str> + Sync,
    {
        let texts: Vec<Texts> =
            images.par_iter().map(|(candidate, references)| self.texts(candidate.as_ref(), references)).collect();
        MeteorScores::from_statistics(&self.statistics(&texts))
    }

    /// Statistics of one image: those of the reference with the best score, the first of equally good ones. See [`Self::score`] for what is done to the
    /// strings.
    pub fn image_statistics<R: AsRef<str>>(&self, candidate: &str, references: &[R]) -> SegmentStatistics {
        self.statistics(&[self.texts(candidate, references)]).pop().unwrap_or_default()
    }

    /// Aligns one candidate with one reference. The strings are taken as they are, but for METEOR's own normalisation.
    pub fn segment(&self, candidate: &str, reference: &str) -> Segment {
        let texts = [candidate, reference].map(|text| normalised(text, &self.language));
        let texts = texts.iter().map(String::as_str);
        let (lexicon, numbers) = Lexicon::new(texts, &self.language, &self.stemmer, &self.paraphrases);
        let mut numbers = numbers.into_iter();
        let mut next = || lexicon.sentence(numbers.next().unwrap_or_default(), &self.paraphrases);
        let (candidate, reference) = (next(), next());
        let (matches, statistics) = self.align(&lexicon, &candidate, &reference);
        Segment { candidate: lexicon.texts(&candidate), reference: lexicon.texts(&reference), matches, statistics }
    }

    /// Statistics of one candidate and one reference, see [`Self::segment`].
    pub fn segment_stats(&self, candidate: &str, reference: &str) -> SegmentStatistics {
        self.segment(candidate, reference).statistics
    }

    /// The English data of the jar.
    pub fn language(&self) -> &Language {
        &self.language
    }

    /// The stem of a word in lower case (Snowball, English).
    pub fn stem<'a>(&self, word: &'a str) -> Cow<'a, str> {
        self.stemmer.stem(word)
    }

    fn texts<R: AsRef<str>>(&self, candidate: &str, references: &[R]) -> Texts {
        Texts {
            candidate: normalised(&clean_candidate(candidate), &self.language),
            references: split_references(references).map(|text| normalised(text, &self.language)).collect(),
        }
    }

    /// Per image, the statistics of the best reference.
    fn statistics(&self, images: &[Texts]) -> Vec<SegmentStatistics> {
        let all = images.iter().flat_map(|image| [&image.candidate].into_iter().chain(&image.references));
        let texts = all.map(String::as_str);
        let (lexicon, numbers) = Lexicon::new(texts, &self.language, &self.stemmer, &self.paraphrases);
        let mut rest = numbers.as_slice();
        let take = |image: &Texts| {
            let (own, after) = rest.split_at(1 + image.references.len());
            rest = after;
            own
        };
        let images: Vec<&[Vec<u32>]> = images.iter().map(take).collect();
        let best = |texts: &&[Vec<u32>]| {
            let mut sentences = texts.iter().map(|words| lexicon.sentence(words.clone(), &self.paraphrases));
            let candidate = sentences.next()?;
            let mut best: Option<(f64, SegmentStatistics)> = None;
            for reference in sentences {
                let statistics = self.align(&lexicon, &candidate, &reference).1;
                let score = statistics.score();
                if best.is_none_or(|(other, _)| score > other) {
                    best = Some((score, statistics));
                }
            }
            best.map(|(_, statistics)| statistics)
        };
        images.par_iter().map(|image| best(image).unwrap_or_default()).collect()
    }

    fn align(&self, lexicon: &Lexicon, candidate: &Sentence, reference: &Sentence) -> (Vec<Match>, SegmentStatistics) {
        let matches = matcher::matches(lexicon, candidate, reference, &self.paraphrases);
        let alignment = aligner::align(&matches, candidate.len());
        let function_words = |in_reference: bool, start, length| {
            lexicon.function_words(if in_reference { reference } else { candidate }, start, length)
        };
        let statistics = SegmentStatistics::new(&alignment, candidate.len(), reference.len(), function_words);
        (alignment.matches, statistics)
    }
}

/// What METEOR compares of an image, normalised.
struct Texts {
    candidate: String,
    references: Vec<String>,
}

/// What separates strings in the protocol of the jar.
const SEPARATOR: &str = "|||";

/// What `pycocoevalcap` does to a candidate.
fn clean_candidate(candidate: &str) -> String {
    candidate.replace(SEPARATOR, "").replace("  ", " ")
}

/// The references as the jar receives them.
fn split_references<R: AsRef<str>>(references: &[R]) -> impl Iterator<Item = &str> {
    let none = references.is_empty().then_some("");
    references.iter().flat_map(|reference| reference.as_ref().split(SEPARATOR)).chain(none)
}
