//! What goes on beside a run: the machine is measured, and an MLflow server is told; neither slows nor fails the run.
//!
//! The variables of MLflow are read here, and nowhere else.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::context::Context;
use super::places::variable;
use crate::config::{MlflowMode, Settings, TrackSettings};
use crate::track::mlflow::{Artifact, Background, MlflowError, Secret, Server, Sink};
use crate::track::{Entry, Gpus, Journal, RunDir, RunRecord, System, TrackError};

/// MLflow experiment when nothing else is said; MLflow's own `Default` would mix with the runs of others.
const EXPERIMENT: &str = "vlp";

/// Time for the tables, when they are written after the run.
const TABLES: Duration = Duration::from_secs(10);

/// The server that the environment names; none without `MLFLOW_TRACKING_URI`.
pub fn server() -> Option<Result<Server, MlflowError>> {
    let text = |name| variable(name).map(|value| value.to_string_lossy().into_owned());
    let uri = text("MLFLOW_TRACKING_URI")?;
    let password = text("MLFLOW_TRACKING_PASSWORD").map(Secret::new);
    let token = text("MLFLOW_TRACKING_TOKEN").map(Secret::new);
    Some(Server::new(&uri, text("MLFLOW_TRACKING_USERNAME").as_deref(), password, token))
}

/// Name of the MLflow experiment.
pub fn experiment(settings: &TrackSettings) -> String {
    if !settings.experiment.is_empty() {
        return settings.experiment.clone();
    }
    let variable = variable("MLFLOW_EXPERIMENT_NAME").map(|name| name.to_string_lossy().into_owned());
    variable.unwrap_or_else(|| EXPERIMENT.into())
}

/// The files of the tables that the rows of `settings` belong to, as far as they are written.
pub fn tables(settings: &Settings) -> Vec<PathBuf> {
    let mut names: Vec<&str> = settings.paper.iter().map(|row| row.table.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let folder = Path::new(&settings.output.results);
    let files = |name: &str| ["md", "csv", "json"].map(|format| folder.join(format!("{name}.{format}")));
    names.into_iter().flat_map(files).filter(|file| file.is_file()).collect()
}

/// What goes on beside a run, until [`Tracking::finish`].
pub struct Tracking {
    sampler: Option<(Sender<()>, JoinHandle<()>)>,
    mlflow: Option<Background>,
    run: RunDir,
    quiet: bool,
}

impl Tracking {
    /// Starts what the settings ask for. `gpus` are those that the run's processes on this machine compute on; none at all
    /// where its processes are elsewhere, and nothing is measured.
    pub fn start(run: &RunDir, settings: &Settings, gpus: Option<Vec<usize>>, context: &Context) -> Self {
        let every = Duration::from_secs(settings.track.system_interval_s);
        let sampler = gpus.filter(|_| !every.is_zero()).and_then(|gpus| sampler(run, every, gpus));
        let mlflow = mlflow(run, settings).unwrap_or_else(|error| {
            tracing::warn!("{error}");
            None
        });
        Self { sampler, mlflow, run: run.clone(), quiet: context.quiet }
    }

    /// Ends both; what the server does not have then is for `vlp track sync`.
    pub fn finish(self) {
        if let Some((stop, thread)) = self.sampler {
            drop(stop);
            // A measurement that failed is missed by nobody.
            let _ = thread.join();
        }
        if let Some(Err(error)) = self.mlflow.map(Background::finish)
            && !self.quiet
        {
            let run = self.run.path().display();
            let first = error.to_string().lines().next().unwrap_or_default().to_owned();
            eprintln!("note  {first}; `vlp track sync {run}` sends what is missing");
        }
    }
}

/// Sends the tables of a finished run, which are written after it.
pub fn send_tables(record: &RunRecord) {
    let settings = &record.lock.settings;
    let Some(Ok(server)) = server().filter(|_| settings.track.mlflow == MlflowMode::Auto) else { return };
    let send = || -> Result<usize, MlflowError> {
        let mut sink = Sink::open(&record.run, server, &experiment(&settings.track))?;
        sink.set_deadline(Instant::now() + TABLES);
        // What the run itself could not send is not tried again before each prompt.
        if sink.is_level()? { sink.upload(&Artifact::of_run(record, &tables(settings))?) } else { Ok(0) }
    };
    if let Err(error) = send() {
        tracing::debug!("{error}");
    }
}

fn mlflow(run: &RunDir, settings: &Settings) -> Result<Option<Background>, MlflowError> {
    let Some(server) = server().filter(|_| settings.track.mlflow == MlflowMode::Auto) else { return Ok(None) };
    let sink = Sink::open(run, server?, &experiment(&settings.track))?;
    let (of_run, settings) = (run.clone(), settings.clone());
    let files = move || Artifact::of_run(&RunRecord::read(&of_run)?, &tables(&settings));
    let started = Background::start(sink, Box::new(files));
    Ok(Some(started.map_err(TrackError::io("start a thread for", run.path()))?))
}

/// Measures the machine at an interval and journals it at the step that the training has reached.
fn sampler(run: &RunDir, every: Duration, gpus: Vec<usize>) -> Option<(Sender<()>, JoinHandle<()>)> {
    let run = run.clone();
    let (stop, stopped) = channel::<()>();
    let work = move || {
        let mut system = System::new();
        let gpus = open_gpus(&gpus);
        while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
            let machine = system.measure().into_iter().map(|(name, value)| (name.to_owned(), value));
            let of_gpus = gpus.iter().flat_map(Gpus::measure);
            if let Err(error) = journal(&run, machine.chain(of_gpus).collect()) {
                tracing::warn!("{error}");
                return;
            }
        }
    };
    let thread = std::thread::Builder::new().name("system".into()).spawn(work).ok()?;
    Some((stop, thread))
}

/// The GPUs with these numbers; none where there are none, or nothing that measures them: `vlp doctor` says what is missing.
fn open_gpus(numbers: &[usize]) -> Option<Gpus> {
    if numbers.is_empty() {
        return None;
    }
    let visible = variable("CUDA_VISIBLE_DEVICES").map(|text| text.to_string_lossy().into_owned());
    let opened = Gpus::open(numbers, visible.as_deref());
    opened.inspect_err(|error| tracing::debug!("GPUs are not measured: {error}")).ok()
}

fn journal(run: &RunDir, measured: Vec<(String, f64)>) -> Result<(), TrackError> {
    let journal = Journal::open(&run.journal_file())?;
    let (step, epoch) = journal.last_point()?.unwrap_or_default();
    measured.into_iter().try_for_each(|(name, value)| journal.append(&Entry::metric(name, value, step, epoch)))
}
