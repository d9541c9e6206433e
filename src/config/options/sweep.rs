//! Options of a sweep file: `[sweep]`, and the form of the entries of `[space]`.
//!
//! A sweep file is no experiment file; its schema is its own. What the entries of `[space]` may be for each option is
//! checked in `config/sweep.rs`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How settings are proposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SweepMethod {
    /// Every combination, in order; ranges are cut into `grid_points` values.
    Grid,
    /// Drawn independently.
    Random,
    /// Tree-structured Parzen estimator: near what did well, after `startup_trials` random ones.
    #[default]
    Tpe,
}

/// Which trials are stopped before their last epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SweepPruner {
    /// None.
    #[default]
    None,
    /// Those below the median of the finished trials at the same epoch.
    Median,
    /// Asynchronous successive halving: at epochs `min_epochs`, times `reduction_factor`, and so on, those that are not
    /// among the best 1/`reduction_factor`.
    Asha,
}

/// Which way the metric improves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SweepDirection {
    /// Larger is better.
    #[default]
    Maximize,
    /// Smaller is better.
    Minimize,
}

/// What is searched, how, and for how long.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SweepSettings {
    /// Name of the sweep: its folder below `output.runs` of the base, and the beginning of the names of its trials.
    #[schemars(
        regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"),
        extend("x-form" = "letters, digits, `_`, `.` and `-`, the first a letter or digit")
    )]
    pub name: String,
    /// One line for listings.
    pub description: String,
    /// The experiment file whose settings the trials change; relative to the sweep file.
    pub base: String,
    /// How settings are proposed.
    pub method: SweepMethod,
    /// Which trials are stopped before their last epoch.
    pub pruner: SweepPruner,
    /// Trials in all; a grid may have fewer.
    #[schemars(range(min = 1, max = 100_000), extend("x-unit" = "trials"))]
    pub trials: usize,
    /// Trials at the same time.
    #[schemars(range(min = 1, max = 1024), extend("x-unit" = "trials"))]
    pub parallel: usize,
    /// Journal name of the metric, e.g. `val/cider` or `train/loss`; empty for the score that selects the best checkpoint
    /// of the base. The best value of all epochs counts.
    pub metric: String,
    /// Which way the metric improves.
    pub direction: SweepDirection,
    /// Seed of the proposals.
    pub seed: u64,
    /// Values that a grid takes of a range, ends included.
    #[schemars(range(min = 2, max = 1000), extend("x-unit" = "values"))]
    pub grid_points: usize,
    /// Random trials before `tpe` looks at results.
    #[schemars(range(min = 1, max = 100_000), extend("x-unit" = "trials"))]
    pub startup_trials: usize,
    /// Epochs that every trial gets before it may be stopped.
    #[schemars(range(min = 1, max = 100_000), extend("x-unit" = "epochs"))]
    pub min_epochs: u64,
    /// `asha` keeps the best one in this many.
    #[schemars(range(min = 2, max = 100))]
    pub reduction_factor: u64,
}

impl Default for SweepSettings {
    fn default() -> Self {
        Self {
            name: String::new(),
            description: String::new(),
            base: String::new(),
            method: SweepMethod::Tpe,
            pruner: SweepPruner::None,
            trials: 20,
            parallel: 1,
            metric: String::new(),
            direction: SweepDirection::Maximize,
            seed: 0,
            grid_points: 5,
            startup_trials: 10,
            min_epochs: 1,
            reduction_factor: 3,
        }
    }
}

/// The values of one option; one of the four forms.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub(crate) struct SpaceEntry {
    /// One of these values.
    #[schemars(with = "Vec<Value>", length(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub choice: Option<Vec<Value>>,
    /// A number between the two, any as likely as another.
    #[schemars(with = "(f64, f64)")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uniform: Option<(f64, f64)>,
    /// A number between the two positive ones, any order of magnitude as likely as another.
    #[schemars(with = "(f64, f64)")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_uniform: Option<(f64, f64)>,
    /// A whole number from the first to the second.
    #[schemars(with = "(i64, i64)")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub int: Option<(i64, i64)>,
}

/// A sweep file.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SweepFile {
    /// What is searched, how, and for how long.
    pub sweep: SweepSettings,
    /// The options that change, in quotes (`"train.learning_rate"`), each with its values: `{ choice = […] }`,
    /// `{ uniform = [LOW, HIGH] }`, `{ log_uniform = [LOW, HIGH] }` or `{ int = [LOW, HIGH] }`.
    pub space: BTreeMap<String, SpaceEntry>,
}
