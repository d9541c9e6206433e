//! The settings of a trial, from the seed, its number, and the trials before it.
//!
//! A proposal is a pure function of these: the sampler is made anew for each, so that a study that is read again proposes
//! what it would have proposed. `optimizer`'s estimator minimises, so values are negated where larger is better. Its
//! history shows one option at a time: it tells options apart by their ranges alone.

use std::collections::HashMap;

use optimizer::TrialState;
use optimizer::distribution::{CategoricalDistribution, Distribution, FloatDistribution, IntDistribution};
use optimizer::parameter::{ParamId, ParamValue};
use optimizer::sampler::grid::{
    generate_categorical_grid_points, generate_float_grid_points, generate_int_grid_points,
};
use optimizer::sampler::{CompletedTrial, RandomSampler, Sampler, TpeSampler};
use serde_json::Value;

use super::study::{Outcome, Trial};
use crate::config::{Dimension, Sweep, SweepDirection, SweepMethod};

/// The settings of trial `number`, counted from 0: option and value, in the order of `[space]`. `before` are the trials that
/// may be looked at. None past the end of a grid.
pub fn proposal(sweep: &Sweep, number: usize, before: &[&Trial]) -> Option<Vec<(String, Value)>> {
    let settings = &sweep.settings;
    let random = RandomSampler::with_seed(settings.seed);
    let tpe = TpeSampler::builder().n_startup_trials(settings.startup_trials).seed(settings.seed).build().ok();
    let point = if settings.method == SweepMethod::Grid { Some(grid_point(sweep, number)?) } else { None };
    let mut found = Vec::new();
    for (place, (key, dimension)) in sweep.space.iter().enumerate() {
        let distribution = distribution(dimension);
        let value = match (&point, &tpe) {
            (Some(point), _) => point[place].clone(),
            (None, Some(tpe)) if settings.method == SweepMethod::Tpe => {
                let history: Vec<CompletedTrial> = before.iter().filter_map(|t| seen(sweep, t, place)).collect();
                tpe.sample(&distribution, number as u64, &history)
            }
            (None, _) => random.sample(&distribution, number as u64, &[]),
        };
        found.push((key.clone(), in_words(dimension, &value)));
    }
    Some(found)
}

/// Number of different settings; none where a range makes it endless and the method is no grid.
pub fn combinations(sweep: &Sweep) -> Option<usize> {
    if sweep.settings.method != SweepMethod::Grid {
        return None;
    }
    let counts = sweep.space.iter().map(|(_, dimension)| grid(sweep, dimension).len());
    Some(counts.fold(1usize, usize::saturating_mul))
}

/// The combination with this number; the last option changes fastest.
fn grid_point(sweep: &Sweep, number: usize) -> Option<Vec<ParamValue>> {
    let mut rest = number;
    let mut point = Vec::new();
    for (_, dimension) in sweep.space.iter().rev() {
        let values = grid(sweep, dimension);
        point.push(values.get(rest % values.len())?.clone());
        rest /= values.len();
    }
    point.reverse();
    (rest == 0).then_some(point)
}

/// The values that a grid takes of an option.
fn grid(sweep: &Sweep, dimension: &Dimension) -> Vec<ParamValue> {
    let points = sweep.settings.grid_points;
    match distribution(dimension) {
        Distribution::Float(d) => generate_float_grid_points(&d, points).into_iter().map(ParamValue::Float).collect(),
        Distribution::Int(d) => generate_int_grid_points(&d, points).into_iter().map(ParamValue::Int).collect(),
        Distribution::Categorical(d) => {
            generate_categorical_grid_points(&d).into_iter().map(ParamValue::Categorical).collect()
        }
    }
}

/// An option's values as `optimizer` has them.
pub(super) fn distribution(dimension: &Dimension) -> Distribution {
    let float = |low, high, log_scale| Distribution::Float(FloatDistribution { low, high, log_scale, step: None });
    match dimension {
        Dimension::Choice(values) => Distribution::Categorical(CategoricalDistribution { n_choices: values.len() }),
        Dimension::Uniform(low, high) => float(*low, *high, false),
        Dimension::LogUniform(low, high) => float(*low, *high, true),
        Dimension::Int(low, high) => {
            Distribution::Int(IntDistribution { low: *low, high: *high, log_scale: false, step: None })
        }
    }
}

/// A proposed value as a setting. Numbers have six digits: what is written is what was tried.
fn in_words(dimension: &Dimension, value: &ParamValue) -> Value {
    match (dimension, value) {
        (Dimension::Choice(values), ParamValue::Categorical(index)) => values[(*index).min(values.len() - 1)].clone(),
        (Dimension::Uniform(low, high) | Dimension::LogUniform(low, high), ParamValue::Float(x)) => {
            let rounded = format!("{x:.5e}").parse::<f64>().unwrap_or(*x);
            rounded.clamp(*low, *high).into()
        }
        (_, ParamValue::Int(n)) => (*n).into(),
        (_, ParamValue::Float(x)) => (*x).into(),
        (_, ParamValue::Categorical(index)) => (*index).into(),
    }
}

/// A setting as `optimizer` has it; none where it is not among the values of the option.
pub(super) fn out_of_words(dimension: &Dimension, value: &Value) -> Option<ParamValue> {
    Some(match dimension {
        Dimension::Choice(values) => ParamValue::Categorical(values.iter().position(|one| one == value)?),
        Dimension::Uniform(..) | Dimension::LogUniform(..) => ParamValue::Float(value.as_f64()?),
        Dimension::Int(..) => ParamValue::Int(value.as_i64()?),
    })
}

/// An ended trial as the estimator sees it, with the option at `place` alone. One that was stopped counts with the best
/// value that it reached; one that failed has none.
fn seen(sweep: &Sweep, trial: &Trial, place: usize) -> Option<CompletedTrial> {
    let value = trial.best(sweep.settings.direction)?;
    let (key, dimension) = &sweep.space[place];
    let id = ParamId::new();
    let given = trial.options.iter().find(|(name, _)| name == key).map(|(_, value)| value)?;
    let params = HashMap::from([(id, out_of_words(dimension, given)?)]);
    let distributions = HashMap::from([(id, distribution(dimension))]);
    let mut completed = CompletedTrial::new(
        trial.number as u64,
        params,
        distributions,
        HashMap::new(),
        minimised(sweep.settings.direction, value),
    );
    match trial.outcome {
        Some(Outcome::Complete) => {}
        Some(Outcome::Pruned) => completed.state = TrialState::Pruned,
        Some(Outcome::Failed) | None => return None,
    }
    Some(completed)
}

/// The value in the sign in which smaller is better.
pub(super) fn minimised(direction: SweepDirection, value: f64) -> f64 {
    match direction {
        SweepDirection::Maximize => -value,
        SweepDirection::Minimize => value,
    }
}
