//! Runs side by side: the settings in which they differ, their scores, and whether differences are more than chance.
//!
//! A pure function of run records and the scores of their images or questions, which the caller reads; rendering is in [`text`].

pub mod bootstrap;
pub mod text;

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::{IntoParallelIterator, ParallelIterator};
use serde_json::Value;

use super::items::{Item, ItemScores};
use super::paper;
use crate::config::{self, CheckpointChoice};
use crate::track::{Lock, RunRecord, selection_metric};

use bootstrap::{Bootstrap, RESAMPLES, SEED};

/// Sections of the settings that say where a run is kept and what its scores are held against, not what it is.
const LEFT_OUT: [&str; 5] = ["experiment.name", "experiment.description", "output.", "paper", "slurm."];

/// One run to be compared.
#[derive(Debug, Clone, Copy)]
pub struct Compared<'a> {
    /// The run.
    pub record: &'a RunRecord,
    /// Scores of the images or questions by evaluation, `<checkpoint>/<split>`.
    pub items: &'a BTreeMap<String, ItemScores>,
}

/// Runs side by side; the first is what the others are compared with.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// `<experiment>/<run id>` of each.
    pub runs: Vec<String>,
    /// In what they differ.
    pub settings: Vec<Difference>,
    /// Their scores.
    pub scores: Vec<ScoreRow>,
    /// What the first run was scored on one by one: what a draw of the tests is made of.
    pub item: Item,
    /// Tests of each run against the first.
    pub tests: Vec<Test>,
    /// Evaluations that could not be tested, and why.
    pub notes: Vec<String>,
}

/// A setting or another fact in which runs differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Dotted key of the setting, or `data`, `initial weights`, `device`, `program`.
    pub key: String,
    /// The value in each run; none where it has no such setting.
    pub values: Vec<Option<String>>,
}

/// One score of each run.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreRow {
    /// `<checkpoint>/<split>`.
    pub evaluation: String,
    /// Name of the score.
    pub metric: String,
    /// How tables call it.
    pub title: String,
    /// By run, in unit fractions.
    pub values: Vec<Option<f64>>,
}

/// One score of two runs, item by item.
#[derive(Debug, Clone, PartialEq)]
pub struct Test {
    /// `<checkpoint>/<split>`.
    pub evaluation: String,
    /// Name of the score.
    pub metric: String,
    /// How tables call it.
    pub title: String,
    /// Index of the run that is held against the first.
    pub run: usize,
    /// Images or questions that both have a score for.
    pub items: usize,
    /// Mean over those items, of the first run and of this one, in unit fractions.
    pub means: [f64; 2],
    /// The difference of the means (this run minus the first), in unit fractions.
    pub result: Bootstrap,
}

/// `<experiment>/<run id>`.
pub fn run_name(record: &RunRecord) -> String {
    format!("{}/{}", record.lock.settings.experiment.name, record.run.id())
}

/// Compares runs; all tests are against the first.
pub fn compare(runs: &[Compared]) -> Comparison {
    let records: Vec<&RunRecord> = runs.iter().map(|run| run.record).collect();
    let locks: Vec<&Lock> = records.iter().map(|record| &record.lock).collect();
    let (tests, notes) = tests(runs);
    Comparison {
        runs: records.iter().map(|record| run_name(record)).collect(),
        settings: differences(&locks),
        scores: score_rows(&records),
        item: records.first().map_or(Item::Image, |record| item(record)),
        tests,
        notes,
    }
}

fn item(record: &RunRecord) -> Item {
    Item::of(record.lock.settings.data.dataset)
}

/// The settings and facts in which runs differ, sorted by key; facts after settings.
pub fn differences(locks: &[&Lock]) -> Vec<Difference> {
    let flat: Vec<BTreeMap<String, Value>> = locks.iter().map(|lock| config::flatten(&lock.settings)).collect();
    let keys: BTreeSet<&String> =
        flat.iter().flat_map(BTreeMap::keys).filter(|key| !LEFT_OUT.iter().any(|left| key.starts_with(left))).collect();
    let setting = |key: &String| flat.iter().map(|settings| settings.get(key).map(config::toml_text)).collect();
    let settings = keys.into_iter().map(|key| Difference { key: key.clone(), values: setting(key) });
    let fact = |key: &str, of: &dyn Fn(&Lock) -> String| Difference {
        key: key.to_string(),
        values: locks.iter().map(|lock| Some(of(lock))).collect(),
    };
    let facts = [
        fact("data", &|lock| short(&lock.data_fingerprint)),
        fact("initial weights", &initial_weights),
        fact("device", &|lock| lock.device.clone()),
        fact("program", &program),
    ];
    settings.chain(facts).filter(|d| d.values.iter().any(|value| *value != d.values[0])).collect()
}

/// Where the weights of a run come from, in a few words.
pub fn initial_weights(lock: &Lock) -> String {
    match &lock.parent {
        None => "random".into(),
        Some(parent) if parent.experiment.is_empty() => {
            format!("{} ({})", parent.checkpoint.display(), short(&parent.sha256))
        }
        Some(parent) => format!("{}/{} ({})", parent.experiment, parent.run, short(&parent.sha256)),
    }
}

/// Version, commit and uncommitted changes of the program.
pub fn program(lock: &Lock) -> String {
    format!("vlp {} (commit {}, changes {})", lock.version, short(&lock.code.commit), short(&lock.code.diff))
}

/// The beginning of a hash; shorter texts as they are.
pub fn short(hash: &str) -> String {
    hash.chars().take(12).collect()
}

/// All scores that at least one run has: the selection scores, then those of the evaluated checkpoints.
pub fn score_rows(records: &[&RunRecord]) -> Vec<ScoreRow> {
    let mut rows = Vec::new();
    let selections: BTreeSet<String> = records.iter().filter_map(|r| selection_metric(&r.lock.settings)).collect();
    for selection in selections {
        let value = |r: &&RunRecord| {
            (selection_metric(&r.lock.settings).as_ref() == Some(&selection)).then_some(r.best_score).flatten()
        };
        let (split, metric) = selection.split_once('/').unwrap_or(("", &selection));
        let values: Vec<Option<f64>> = records.iter().map(value).collect();
        if values.iter().any(Option::is_some) {
            rows.push(ScoreRow {
                evaluation: format!("best epoch/{split}"),
                metric: metric.to_string(),
                title: title(metric, records),
                values,
            });
        }
    }
    let evaluations: BTreeSet<&String> = records.iter().flat_map(|r| r.scores.iter().map(|(key, _)| key)).collect();
    for evaluation in evaluations {
        let of: Vec<_> =
            records.iter().map(|r| r.scores.iter().find(|(key, _)| *key == evaluation).map(|(_, m)| m)).collect();
        let metrics: BTreeSet<&String> = of.iter().flatten().flat_map(|scores| scores.keys()).collect();
        let mut metrics: Vec<&String> = metrics.into_iter().collect();
        metrics.sort_by_key(|metric| paper::order(metric));
        rows.extend(metrics.into_iter().map(|metric| ScoreRow {
            evaluation: evaluation.clone(),
            metric: metric.clone(),
            title: title(metric, records),
            values: of.iter().map(|scores| scores.and_then(|s| s.get(metric)).copied()).collect(),
        }));
    }
    rows
}

fn title(metric: &str, records: &[&RunRecord]) -> String {
    let evaluator = records.first().map(|record| record.lock.settings.metrics.vqa).unwrap_or_default();
    paper::score_title(metric, evaluator)
}

/// The parts of an evaluation's name, `<checkpoint>/<split>`.
pub fn evaluation_parts(evaluation: &str) -> Option<(CheckpointChoice, &str)> {
    let (checkpoint, split) = evaluation.split_once('/')?;
    Some((serde_json::from_value(Value::String(checkpoint.to_string())).ok()?, split))
}

/// Tests every run against the first, on every evaluation that both have been scored on.
fn tests(runs: &[Compared]) -> (Vec<Test>, Vec<String>) {
    let records: Vec<&RunRecord> = runs.iter().map(|run| run.record).collect();
    let Some((first, others)) = runs.split_first() else { return Default::default() };
    let (mut jobs, mut notes) = (Vec::new(), Vec::new());
    for (index, other) in others.iter().enumerate().map(|(i, other)| (i + 1, other)) {
        let evaluations = first.record.scores.iter().map(|(key, _)| key);
        for evaluation in evaluations.filter(|key| other.record.scores.iter().any(|(other, _)| other == *key)) {
            let missing = |run: &&Compared<'_>| !run.items.contains_key(evaluation);
            let note = |run: &Compared<'_>| {
                let name = item(run.record).name();
                format!("{evaluation}: {} has no scores of each {name}", run_name(run.record))
            };
            let (Some(a), Some(b)) = (first.items.get(evaluation), other.items.get(evaluation)) else {
                let missing: Vec<String> = [first, other].into_iter().filter(missing).map(note).collect();
                notes.extend(missing.into_iter().filter(|note| !notes.contains(note)).collect::<Vec<_>>());
                continue;
            };
            let only = a.len() + b.len() - 2 * a.keys().filter(|id| b.contains_key(*id)).count();
            if only > 0 {
                let (name, items) = (run_name(other.record), item(first.record).plural());
                notes.push(format!(
                    "{evaluation}: {only} {items} are only in one of the first run and {name}; left out"
                ));
            }
            let metrics: BTreeSet<&String> = a.values().flat_map(BTreeMap::keys).collect();
            let mut metrics: Vec<&String> = metrics.into_iter().collect();
            metrics.sort_by_key(|metric| paper::order(metric));
            jobs.extend(metrics.into_iter().map(|metric| (index, evaluation, metric, a, b)));
        }
    }
    let one = |(run, evaluation, metric, a, b): (usize, &String, &String, &ItemScores, &ItemScores)| {
        let pairs: Vec<(f64, f64)> =
            a.iter().filter_map(|(id, scores)| Some((*scores.get(metric)?, *b.get(id)?.get(metric)?))).collect();
        let differences: Vec<f64> = pairs.iter().map(|(a, b)| b - a).collect();
        let result = bootstrap::bootstrap(&differences, RESAMPLES, SEED)?;
        let mean = |of: fn(&(f64, f64)) -> f64| pairs.iter().map(of).sum::<f64>() / pairs.len() as f64;
        Some(Test {
            evaluation: evaluation.clone(),
            metric: metric.clone(),
            title: title(metric, &records),
            run,
            items: pairs.len(),
            means: [mean(|pair| pair.0), mean(|pair| pair.1)],
            result,
        })
    };
    (jobs.into_par_iter().filter_map(one).collect(), notes)
}
