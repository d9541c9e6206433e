//! The report on a sweep: what came of it, in the terms of `results`.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::super::context::Failure;
use super::super::run::track_failure;
use super::{outcome_text, run};
use crate::config::{Dimension, Sweep, SweepDirection, toml_text};
use crate::results::report::{self, Axis, SweepPage, TrialShown};
use crate::sweep::{Study, Summary, trial_name};
use crate::track::write_atomic;

/// Name of the report in the folder of a sweep.
const FILE: &str = "report.html";

/// Writes the report into the folder of the sweep, or to `out`; its path.
pub fn write(sweep: &Sweep, study: &Study, out: Option<&Path>) -> Result<PathBuf, Failure> {
    let summary = Summary::of(sweep, study.trials());
    let trials = summary.rows.iter().map(|row| {
        let trial = &study.trials()[row.number];
        let place = |(key, dimension): &(String, Dimension)| {
            let value = trial.options.iter().find(|(name, _)| name == key).map(|(_, value)| value)?;
            Some((share(dimension, value)?, toml_text(value)))
        };
        TrialShown {
            number: row.number + 1,
            name: trial_name(sweep, row.number),
            state: outcome_text(row.outcome),
            value: row.value,
            values: trial.values.clone(),
            options: sweep.space.iter().map(place).collect(),
            detail: trial.detail.clone(),
        }
    });
    let page = SweepPage {
        name: sweep.settings.name.clone(),
        description: sweep.settings.description.clone(),
        metric: sweep.settings.metric.clone(),
        maximize: sweep.settings.direction == SweepDirection::Maximize,
        axes: sweep
            .space
            .iter()
            .map(|(key, dimension)| Axis { option: key.clone(), ticks: ticks(dimension) })
            .collect(),
        trials: trials.collect(),
        importance: summary.importance.iter().map(|one| (one.option.clone(), one.share)).collect(),
        best: summary.best.map(|(number, _)| number + 1),
        best_file: study.folder().join(run::BEST).display().to_string(),
    };
    let path = out.map_or_else(|| study.folder().join(FILE), Path::to_path_buf);
    write_atomic(&path, report::sweep(&page).as_bytes()).map_err(track_failure)?;
    Ok(path)
}

/// Where a value is on the axis of its option, 0 to 1.
fn share(dimension: &Dimension, value: &Value) -> Option<f64> {
    let between = |low: f64, high: f64, x: f64| ((x - low) / (high - low)).clamp(0.0, 1.0);
    Some(match dimension {
        Dimension::Choice(values) => {
            let index = values.iter().position(|one| one == value)?;
            (index as f64 + 0.5) / values.len() as f64
        }
        Dimension::Uniform(low, high) => between(*low, *high, value.as_f64()?),
        Dimension::LogUniform(low, high) => between(low.ln(), high.ln(), value.as_f64()?.ln()),
        Dimension::Int(low, high) => between(*low as f64, *high as f64, value.as_f64()?),
    })
}

/// Marks of an axis: choices, powers of ten between the ends of a logarithmic range, and the ends of the others.
fn ticks(dimension: &Dimension) -> Vec<(f64, String)> {
    let values: Vec<Value> = match dimension {
        Dimension::Choice(values) => values.clone(),
        Dimension::LogUniform(low, high) => {
            let (first, last) = (low.log10().ceil() as i32, high.log10().floor() as i32);
            let powers: Vec<Value> = (first..=last).map(|power| Value::from(10f64.powi(power))).collect();
            if powers.len() > 1 { powers } else { vec![(*low).into(), (*high).into()] }
        }
        Dimension::Uniform(low, high) => vec![(*low).into(), ((low + high) / 2.0).into(), (*high).into()],
        Dimension::Int(low, high) => vec![(*low).into(), (*high).into()],
    };
    values.iter().filter_map(|value| Some((share(dimension, value)?, toml_text(value)))).collect()
}
