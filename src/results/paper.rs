//! What papers report: the names, units and order of their values, and the measured counterpart of each.
//!
//! Reported values live in the `[[paper]]` rows of the experiment files, not here.

use crate::config::{CheckpointChoice, PaperRow, PaperScore, Setting, VqaEvaluator};
use crate::track::RunRecord;

/// Scores in the order in which papers print them.
const ORDER: [(&str, &str); 12] = [
    ("bleu_1", "BLEU-1"),
    ("bleu_2", "BLEU-2"),
    ("bleu_3", "BLEU-3"),
    ("bleu_4", "BLEU-4"),
    ("meteor", "METEOR"),
    ("rouge_l", "ROUGE-L"),
    ("cider", "CIDEr"),
    ("spice", "SPICE"),
    ("overall", "Overall"),
    ("yes_no", "Yes/No"),
    ("number", "Number"),
    ("other", "Other"),
];

/// Unit of a value in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Hundredths, as papers print scores.
    Points,
    /// A plain ratio.
    Ratio,
    /// A whole number.
    Count,
    /// A learning rate.
    Rate,
    /// Minutes.
    Minutes,
}

impl std::fmt::Display for Unit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Unit::Points => "points",
            Unit::Ratio => "ratio",
            Unit::Count => "count",
            Unit::Rate => "rate",
            Unit::Minutes => "minutes",
        })
    }
}

/// The unit in which a value is reported.
pub fn unit(metric: &str) -> Unit {
    match PaperScore::parse(metric) {
        Some(PaperScore::CiderOverFirst) => Unit::Ratio,
        Some(PaperScore::Setting(Setting::LearningRate)) => Unit::Rate,
        Some(PaperScore::Setting(_)) => Unit::Count,
        Some(PaperScore::MinutesPerEpoch) => Unit::Minutes,
        _ => Unit::Points,
    }
}

/// The name of a value in a table. An accuracy of answers says whose it is: that of `evaluator`, unless its own name says
/// so, or the server's.
pub fn title(metric: &str, row: &PaperRow, evaluator: VqaEvaluator) -> String {
    let known = |score: &str| ORDER.iter().find(|(key, _)| *key == score).map(|(_, title)| (*title).to_string());
    let plain = |score: &str| {
        let whose = match evaluator {
            _ if row.server => "server",
            VqaEvaluator::Official => "official",
            VqaEvaluator::Legacy => "legacy",
        };
        let (score, majority) =
            score.strip_prefix("majority_").map_or((score, ""), |score| (score, ", majority answer"));
        let (score, whose) = match score.rsplit_once('_') {
            Some((score, given @ ("official" | "legacy"))) => (score, given),
            _ => (score, whose),
        };
        let Some(name) = known(score) else { return score.to_string() };
        let of_answers = PaperScore::Plain(score).is_of_answers() == Some(true);
        if of_answers { format!("{name}{majority} ({whose})") } else { name }
    };
    match PaperScore::parse(metric) {
        None => metric.to_string(),
        Some(PaperScore::Plain(score)) => plain(score),
        Some(PaperScore::CiderOverFirst) => "CIDEr / first epoch".into(),
        Some(PaperScore::MinusMajority(score)) => format!("{} − majority answer", plain(score)),
        Some(PaperScore::MinusExperiment(score, experiment)) => format!("{} − {experiment}", plain(score)),
        Some(PaperScore::Setting(Setting::BatchSize)) => "Batch per process".into(),
        Some(PaperScore::Setting(Setting::WorldSize)) => "GPUs".into(),
        Some(PaperScore::Setting(Setting::LearningRate)) => "Learning rate".into(),
        Some(PaperScore::Setting(Setting::Epochs)) => "Epochs".into(),
        Some(PaperScore::MinutesPerEpoch) => "Minutes per epoch".into(),
    }
}

/// The name of a score where no row is at hand.
pub fn score_title(metric: &str, evaluator: VqaEvaluator) -> String {
    title(metric, &PaperRow::default(), evaluator)
}

/// Sort key: scores in the order of papers, those of a named evaluator after all plain ones, then what is derived, then
/// the overview's columns in the order of the authors' page.
pub fn order(metric: &str) -> (usize, usize, &str) {
    let place = |score: &str| ORDER.iter().position(|(key, _)| *key == score);
    match PaperScore::parse(metric) {
        Some(PaperScore::Plain(score)) => {
            let bare = score.strip_prefix("majority_").unwrap_or(score);
            let bare = bare.strip_suffix("_official").or(bare.strip_suffix("_legacy")).unwrap_or(bare);
            (if bare == score { 0 } else { 1 }, place(bare).unwrap_or(ORDER.len()), metric)
        }
        Some(PaperScore::CiderOverFirst) => (2, 0, metric),
        Some(PaperScore::MinusMajority(score) | PaperScore::MinusExperiment(score, _)) => {
            (2, 1 + place(score).unwrap_or(ORDER.len()), metric)
        }
        Some(PaperScore::Setting(setting)) => (3, setting as usize, metric),
        Some(PaperScore::MinutesPerEpoch) => (4, 0, metric),
        None => (5, 0, metric),
    }
}

/// The measured value of `metric` for a row in the run `record`, in the unit of [`unit()`]; none when it was not measured.
/// `finished` are all finished runs, newest first.
pub fn measured(metric: &str, row: &PaperRow, record: &RunRecord, finished: &[&RunRecord]) -> Option<f64> {
    let recorded =
        |record: &RunRecord, checkpoint, name: &str| record.scores.get(checkpoint, &row.split)?.get(name).copied();
    let score = |name: &str| recorded(record, row.checkpoint, name);
    match PaperScore::parse(metric) {
        None => Some(score(metric)? * 100.0),
        Some(PaperScore::Plain(name)) => Some(score(name)? * 100.0),
        Some(PaperScore::CiderOverFirst) => Some(score("cider")? / recorded(record, CheckpointChoice::First, "cider")?),
        Some(PaperScore::MinusMajority(name)) => Some((score(name)? - score(&format!("majority_{name}"))?) * 100.0),
        Some(PaperScore::MinusExperiment(name, experiment)) => {
            let other = counterpart(record, experiment, finished)?;
            Some((score(name)? - recorded(other, row.checkpoint, name)?) * 100.0)
        }
        Some(PaperScore::Setting(setting)) => Some(setting.of(&record.lock.settings)),
        Some(PaperScore::MinutesPerEpoch) => Some(record.epoch_seconds? / 60.0),
    }
}

/// The run of another experiment that a run is compared with: the one that it started from, else the newest.
fn counterpart<'a>(record: &RunRecord, experiment: &str, finished: &[&'a RunRecord]) -> Option<&'a RunRecord> {
    let of_it = |other: &&&RunRecord| other.lock.settings.experiment.name == experiment;
    let parent = record.lock.parent.as_ref().filter(|parent| parent.experiment == experiment);
    let upstream = parent.and_then(|parent| finished.iter().filter(of_it).find(|other| other.run.id() == parent.run));
    upstream.or_else(|| finished.iter().find(of_it)).copied()
}
