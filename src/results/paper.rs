//! What papers report: the names, units and order of their scores, and the measured counterpart of each.
//!
//! Reported values live in the `[[paper]]` rows of the experiment files, not here.

use crate::config::{CheckpointChoice, PaperRow};
use crate::track::Scores;

/// Ratio of a checkpoint's CIDEr to that of the first epoch's checkpoint.
pub const CIDER_OVER_FIRST: &str = "cider_over_first";

/// Scores in the order in which papers print them; others follow by name.
const ORDER: [(&str, &str); 9] = [
    ("bleu_1", "BLEU-1"),
    ("bleu_2", "BLEU-2"),
    ("bleu_3", "BLEU-3"),
    ("bleu_4", "BLEU-4"),
    ("meteor", "METEOR"),
    ("rouge_l", "ROUGE-L"),
    ("cider", "CIDEr"),
    ("spice", "SPICE"),
    (CIDER_OVER_FIRST, "CIDEr / first epoch"),
];

/// Unit of a value in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Hundredths, as papers print scores.
    Points,
    /// A plain ratio.
    Ratio,
}

/// The unit in which a score is reported.
pub fn unit(metric: &str) -> Unit {
    if metric == CIDER_OVER_FIRST { Unit::Ratio } else { Unit::Points }
}

/// The name of a score in a table.
pub fn title(metric: &str) -> &str {
    ORDER.iter().find(|(key, _)| *key == metric).map_or(metric, |(_, title)| title)
}

/// Sort key: the order of papers, then the name.
pub fn order(metric: &str) -> (usize, &str) {
    (ORDER.iter().position(|(key, _)| *key == metric).unwrap_or(ORDER.len()), metric)
}

/// The measured value of `metric` for a row, in the unit of [`unit()`]; none when it was not scored.
pub fn measured(metric: &str, row: &PaperRow, scores: &Scores) -> Option<f64> {
    let score = |checkpoint, name: &str| scores.get(checkpoint, &row.split)?.get(name).copied();
    if metric == CIDER_OVER_FIRST {
        Some(score(row.checkpoint, "cider")? / score(CheckpointChoice::First, "cider")?)
    } else {
        Some(score(row.checkpoint, metric)? * 100.0)
    }
}
