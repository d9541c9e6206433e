//! Scores of image captions: BLEU-1 to BLEU-4, ROUGE-L and CIDEr over Penn Treebank tokens.
//!
//! Reproduces the numbers of the COCO caption tools (`pycocoevalcap` 1.2), quirks included, without Java or Python: strings in, numbers out, nothing else
//! of this crate needed. The scores below read no files; METEOR ([`meteor`]) and SPICE ([`spice`]) need those of their authors.
//!
//! | score | range | source |
//! |---|---|---|
//! | `bleu_1` … `bleu_4` | 0 to 1 | Papineni et al., ACL 2002; see [`bleu`] |
//! | `rouge_l` | 0 to 1 | Lin, 2004; see [`rouge`] |
//! | `cider` | 0 to 10 | Vedantam et al., CVPR 2015 (CIDEr-D); see [`cider`] |
//!
//! Papers report all of them times 100. Answers to questions are in [`vqa`].
//!
//! ```
//! use vlp::metrics::{CaptionEntry, score_captions};
//! let images = [
//!     CaptionEntry { id: "1".into(), candidate: "a dog runs on the grass".into(), references: vec!["A dog runs on the grass.".into()] },
//!     CaptionEntry { id: "2".into(), candidate: "two cats".into(), references: vec!["Two cats on a sofa.".into(), "Cats.".into()] },
//! ];
//! let scores = score_captions(&images)?;
//! assert!((scores.per_image[0]["rouge_l"] - 1.0).abs() < 1e-12);
//! # Ok::<(), vlp::metrics::MetricsError>(())
//! ```

pub mod bleu;
pub mod cider;
pub mod meteor;
pub mod ngram;
pub mod numbers;
pub mod ptb_tokenizer;
pub mod rouge;
pub mod spice;
pub mod vqa;

use std::collections::BTreeMap;

use rayon::prelude::*;

use bleu::BleuStatistics;
use cider::DocumentFrequencies;
use ngram::{Counts, Interner, Key, NARROW, Sentence};
use ptb_tokenizer::tokenize_lines;

/// Names of the scores, in the order in which they are usually printed.
pub const CAPTION_METRICS: [&str; 6] = ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider"];

/// One image: what was generated, and what people wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaptionEntry {
    /// Names the image in errors.
    pub id: String,
    /// The generated caption.
    pub candidate: String,
    /// The human captions, at least one.
    pub references: Vec<String>,
}

/// Scores by name (see [`CAPTION_METRICS`]), in the units of the COCO tools: fractions, not points.
#[derive(Debug, Clone, PartialEq)]
pub struct CaptionScores {
    /// Scores of the whole set. BLEU follows from summed counts; ROUGE-L and CIDEr are means over the images.
    pub corpus: BTreeMap<String, f64>,
    /// Scores of each image, in the order given.
    pub per_image: Vec<BTreeMap<String, f64>>,
}

/// Why captions cannot be scored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsError {
    /// The set is empty.
    #[error("no captions to score\n  help: give at least one image with a caption")]
    NoImages,
    /// An image has nothing to be compared with.
    #[error("image `{id}` has no reference caption\n  help: leave the image out, or add a caption to the annotations")]
    NoReferences {
        /// The image.
        id: String,
    },
}

/// Tokenises and scores captions as the COCO caption tools do.
///
/// The references of all images, in order, are tokenised as one text, the candidates as another, because the tokenizer looks at the line after
/// (see [`ptb_tokenizer::NextLine`]); hence the order of `images` can matter in rare cases. Document frequencies of CIDEr come from `images`: a single image
/// scores 0. Where no image has any reference word, CIDEr is 0 (the COCO tools fail).
///
/// # Errors
/// [`MetricsError`] if there is no image, or one without references.
pub fn score_captions(images: &[CaptionEntry]) -> Result<CaptionScores, MetricsError> {
    check(images.iter().map(|image| (image.id.as_str(), image.references.len())))?;
    score_tokenized(&tokenize_captions(images))
}

/// The same captions with the words of the Penn Treebank tokenizer separated by single spaces, as [`score_tokenized`],
/// [`meteor::Meteor::score`] and [`spice::score_tokenized`] take them.
pub fn tokenize_captions(images: &[CaptionEntry]) -> Vec<CaptionEntry> {
    let candidates: Vec<&str> = images.iter().map(|image| image.candidate.as_str()).collect();
    let references: Vec<&str> = images.iter().flat_map(|image| image.references.iter().map(String::as_str)).collect();
    let (candidates, references) = rayon::join(|| tokenize_lines(&candidates), || tokenize_lines(&references));
    let mut references = references.into_iter();
    let of = |(image, candidate): (&CaptionEntry, String)| CaptionEntry {
        id: image.id.clone(),
        candidate,
        references: references.by_ref().take(image.references.len()).collect(),
    };
    images.iter().zip(candidates).map(of).collect()
}

/// Scores captions that are already tokenised: words separated by single spaces.
///
/// # Errors
/// [`MetricsError`] if there is no image, or one without references.
pub fn score_tokenized(images: &[CaptionEntry]) -> Result<CaptionScores, MetricsError> {
    check(images.iter().map(|image| (image.id.as_str(), image.references.len())))?;
    let candidates: Vec<&str> = images.iter().map(|image| image.candidate.as_str()).collect();
    let references: Vec<&[String]> = images.iter().map(|image| image.references.as_slice()).collect();
    Ok(score(&candidates, &references))
}

fn check<'a>(images: impl Iterator<Item = (&'a str, usize)>) -> Result<(), MetricsError> {
    let mut any = false;
    for (id, references) in images {
        any = true;
        if references == 0 {
            return Err(MetricsError::NoReferences { id: id.to_owned() });
        }
    }
    if any { Ok(()) } else { Err(MetricsError::NoImages) }
}

/// A sentence as the two kinds of metric see it.
struct Prepared<K> {
    sentence: Sentence,
    counts: Counts<K>,
}

impl<K: Key> From<Sentence> for Prepared<K> {
    fn from(sentence: Sentence) -> Self {
        let counts = Counts::new(sentence.words());
        Self { sentence, counts }
    }
}

/// Scores of one image before they get their names.
struct ImageScores {
    bleu: BleuStatistics,
    rouge_l: f64,
    cider: f64,
}

fn score<C: AsRef<str>>(candidates: &[C], references: &[&[String]]) -> CaptionScores {
    let mut interner = Interner::default();
    let candidates: Vec<Sentence> = candidates.iter().map(|c| interner.sentence(c.as_ref())).collect();
    let references: Vec<Vec<Sentence>> =
        references.iter().map(|r| r.iter().map(|s| interner.sentence(s)).collect()).collect();
    if interner.len() <= NARROW {
        score_sentences::<u64>(candidates, references)
    } else {
        score_sentences::<u128>(candidates, references)
    }
}

fn score_sentences<K: Key>(candidates: Vec<Sentence>, references: Vec<Vec<Sentence>>) -> CaptionScores {
    let candidates: Vec<Prepared<K>> = candidates.into_par_iter().map(Prepared::from).collect();
    let (sentences, counts): (Vec<Vec<Sentence>>, Vec<Vec<Counts<K>>>) = references
        .into_par_iter()
        .map(|image| image.into_iter().map(Prepared::from).map(|p| (p.sentence, p.counts)).unzip())
        .unzip();
    let (frequencies, own) = DocumentFrequencies::with_own(&counts);
    let images: Vec<ImageScores> = candidates
        .par_iter()
        .enumerate()
        .map(|(at, candidate)| ImageScores {
            bleu: BleuStatistics::new(&candidate.counts, &counts[at]),
            rouge_l: rouge::rouge_l(candidate.sentence.pieces(), sentences[at].iter().map(Sentence::pieces)),
            cider: frequencies.score_document(&own, at, &candidate.counts, &counts[at]),
        })
        .collect();
    let mut total = BleuStatistics::default();
    images.iter().for_each(|image| total.add(&image.bleu));
    let mean = |value: fn(&ImageScores) -> f64| images.iter().map(value).sum::<f64>() / images.len() as f64;
    CaptionScores {
        corpus: named(&total, mean(|image| image.rouge_l), mean(|image| image.cider)),
        per_image: images.par_iter().map(|image| named(&image.bleu, image.rouge_l, image.cider)).collect(),
    }
}

fn named(bleu: &BleuStatistics, rouge_l: f64, cider: f64) -> BTreeMap<String, f64> {
    let [bleu_1, bleu_2, bleu_3, bleu_4] = bleu.scores();
    CAPTION_METRICS
        .iter()
        .map(|name| (*name).to_owned())
        .zip([bleu_1, bleu_2, bleu_3, bleu_4, rouge_l, cider])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str, candidate: &str, references: &[&str]) -> CaptionEntry {
        CaptionEntry {
            id: id.into(),
            candidate: candidate.into(),
            references: references.iter().map(|&r| r.into()).collect(),
        }
    }

    #[test]
    fn case_and_punctuation_do_not_count() {
        let images = [entry("1", "A man's dog, running.", &["a man's dog running"]), entry("2", "x", &["y"])];
        let scores = score_captions(&images).unwrap();
        assert!((scores.per_image[0]["bleu_4"] - 1.0).abs() < 1e-9);
        assert!((scores.per_image[0]["cider"] - 10.0).abs() < 1e-12);
        assert!((scores.corpus["rouge_l"] - 0.5).abs() < 1e-12);
        assert!((scores.corpus["cider"] - 5.0).abs() < 1e-12);
    }

    #[test]
    fn corpus_bleu_sums_counts() {
        // 2 of 2 and 0 of 2 unigrams; as long as the references.
        let scores = score_captions(&[entry("1", "a b", &["a b"]), entry("2", "c d", &["e f"])]).unwrap();
        assert!((scores.corpus["bleu_1"] - 0.5).abs() < 1e-9);
    }

    #[test]
    fn candidates_see_the_next_candidate() {
        let images = [entry("1", "the letter c.", &["c."]), entry("2", "A cat", &["a cat"])];
        assert_eq!(
            score_captions(&images).unwrap().per_image[0]["bleu_1"],
            score_tokenized(&[entry("1", "the letter c", &["c."])]).unwrap().per_image[0]["bleu_1"]
        );
    }

    #[test]
    fn names_are_those_announced() {
        let scores = score_captions(&[entry("1", "", &[""])]).unwrap();
        let mut expected = CAPTION_METRICS.map(str::to_owned);
        expected.sort();
        assert_eq!(scores.corpus.keys().cloned().collect::<Vec<_>>(), expected);
        assert_eq!(scores.corpus["rouge_l"], 1.0);
        assert_eq!(scores.corpus["cider"], 0.0);
    }

    #[test]
    fn refuses_what_cannot_be_scored() {
        assert_eq!(score_captions(&[]), Err(MetricsError::NoImages));
        let error = score_captions(&[entry("1", "a", &["a"]), entry("42", "a", &[])]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "image `42` has no reference caption\n  help: leave the image out, or add a caption to the annotations"
        );
    }
}
