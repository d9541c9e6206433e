//! What came of a sweep: its trials, the best first, and how much each option mattered.

use std::collections::HashMap;

use optimizer::distribution::Distribution;
use optimizer::parameter::{ParamId, ParamValue};
use optimizer::sampler::CompletedTrial;
use optimizer::storage::MemoryStorage;
use optimizer::{Direction, Study as OptimizerStudy};
use serde_json::Value;

use super::propose::{distribution, minimised, out_of_words};
use super::study::{Outcome, Trial};
use crate::config::{Sweep, flatten};

/// Fewest trials with a value for which importance is told.
const FEWEST: usize = 4;

/// One trial in the table.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Counted from 0.
    pub number: usize,
    /// None while it has not ended.
    pub outcome: Option<Outcome>,
    /// Best value of all epochs.
    pub value: Option<f64>,
    /// Epochs with a value.
    pub epochs: u64,
    /// The options whose values differ from the base.
    pub differences: Vec<(String, Value)>,
}

/// How much of the spread of the values an option explains, and which way it goes.
#[derive(Debug, Clone, PartialEq)]
pub struct Importance {
    /// The option.
    pub option: String,
    /// Share of the variance that the option explains alone (fANOVA, Hutter et al. 2014), 0 to 1.
    pub share: f64,
}

/// What came of a sweep.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Trials: finished ones first, by value, then stopped ones, then failed ones, then those that have not ended.
    pub rows: Vec<Row>,
    /// Options, the most important first; empty with fewer than four values, or when all are equal.
    pub importance: Vec<Importance>,
    /// The best finished trial, and its value.
    pub best: Option<(usize, f64)>,
}

impl Summary {
    /// Of the trials of a sweep.
    pub fn of(sweep: &Sweep, trials: &[Trial]) -> Self {
        let base = flatten(&sweep.base.settings);
        let direction = sweep.settings.direction;
        let mut rows: Vec<Row> = trials
            .iter()
            .map(|trial| Row {
                number: trial.number,
                outcome: trial.outcome,
                value: trial.best(direction),
                epochs: trial.values.last().map_or(0, |(epoch, _)| *epoch),
                differences: trial
                    .options
                    .iter()
                    .filter(|(key, value)| base.get(key).is_none_or(|base| !same(base, value)))
                    .cloned()
                    .collect(),
            })
            .collect();
        let group = |row: &Row| match row.outcome {
            Some(Outcome::Complete) => 0,
            Some(Outcome::Pruned) => 1,
            Some(Outcome::Failed) => 2,
            None => 3,
        };
        let height = |row: &Row| row.value.map_or(f64::INFINITY, |value| minimised(direction, value));
        rows.sort_by(|a, b| {
            let (of_a, of_b) = (group(a), group(b));
            of_a.cmp(&of_b).then(height(a).total_cmp(&height(b))).then(a.number.cmp(&b.number))
        });
        let best = rows.first().filter(|row| row.outcome == Some(Outcome::Complete));
        let best = best.and_then(|row| Some((row.number, row.value?)));
        Self { rows, importance: importance(sweep, trials), best }
    }
}

fn same(a: &Value, b: &Value) -> bool {
    a == b || a.as_f64().is_some_and(|a| b.as_f64() == Some(a))
}

/// The options by importance. Stopped trials count with the best value that they reached.
fn importance(sweep: &Sweep, trials: &[Trial]) -> Vec<Importance> {
    let direction = sweep.settings.direction;
    let ids: Vec<ParamId> = sweep.space.iter().map(|_| ParamId::new()).collect();
    let seen = |trial: &Trial| {
        let value = trial.best(direction)?;
        let mut params: HashMap<ParamId, ParamValue> = HashMap::new();
        let mut distributions: HashMap<ParamId, Distribution> = HashMap::new();
        let mut labels: HashMap<ParamId, String> = HashMap::new();
        for (id, (key, dimension)) in ids.iter().zip(&sweep.space) {
            let (_, given) = trial.options.iter().find(|(name, _)| name == key)?;
            params.insert(*id, out_of_words(dimension, given)?);
            distributions.insert(*id, distribution(dimension));
            labels.insert(*id, key.clone());
        }
        Some(CompletedTrial::new(trial.number as u64, params, distributions, labels, minimised(direction, value)))
    };
    let ended = trials.iter().filter(|trial| matches!(trial.outcome, Some(Outcome::Complete | Outcome::Pruned)));
    let history: Vec<CompletedTrial> = ended.filter_map(seen).collect();
    if history.len() < FEWEST {
        return Vec::new();
    }
    let study: OptimizerStudy<f64> =
        OptimizerStudy::builder().direction(Direction::Minimize).storage(MemoryStorage::with_trials(history)).build();
    let effects = study.fanova().map(|found| found.main_effects).unwrap_or_default();
    let all = effects.into_iter().map(|(option, share)| Importance { option, share });
    let found: Vec<Importance> = all.filter(|one| one.share.is_finite()).collect();
    if found.iter().all(|one| one.share == 0.0) { Vec::new() } else { found }
}
