//! A trained model opened for use: from a run, one of its checkpoints, or a weights file, with the settings that say what it
//! reads.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Device;

use super::context::{Context, Failure, LayerArgs, config_failure, exit};
use super::facts::data_sizes;
use super::places::scorers;
use super::run::track_failure;
use crate::config::{self, Dataset, OutputSettings, Settings};
use crate::data::DataError;
use crate::data::region_store::RegionStore;
use crate::data::tokenizer::Tokenizer;
use crate::data::vqa_imdb::answer_vocabulary;
use crate::evaluate::{EvaluateError, Evaluation};
use crate::metrics::vqa::soft_targets::AnswerVocabulary;
use crate::model::weights::{self, LoadOptions};
use crate::model::{Vlp, device};
use crate::track::{Lock, RunDir, RunRecord};

/// Which model, and over which data.
#[derive(Debug, Clone, clap::Args)]
pub struct ModelArgs {
    /// A run folder or an experiment's name (its newest run that has a checkpoint; the best one), a checkpoint folder, or a weights file
    /// (safetensors, PyTorch).
    #[arg(value_name = "RUN|CHECKPOINT")]
    pub model: PathBuf,
    /// Experiment file with the data and the sizes of the model; that of the run when not given.
    #[arg(long, value_name = "FILE")]
    pub experiment: Option<PathBuf>,
    #[command(flatten)]
    /// Layers above the experiment file.
    pub layers: LayerArgs,
}

/// Settings, and what they open.
pub struct Opened {
    /// Of `--experiment`, else of the run.
    pub settings: Settings,
    /// The run that the model belongs to.
    pub run: Option<RunDir>,
    /// Weights file; none for a run as a whole.
    pub weights: Option<PathBuf>,
    /// Vocabulary.
    pub tokenizer: Tokenizer,
    /// Region features.
    pub store: Arc<RegionStore>,
    /// Answers by class, where the data set has questions.
    pub answers: Option<Arc<AnswerVocabulary>>,
    /// Where the model computes.
    pub device: Device,
}

impl Opened {
    /// Finds the run, reads the settings, opens the data.
    pub fn new(args: &ModelArgs, context: &Context) -> Result<Self, Failure> {
        let run = if args.model.exists() { None } else { named_run(&args.model)? };
        let whole = run.is_some() || RunDir::open(&args.model).is_ok();
        let run = run.or_else(|| args.model.ancestors().find_map(|folder| RunDir::open(folder).ok()));
        let weights = if whole { None } else { Some(weights_file(&args.model, run.as_ref())?) };
        let settings = settings(args, run.as_ref(), context)?;
        let device = device::open(&settings.launch.device).map_err(|e| Failure::new(exit::CONFIG, e))?;
        let tokenizer = Tokenizer::from_file(&settings.data.vocabulary, settings.data.cased).map_err(data_failure)?;
        let store = Arc::new(RegionStore::open(&settings.data).map_err(data_failure)?);
        let answers = match settings.data.dataset {
            Dataset::Vqa2 => Some(Arc::new(answer_vocabulary(&settings.data).map_err(data_failure)?)),
            _ => None,
        };
        Ok(Self { settings, run, weights, tokenizer, store, answers, device })
    }

    /// The weights file, or that of the run's best checkpoint.
    pub fn best_weights(&self) -> Result<PathBuf, Failure> {
        match (&self.weights, &self.run) {
            (Some(weights), _) => Ok(weights.clone()),
            (None, Some(run)) => {
                let record = RunRecord::read(run).map_err(track_failure)?;
                let epoch = record.best_epoch.or(record.last_epoch).ok_or_else(|| {
                    let help = "let it train at least one epoch";
                    Failure::new(
                        exit::CONFIG,
                        format!("run `{}` has no checkpoint\n  help: {help}", run.path().display()),
                    )
                })?;
                Ok(run.model_file(epoch))
            }
            (None, None) => Err(no_model(Path::new(""), None)),
        }
    }

    /// The model in evaluation form with the weights of a file.
    pub fn load(&self, weights: &Path) -> Result<Vlp, Failure> {
        let answers = self.answers.as_ref().map_or(0, |a| a.len());
        let sizes = data_sizes(&self.settings, self.tokenizer.vocab_size(), answers);
        let model = Vlp::new(&self.settings.model, sizes, self.settings.experiment.seed, &self.device);
        let task_idx = Some(if self.answers.is_some() { 0 } else { 3 });
        // A checkpoint is used as it is: nothing may be missing.
        let options = LoadOptions { allow_missing: &[], task_idx };
        let (model, _) = weights::load(model, weights, options).map_err(|e| Failure::new(exit::CONFIG, e))?;
        Ok(model.valid())
    }

    /// What scoring a split needs.
    pub fn evaluation(&self) -> Evaluation<'_> {
        Evaluation {
            settings: &self.settings,
            tokenizer: &self.tokenizer,
            store: Arc::clone(&self.store),
            device: self.device.clone(),
            scorers: scorers(&self.settings.metrics),
        }
    }
}

/// Of an experiment below `runs` the newest run with a checkpoint; or `<experiment>/<run id>`.
fn named_run(name: &Path) -> Result<Option<RunDir>, Failure> {
    let runs = PathBuf::from(OutputSettings::default().runs);
    match RunDir::open(&runs.join(name)) {
        Ok(run) => Ok(Some(run)),
        Err(_) => {
            let mut found = RunDir::find(&runs, &name.to_string_lossy()).map_err(track_failure)?;
            let usable = |run: &RunDir| run.checkpoint_epochs().is_ok_and(|epochs| !epochs.is_empty());
            let best = found.iter().rposition(usable).or(found.len().checked_sub(1));
            Ok(best.map(|index| found.swap_remove(index)))
        }
    }
}

fn weights_file(path: &Path, run: Option<&RunDir>) -> Result<PathBuf, Failure> {
    let file = if path.is_dir() { path.join("model.safetensors") } else { path.to_path_buf() };
    if file.is_file() { Ok(file) } else { Err(no_model(path, run)) }
}

fn no_model(path: &Path, run: Option<&RunDir>) -> Failure {
    let kept = run.and_then(|run| run.checkpoint_epochs().ok()).map(|epochs| match epochs.as_slice() {
        [] => "; the run has no checkpoint yet".to_owned(),
        epochs => format!("; the run has those of epochs {}", listed(epochs)),
    });
    let help =
        "name a run folder or an experiment (`vlp status` lists them), a checkpoint folder of a run, or a weights file";
    let report = format!("no model at `{}`{}\n  help: {help}", path.display(), kept.unwrap_or_default());
    Failure::new(exit::CONFIG, report)
}

/// `1, 2, 3`.
pub fn listed(epochs: &[usize]) -> String {
    epochs.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}

/// The settings of `--experiment` with its layers, else those of the run's lock; `--device` counts for both.
fn settings(args: &ModelArgs, run: Option<&RunDir>, context: &Context) -> Result<Settings, Failure> {
    if let Some(file) = &args.experiment {
        let loaded = config::load(file, &args.layers.overrides());
        return Ok(loaded.map_err(|problems| config_failure(&problems, context))?.settings);
    }
    let Some(run) = run else {
        let help = "add `--experiment FILE`: the experiment that the weights were trained with, for data and sizes";
        let path = args.model.display();
        return Err(Failure::new(exit::CONFIG, format!("`{path}` is in no run folder\n  help: {help}")));
    };
    if !args.layers.set.is_empty() || args.layers.profile.is_some() {
        let file = Lock::load(&run.lock_file()).map_err(track_failure)?.file;
        let help = format!("add `--experiment {file}`, to which they apply");
        return Err(Failure::new(
            exit::CONFIG,
            format!("`--set` and `--profile` need an experiment file\n  help: {help}"),
        ));
    }
    let mut settings = Lock::load(&run.lock_file()).map_err(track_failure)?.settings;
    if let Some(device) = &args.layers.device {
        settings.launch.device.clone_from(device);
    }
    Ok(settings)
}

/// The selection split has questions without answers.
pub fn nothing_to_select_by(split: &str) -> Failure {
    let help = "`select.split` must name a split with answers, or be \"\": then the last checkpoint counts";
    let report =
        format!("the answers to the questions of split `{split}` are not published: nothing to select a checkpoint by");
    Failure::new(exit::CONFIG, format!("{report}\n  help: {help}"))
}

/// Data on disk is missing or wrong.
pub fn data_failure(error: DataError) -> Failure {
    Failure::new(exit::DATA, error)
}

/// A split could not be predicted or scored.
pub fn evaluate_failure(error: EvaluateError) -> Failure {
    let code = if matches!(error, EvaluateError::Data(_)) { exit::DATA } else { exit::TRAIN };
    Failure::new(code, error)
}
