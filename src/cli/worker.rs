//! `vlp worker`: one process of a run. Trains, validates, evaluates the chosen checkpoints; everything it needs stands in
//! the run's lock and in the variables RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT, which `vlp run`, torchrun
//! and Slurm set. Ranks but the first train only.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use burn::module::Module;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use super::context::{Context, Failure, exit};
use super::facts::data_sizes;
use super::heap;
use super::places::scorers;
use super::run::{resolved_device, track_failure};
use crate::config::{Dataset, Metric, ObjectiveKind, Settings, VqaEvaluator, device_of_rank};
use crate::data::karpathy::CaptionData;
use crate::data::region_store::RegionStore;
use crate::data::tokenizer::Tokenizer;
use crate::data::vqa_imdb::{VqaData, answer_vocabulary};
use crate::distributed::{Collective, Rendezvous, Transport};
use crate::evaluate::{EvaluateError, Evaluation, Scorers, SplitData, SplitScores};
use crate::launch::supervise::ATTEMPT;
use crate::model::weights::{self, LoadOptions, WeightsError};
use crate::model::{Vlp, device};
use crate::results::paper::score_title;
use crate::track::{Alive, Entry, Journal, Lock, RunDir, RunRecord, Scores, State};
use crate::train::TrainError;
use crate::train::engine::Training;
use crate::train::step::TrainingData;

/// Arguments of a worker.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run folder.
    #[arg(long, value_name = "DIR")]
    pub run: PathBuf,
}

/// Set by SIGINT and SIGTERM.
static STOP: AtomicBool = AtomicBool::new(false);

/// Runs the command.
pub fn execute(args: &Args, context: &Context) -> Result<u8, Failure> {
    heap::keep_freed_memory();
    let run = RunDir::open(&args.run).map_err(track_failure)?;
    let lock = Lock::load(&run.lock_file()).map_err(track_failure)?;
    let variables: BTreeMap<String, String> =
        std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect();
    let place = place(&run, &lock, &variables)?;
    // The one process per rank that may write to the run folder.
    let alive = run.hold_rank(place.rank).map_err(track_failure)?;
    log_to_file(&run.rank_log(place.rank), context)?;
    log_panics();
    stop_on_signals();
    // Under another launcher than `vlp run`, rank 0 keeps the journal's states.
    let launched = variables.get(ATTEMPT).is_some_and(|attempt| attempt.parse::<usize>().is_ok());
    let states = if place.rank == 0 && !launched { Some(&run) } else { None };
    record(states, State::Running, format!("process {}", std::process::id()))?;
    match work(&run, &lock, &place, &alive, context) {
        Ok(()) => {
            record(states, State::Finished, String::new())?;
            Ok(exit::OK)
        }
        Err(failure) if failure.code == exit::RESUMABLE => {
            tracing::info!("interrupted; the newest checkpoint is kept");
            record(states, State::Interrupted, String::new())?;
            Ok(exit::RESUMABLE)
        }
        Err(failure) => {
            // The runner quotes the log; under another scheduler stderr is all there is.
            let report = failure.report.trim_start_matches("error: ");
            tracing::error!("{report}");
            record(states, State::Failed, report.lines().next().unwrap_or_default().to_owned())?;
            Ok(failure.code)
        }
    }
}

/// Who this process is. The token of its group: this run on disk and this attempt.
fn place(run: &RunDir, lock: &Lock, variables: &BTreeMap<String, String>) -> Result<Rendezvous, Failure> {
    let attempt = variables.get(ATTEMPT).or_else(|| variables.get("TORCHELASTIC_RESTART_COUNT"));
    let token = format!("{}/{}/{}", run.id(), lock.settings_hash, attempt.map_or("0", String::as_str));
    let timeout = Duration::from_secs(lock.settings.launch.timeout_s);
    let place =
        Rendezvous::from_variables(variables, token, timeout).map_err(|error| Failure::new(exit::CONFIG, error))?;
    let expected = lock.settings.launch.world_size;
    if place.world_size != expected {
        let help = format!("start {expected} processes with WORLD_SIZE={expected}; `vlp run` does");
        let found = place.world_size;
        let report =
            format!("WORLD_SIZE is {found}, but this run has `launch.world_size` = {expected}\n  help: {help}");
        return Err(Failure::new(exit::CONFIG, report));
    }
    Ok(place)
}

fn record(run: Option<&RunDir>, state: State, detail: String) -> Result<(), Failure> {
    let Some(run) = run else { return Ok(()) };
    let journal = Journal::open(&run.journal_file()).map_err(track_failure)?;
    journal.append(&Entry::state(state, detail)).and_then(|()| journal.sync()).map_err(track_failure)
}

/// What a defect says last belongs into the log, where the runner looks for it.
fn log_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tracing::error!("{panic}");
        usual(panic);
    }));
}

/// JSON lines into the rank's log (`RUST_LOG` adds detail); warnings on stderr too.
fn log_to_file(path: &Path, context: &Context) -> Result<(), Failure> {
    let file = std::fs::File::options().append(true).create(true).open(path).map_err(|e| {
        let help = "check the permissions of the run folder and the free space";
        Failure::new(exit::TRAIN, format!("cannot write the log {}: {e}\n  help: {help}", path.display()))
    })?;
    let filter = || EnvFilter::try_from_default_env();
    let log = tracing_subscriber::fmt::layer().json().with_writer(Arc::new(file));
    let console = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(context.color)
        .with_target(false)
        .without_time();
    tracing_subscriber::registry()
        .with(log.with_filter(filter().unwrap_or_else(|_| "info".into())))
        .with(console.with_filter(filter().unwrap_or_else(|_| "off".into())))
        .init();
    Ok(())
}

extern "C" fn note_signal(_: libc::c_int) {
    STOP.store(true, Ordering::Relaxed);
}

fn stop_on_signals() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe.
        unsafe { libc::signal(signal, note_signal as extern "C" fn(libc::c_int) as libc::sighandler_t) };
    }
}

fn work(run: &RunDir, lock: &Lock, place: &Rendezvous, alive: &Alive, context: &Context) -> Result<(), Failure> {
    let settings = &lock.settings;
    let name = device_of_rank(&resolved_device(settings), place.local_rank);
    let device = device::open(&name).map_err(|e| Failure::new(exit::CONFIG, e))?;
    #[cfg(feature = "tch")]
    crate::distributed::allow_tf32(settings.train.tf32);
    tracing::info!(device = name, run = %run.path().display(), "worker started");
    let journal = Journal::open(&run.journal_file()).map_err(track_failure)?;
    let tokenizer = Tokenizer::from_file(&settings.data.vocabulary, settings.data.cased).map_err(data_failure)?;
    let store = Arc::new(RegionStore::open(&settings.data).map_err(data_failure)?);
    let answers = match settings.data.dataset {
        Dataset::Vqa2 => answer_vocabulary(&settings.data).map_err(data_failure)?.len(),
        _ => 0,
    };
    let scorers = scorers(&settings.metrics);
    let evaluation = Evaluation { settings, tokenizer: &tokenizer, store, device, scorers };
    let world = World { settings, run, journal: &journal, answers, evaluation };
    // LibTorch brings its own transport, for any number of machines.
    let transport = match name.split_once(':') {
        Some(("tch-cuda", gpu)) => gpu.parse().map_or(Transport::Gloo, Transport::Nccl),
        _ if name == "tch-cpu" => Transport::Gloo,
        _ => Transport::Loopback,
    };
    let mut group = place.join(transport).map_err(|error| Failure::new(exit::TRAIN, error))?;
    world.train(lock, &mut *group, alive, context)?;
    if group.rank() == 0 { world.evaluate(context) } else { Ok(()) }
}

/// What training and evaluation share.
struct World<'a> {
    settings: &'a Settings,
    run: &'a RunDir,
    journal: &'a Journal,
    /// Classes of the answer head; 0 for none.
    answers: usize,
    evaluation: Evaluation<'a>,
}

impl World<'_> {
    fn new_model(&self) -> Vlp {
        let sizes = data_sizes(self.settings, self.evaluation.tokenizer.vocab_size(), self.answers);
        Vlp::new(&self.settings.model, sizes, self.settings.experiment.seed, &self.evaluation.device)
    }

    /// Initial weights: random, and where there is a parent, its checkpoint's.
    fn initial_model(&self, lock: &Lock) -> Result<Vlp, Failure> {
        let model = self.new_model();
        let Some(parent) = &lock.parent else { return self.with_fc7(model) };
        // Of files with several transforms the reference reads that of task 3 for captioning, of task 0 for questions.
        let task_idx = if self.settings.objective.kind == ObjectiveKind::Vqa { 0 } else { 3 };
        let mut options = LoadOptions { allow_missing: &self.settings.init.allow_missing, task_idx: Some(task_idx) };
        let mut allowed = options.allow_missing.to_vec();
        if !self.settings.init.fc7_weight.is_empty() {
            allowed.push("vis_embed.0.*".to_owned());
        }
        options.allow_missing = &allowed;
        let (model, report) = weights::load(model, &parent.checkpoint, options).map_err(init_failure)?;
        tracing::info!(
            checkpoint = %parent.checkpoint.display(),
            missing = report.missing.join(", "),
            unexpected = report.unexpected.join(", "),
            changes = report.changes.join("; "),
            "initial weights"
        );
        self.with_fc7(model)
    }

    /// With the detector's fc7 layer, where `[init]` names one.
    fn with_fc7(&self, model: Vlp) -> Result<Vlp, Failure> {
        let init = &self.settings.init;
        if init.fc7_weight.is_empty() {
            return Ok(model);
        }
        weights::load_fc7(model, Path::new(&init.fc7_weight), Path::new(&init.fc7_bias)).map_err(init_failure)
    }

    fn training_data(&self) -> Result<TrainingData, Failure> {
        let (data, tokenizer) = (&self.settings.data, self.evaluation.tokenizer);
        Ok(match data.dataset {
            Dataset::Vqa2 => TrainingData::Questions(Arc::new(
                VqaData::load(data, &data.train_splits, tokenizer).map_err(data_failure)?,
            )),
            _ => TrainingData::Captions(Arc::new(
                CaptionData::load(data, &data.train_splits, tokenizer).map_err(data_failure)?,
            )),
        })
    }

    fn train(&self, lock: &Lock, group: &mut dyn Collective, alive: &Alive, context: &Context) -> Result<(), Failure> {
        let settings = self.settings;
        let last = RunRecord::read(self.run).map_err(track_failure)?.last_epoch;
        let split = &settings.select.split;
        if settings.select.metric == Metric::Meteor && !split.is_empty() {
            scorers(&settings.metrics).check_meteor().map_err(|reason| Failure::new(exit::DATA, reason))?;
        }
        let validation = if split.is_empty() { None } else { Some(self.evaluation.load(split).map_err(data_failure)?) };
        if validation.as_ref().is_some_and(|data| !data.is_published()) {
            return Err(super::model::nothing_to_select_by(split));
        }
        let training = Training {
            settings,
            run: self.run,
            journal: self.journal,
            collective: group,
            device: self.evaluation.device.clone(),
            data: self.training_data()?,
            store: Arc::clone(&self.evaluation.store),
            tokenizer: self.evaluation.tokenizer,
            stop: &STOP,
            terminal: context.terminal,
            quiet: context.quiet,
            beat: &|| alive.beat(),
        };
        let model = if last.is_some() { self.new_model() } else { self.initial_model(lock)? };
        let metrics = Scorers::of_validation(settings.select.metric);
        let mut validate = |model: &Vlp, epoch: usize| match &validation {
            None => Ok(BTreeMap::new()),
            Some(data) => {
                let file = self.run.predictions().join(format!("epoch-{epoch:04}.{split}.json"));
                let beams = settings.select.beam_size;
                let scored = self.evaluation.score(model, data, beams, &file, &metrics);
                scored.and_then(SplitScores::complete).map_err(|error| match error {
                    EvaluateError::Data(e) => TrainError::Data(e),
                    EvaluateError::Track(e) => TrainError::Track(e),
                    other => TrainError::Validation(other.to_string()),
                })
            }
        };
        training.run(model, &mut validate).map_err(train_failure)
    }

    /// Scores of the checkpoint of `epoch` on a split; where answers are not published, its submissions are written.
    fn score_checkpoint(&self, epoch: usize, split: &str, data: &SplitData) -> Result<SplitScores, Failure> {
        let file = self.run.model_file(epoch);
        let (model, _) =
            weights::load(self.new_model(), &file, LoadOptions::default()).map_err(|e| Failure::new(exit::TRAIN, e))?;
        self.evaluation.score_checkpoint(&model.valid(), self.run, epoch, split, data).map_err(evaluate_failure)
    }

    /// Scores the checkpoints and splits that `[evaluate]` asks for and that have no scores yet.
    fn evaluate(&self, context: &Context) -> Result<(), Failure> {
        let path = self.run.scores_file();
        let mut scores = Scores::load(&path).map_err(track_failure)?;
        let record = RunRecord::read(self.run).map_err(track_failure)?;
        let mut noted = BTreeSet::new();
        for split in &self.settings.evaluate.splits {
            let data = self.evaluation.load(split).map_err(data_failure)?;
            let mut of_epoch: BTreeMap<usize, BTreeMap<String, f64>> = BTreeMap::new();
            for choice in &self.settings.evaluate.checkpoints {
                if scores.get(*choice, split).is_some() {
                    continue;
                }
                if STOP.load(Ordering::Relaxed) {
                    return Err(Failure { code: exit::RESUMABLE, report: String::new() });
                }
                let Some(epoch) = record.epoch_of(*choice) else { continue };
                let found = match of_epoch.get(&epoch) {
                    Some(found) => found.clone(),
                    None => {
                        let report = self.score_checkpoint(epoch, split, &data)?;
                        for reason in report.not_available.values().filter(|reason| noted.insert((*reason).clone())) {
                            tracing::warn!("{reason}");
                            self.journal.append(&Entry::event(reason)).map_err(track_failure)?;
                        }
                        report.scores
                    }
                };
                of_epoch.insert(epoch, found.clone());
                let kind = serde_json::to_value(choice).ok().and_then(|v| v.as_str().map(str::to_owned));
                let kind = kind.unwrap_or_default();
                for (metric, score) in &found {
                    let entry = Entry::metric(format!("{split}/{kind}/{metric}"), *score, 0, epoch as u64);
                    self.journal.append(&entry).map_err(track_failure)?;
                }
                if !context.quiet {
                    eprintln!("{split}  {kind} checkpoint (epoch {epoch}), {}", self.headline(&found));
                }
                scores.insert(*choice, split, found);
                scores.save(&path).map_err(track_failure)?;
            }
        }
        self.journal.sync().map_err(track_failure)
    }

    /// The score that people look at first.
    fn headline(&self, scores: &BTreeMap<String, f64>) -> String {
        let points = |name: &str| scores.get(name).map_or(0.0, |score| score * 100.0);
        match self.settings.objective.kind {
            ObjectiveKind::Vqa if scores.is_empty() => {
                format!("submission ready: {}", self.run.submissions().display())
            }
            ObjectiveKind::Vqa => format!("accuracy {:.1}", points("overall")),
            _ => {
                let beams = self.settings.evaluate.beam_size;
                format!("beam {beams}: {}", headline(scores, &self.settings.metrics.captions))
            }
        }
    }
}

/// The score that a line has room for: CIDEr, or what was asked for instead; and the names of those that are not available.
fn headline(found: &BTreeMap<String, f64>, metrics: &[Metric]) -> String {
    let title = |name: &str| score_title(name, VqaEvaluator::default());
    let asked = [Metric::Cider].iter().chain(metrics).filter(|metric| metrics.contains(metric));
    let first = asked.map(|metric| metric.name()).find_map(|name| Some((name, found.get(name)?)));
    let mut text = first.map_or_else(String::new, |(name, score)| format!("{} {:.1}", title(name), score * 100.0));
    let missing: Vec<String> =
        metrics.iter().map(|metric| metric.name()).filter(|name| !found.contains_key(*name)).map(title).collect();
    if !missing.is_empty() {
        let separator = if text.is_empty() { "" } else { "; " };
        text.push_str(&format!("{separator}not available: {} (`vlp doctor` says why)", missing.join(", ")));
    }
    text
}

fn init_failure(error: WeightsError) -> Failure {
    Failure::new(exit::CONFIG, error)
}

fn data_failure(error: crate::data::DataError) -> Failure {
    Failure::new(exit::DATA, error)
}

fn evaluate_failure(error: EvaluateError) -> Failure {
    let code = if matches!(error, EvaluateError::Data(_)) { exit::DATA } else { exit::TRAIN };
    Failure::new(code, error)
}

fn train_failure(error: TrainError) -> Failure {
    let code = match error {
        TrainError::Interrupted => exit::RESUMABLE,
        TrainError::Data(_) => exit::DATA,
        _ => exit::TRAIN,
    };
    Failure::new(code, error)
}
