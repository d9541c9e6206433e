//! Whether a trial is stopped before its last epoch, by the values that it and the others have reached.

use std::collections::{BTreeMap, HashMap};

use optimizer::pruner::{MedianPruner, Pruner, SuccessiveHalvingPruner};
use optimizer::sampler::CompletedTrial;
use optimizer::{Direction, TrialState};

use super::propose::minimised;
use super::study::{Outcome, Trial};
use crate::config::{Sweep, SweepMethod, SweepPruner};
use crate::track::{Entry, What};

/// The values of a running trial, by epoch.
#[derive(Debug, Clone, Copy)]
pub struct Report<'a> {
    /// Its number.
    pub number: usize,
    /// Epoch and value, by ascending epoch.
    pub values: &'a [(u64, f64)],
}

/// The values of `metric` in a journal, by epoch: the last of each epoch, finite ones only.
pub fn values_of(entries: &[Entry], metric: &str) -> Vec<(u64, f64)> {
    let mut values = BTreeMap::new();
    for entry in entries {
        if let What::Metric { name, value, epoch, .. } = &entry.what
            && name == metric
            && value.is_finite()
        {
            values.insert(*epoch, *value);
        }
    }
    values.into_iter().collect()
}

/// The epoch after which the trial should have gone no further; none while it may go on. `epochs` is the length of its
/// training: nothing is stopped after the last epoch. `others` are all trials that may be looked at.
///
/// Where proposals depend on results (`tpe`), so must nothing on the pace of the trials: every epoch is judged, and only
/// ended trials are looked at. Else the newest epoch is, and successive halving looks at trials that still run too.
pub fn judge(sweep: &Sweep, epochs: u64, own: Report, others: &[&Trial], running: &[Report]) -> Option<u64> {
    let settings = &sweep.settings;
    let pruner: Box<dyn Pruner> = match settings.pruner {
        SweepPruner::None => return None,
        // Its warm-up ends with the epoch that it names.
        SweepPruner::Median => Box::new(MedianPruner::new(Direction::Minimize).n_warmup_steps(settings.min_epochs)),
        SweepPruner::Asha => Box::new(
            SuccessiveHalvingPruner::new()
                .min_resource(settings.min_epochs.max(1))
                .max_resource(epochs.max(1))
                .reduction_factor(settings.reduction_factor.max(2))
                .direction(Direction::Minimize),
        ),
    };
    let minimise = |values: &[(u64, f64)]| -> Vec<(u64, f64)> {
        values.iter().map(|(epoch, value)| (*epoch, minimised(settings.direction, *value))).collect()
    };
    let seen = |number: usize, values: &[(u64, f64)], state: TrialState| {
        let empty = HashMap::new;
        let mut trial = CompletedTrial::with_intermediate_values(
            number as u64,
            empty(),
            HashMap::new(),
            HashMap::new(),
            0.0,
            minimise(values),
            HashMap::new(),
        );
        trial.state = state;
        trial
    };
    let mut history: Vec<CompletedTrial> = others
        .iter()
        .filter_map(|trial| {
            let state = match trial.outcome? {
                Outcome::Complete => TrialState::Complete,
                Outcome::Pruned => TrialState::Pruned,
                Outcome::Failed => return None,
            };
            Some(seen(trial.number, &trial.values, state))
        })
        .collect();
    if settings.pruner == SweepPruner::Asha && settings.method != SweepMethod::Tpe {
        history.extend(running.iter().map(|report| seen(report.number, report.values, TrialState::Pruned)));
    }
    let values = minimise(own.values);
    let first = if settings.method == SweepMethod::Tpe { 0 } else { values.len().saturating_sub(1) };
    let reached = (first..values.len()).map(|last| (values[last].0, &values[..=last]));
    reached
        .filter(|(epoch, _)| *epoch < epochs)
        .find(|(epoch, values)| pruner.should_prune(own.number as u64, *epoch, values, &history))
        .map(|(epoch, _)| epoch)
}
