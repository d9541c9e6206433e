//! The configuration of an experiment: from a TOML file and the layers around it to one [`Settings`] value.
//!
//! It reads TOML files and nothing else: the process environment comes in through [`Overrides`], nothing is printed,
//! and no path of the data is touched.

mod diagnose;
mod explain;
mod layers;
mod options;
mod paper_score;
mod resolve;
mod rules;
mod schema;
mod sweep;
mod tree;
mod validate;
mod write;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use diagnose::{Problem, Problems, Severity};
pub use explain::{UnknownKey, explain};
pub use options::{
    CheckpointChoice, DataSettings, Dataset, DocumentFrequency, EvaluateSettings, Exchange, ExperimentSettings,
    InitSettings, LaunchSettings, Launcher, MeteorProgram, Metric, MetricsSettings, MlflowMode, ModelSettings,
    ObjectiveKind, ObjectiveSettings, OptimizerMemory, OutputSettings, PaperRow, Precision, RegionFormat, Schedule,
    ScstMask, ScstSettings, SelectSettings, Settings, SlurmSettings, SweepDirection, SweepMethod, SweepPruner,
    SweepSettings, TrackSettings, TrainSettings, Truncate, VqaEvaluator, device_of_rank, gpus_of,
};
pub use paper_score::{PaperScore, Setting};
pub use resolve::{Origin, Origins, flatten};
pub use schema::experiment_schema;
pub use sweep::{Dimension, Sweep, is_sweep, load_sweep, sweep_schema};
pub use write::{to_toml, toml_text};

use layers::Stack;
use resolve::Merge;

/// The layers above the experiment file.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// Profile whose `[profile.NAME]` tables apply.
    pub profile: Option<String>,
    /// `key=value` texts of `--set`, in order.
    pub set: Vec<String>,
    /// The process environment: `VLP_…` layers and the values of `${VARIABLE}`.
    pub environment: BTreeMap<String, String>,
}

/// A resolved experiment.
#[derive(Debug, Clone)]
pub struct Experiment {
    /// The file it was loaded from.
    pub file: PathBuf,
    /// That file and all that it extends, as they lie over each other, lowest first.
    pub files: Vec<PathBuf>,
    /// All settings.
    pub settings: Settings,
    /// Where each value comes from.
    pub origins: Origins,
    /// Legal but suspicious settings.
    pub warnings: Problems,
}

/// Resolves the experiment in `file` under `overrides`, or says everything that is wrong with it.
///
/// Layers, later wins: built-in defaults, files named by `extends`, `file`, profile tables, `VLP_…` variables, `--set`.
pub fn load(file: &Path, overrides: &Overrides) -> Result<Experiment, Problems> {
    resolve(file, overrides, layers::collect(file, overrides))
}

/// What a file that is right turned out to be.
#[derive(Debug, Clone)]
pub enum Checked {
    /// An experiment.
    Experiment(Box<Experiment>),
    /// A fragment: no layer has an `[experiment]` table, so only its own values were checked.
    Fragment,
    /// A sweep, and the experiment that it starts from.
    Sweep(Box<Sweep>),
}

/// Like [`load`], but also accepts a fragment, that is a file that is there to be extended, and a sweep.
pub fn check(file: &Path, overrides: &Overrides) -> Result<Checked, Problems> {
    if is_sweep(file) {
        return load_sweep(file, overrides).map(|sweep| Checked::Sweep(Box::new(sweep)));
    }
    let stack = layers::collect(file, overrides);
    let is_fragment = !stack.layers.iter().any(|layer| layer.tree.child("experiment").is_some());
    if is_fragment && stack.problems.is_empty() {
        return Ok(Checked::Fragment);
    }
    if is_fragment {
        return Err(Problems(stack.problems).in_order());
    }
    resolve(file, overrides, stack).map(|experiment| Checked::Experiment(Box::new(experiment)))
}

fn resolve(file: &Path, overrides: &Overrides, mut stack: Stack) -> Result<Experiment, Problems> {
    let mut problems = std::mem::take(&mut stack.problems);
    if stack.incomplete {
        return Err(Problems(problems).in_order());
    }
    let merged = Merge::of(&stack).and_then(|mut merge| {
        let unset = merge.expand(&overrides.environment);
        Ok((merge.settings()?, merge, unset))
    });
    let (settings, merge, unset) = match merged {
        Ok(merged) => merged,
        Err(problem) => {
            problems.push(problem);
            return Err(Problems(problems).in_order());
        }
    };
    problems.extend(unset);
    problems.extend(rules::check(&settings, &merge, &stack.rejected));
    let problems = Problems(problems).in_order();
    if problems.errors() > 0 {
        return Err(problems);
    }
    let files = stack.layers.iter().filter(|layer| matches!(layer.via, layers::Via::File));
    let files = files.filter_map(|layer| layer.source.as_ref()).map(|source| PathBuf::from(&source.name)).collect();
    Ok(Experiment { file: file.to_path_buf(), files, settings, origins: merge.origins(), warnings: problems })
}

/// What an experiment file says about itself, without checking it.
#[derive(Debug, Clone)]
pub struct Outline {
    /// `experiment.name`; empty in a fragment.
    pub name: String,
    /// `experiment.description`.
    pub description: String,
    /// `init.from`: the upstream experiment or checkpoint, `${VARIABLE}` as written.
    pub upstream: String,
    /// Errors found on the way; `load` may find more.
    pub errors: usize,
}

/// Name, description and upstream of the experiment in `file`, as far as they can be read.
pub fn outline(file: &Path) -> Outline {
    let stack = layers::collect(file, &Overrides::default());
    let settings = Merge::of(&stack).and_then(|merge| merge.settings()).unwrap_or_default();
    Outline {
        name: settings.experiment.name,
        description: settings.experiment.description,
        upstream: settings.init.from,
        errors: stack.problems.len(),
    }
}
