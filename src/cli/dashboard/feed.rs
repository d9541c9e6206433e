//! Fills the store from all journals, and goes on doing so while the user interface runs.
//!
//! The sink knows how to tell a server each point once; here is when, of which runs, and under which parents. A run at work
//! keeps its sink; of the others it is remembered how they were when the store had all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use super::super::context::{Context, Failure};
use super::super::report::report_file;
use super::super::run::track_failure;
use super::super::tracking::{experiment, tables};
use crate::sweep::Overview;
use crate::track::mlflow::{Artifact, MlflowError, ParentRun, Server, Sink, Store};
use crate::track::{Lock, RunDir, RunRecord, TrackError, now};

/// Time between two looks at the journals.
const LOOK: Duration = Duration::from_secs(2);

/// How the records of a run were: whether it was at work, the length of its journal, the times of the files that come later.
type Seen = (bool, u64, [Option<SystemTime>; 2]);

/// The thread that feeds a store.
pub struct Feed {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Feed {
    /// Starts it: the runs below `runs`, into the store in `folder`, through `server`.
    pub fn start(runs: &Path, folder: &Path, server: Server, context: &Context) -> Result<Self, Failure> {
        let (stop, stopped) = channel();
        let mut feeder = Feeder {
            runs: runs.to_path_buf(),
            folder: folder.to_path_buf(),
            server,
            store: None,
            sweeps: BTreeMap::new(),
            at_work: BTreeMap::new(),
            seen: BTreeMap::new(),
            sent: Sent::default(),
            warned: BTreeSet::new(),
        };
        let quiet = context.quiet;
        let thread = std::thread::Builder::new().name("feed".into()).spawn(move || feeder.work(quiet, &stopped));
        let thread = thread.map_err(TrackError::io("start a thread for", runs)).map_err(track_failure)?;
        Ok(Self { stop, thread })
    }

    /// Ends it: soon, when the server has ended before.
    pub fn stop(self) {
        // A thread that has ended has no ear for it.
        let _ = self.stop.send(());
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }
}

/// What the store was sent.
#[derive(Debug, Default)]
struct Sent {
    points: u64,
    files: usize,
}

/// The sweeps as the store has them: the run above the trials, and how the study file was.
struct Told {
    parent: ParentRun,
    seen: Option<(Option<SystemTime>, bool)>,
}

struct Feeder {
    runs: PathBuf,
    folder: PathBuf,
    server: Server,
    store: Option<Store>,
    /// By id of the study.
    sweeps: BTreeMap<String, Told>,
    at_work: BTreeMap<PathBuf, Sink>,
    seen: BTreeMap<PathBuf, Seen>,
    sent: Sent,
    warned: BTreeSet<String>,
}

impl Feeder {
    fn work(&mut self, quiet: bool, stopped: &Receiver<()>) {
        let mut first = true;
        loop {
            match self.round() {
                Ok((runs, sweeps)) => {
                    if first && !quiet {
                        let Sent { points, files } = self.sent;
                        eprintln!("fed   {runs} runs, {sweeps} sweeps: {points} points and {files} files were new");
                    }
                    first = false;
                }
                // The next round does what is left; a server that has ended is noticed by others.
                Err(error) if error.is_passing() => tracing::debug!("{error}"),
                Err(error) => self.warn(error.to_string()),
            }
            match stopped.recv_timeout(LOOK) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Looks at all sweeps and runs once, and says how many there are.
    fn round(&mut self) -> Result<(usize, usize), MlflowError> {
        if self.store.is_none() {
            self.store = Some(Store::open(&self.folder, self.server.clone())?);
        }
        let mut sweeps = Vec::new();
        for sweep in Overview::all(&self.runs) {
            match sweep {
                Ok(sweep) => sweeps.push(sweep),
                Err(error) => self.warn(error.to_string()),
            }
        }
        let runs = RunDir::all(&self.runs)?;
        for sweep in &sweeps {
            if let Some(run) = runs.iter().find(|run| sweep.names(&experiment_of(run))) {
                self.sweep(sweep, run)?;
            }
        }
        for run in &runs {
            let seen = seen(run);
            if self.seen.get(run.path()) == Some(&seen) {
                continue;
            }
            match self.run(run, seen.0, &sweeps) {
                Ok(()) => {}
                Err(error) if error.is_passing() => return Err(error),
                Err(error) => {
                    self.at_work.remove(run.path());
                    self.warn(format!("{}: {error}", run.path().display()));
                }
            }
            self.seen.insert(run.path().to_path_buf(), seen);
        }
        Ok((runs.len(), sweeps.len()))
    }

    /// Says something once.
    fn warn(&mut self, text: String) {
        if !self.warned.contains(&text) {
            eprintln!("warning: {text}");
            self.warned.insert(text);
        }
    }

    /// The run of a sweep, made in the MLflow experiment of its trials, one of which is `trial`.
    fn sweep(&mut self, sweep: &Overview, trial: &RunDir) -> Result<(), MlflowError> {
        if !self.sweeps.contains_key(&sweep.id) {
            let Ok(lock) = Lock::load(&trial.lock_file()) else { return Ok(()) };
            let tags = [("vlp.sweep".to_owned(), sweep.name.clone()), ("vlp.version".to_owned(), lock.version.clone())];
            let experiment = experiment(&lock.settings.track);
            let begun = sweep.begun.unwrap_or_else(now);
            let parent = ParentRun::open(self.server.clone(), &experiment, &sweep.name, &sweep.id, begun, &tags)?;
            self.sweeps.insert(sweep.id.clone(), Told { parent, seen: None });
        }
        let Some(told) = self.sweeps.get_mut(&sweep.id) else { return Ok(()) };
        let seen = Some((sweep.changed, sweep.finished));
        if told.seen != seen {
            let ended = sweep.changed.and_then(|time| Timestamp::try_from(time).ok()).unwrap_or_else(now);
            told.parent.stands(sweep.finished.then_some(ended), &sweep.tags())?;
            told.seen = seen;
        }
        Ok(())
    }

    /// Sends what the store lacks of a run: points; and files, when nobody works in it.
    fn run(&mut self, run: &RunDir, at_work: bool, sweeps: &[Overview]) -> Result<(), MlflowError> {
        let Some(store) = &self.store else { return Ok(()) };
        let mut sink = match self.at_work.remove(run.path()) {
            Some(sink) => sink,
            None => {
                let lock = Lock::load(&run.lock_file())?;
                let name = &lock.settings.experiment.name;
                let sweep = sweeps.iter().find(|sweep| sweep.has(name, run, &lock.created));
                let parent = sweep.and_then(|sweep| self.sweeps.get(&sweep.id)).map_or("", |told| told.parent.id());
                Sink::into_store(run, store, &experiment(&lock.settings.track), parent)?
            }
        };
        let before = sink.points();
        let drained = sink.drain();
        self.sent.points += sink.points() - before;
        // After a failure the sink knows what is in doubt.
        if drained.is_err() || at_work {
            self.at_work.insert(run.path().to_path_buf(), sink);
            return drained;
        }
        let record = RunRecord::read(run)?;
        let mut files = Artifact::of_run(&record, &tables(&record.lock.settings))?;
        // The weights are on this machine already, and large.
        files.retain(|file| !file.name.starts_with("checkpoints/"));
        self.sent.files += sink.upload(&files)?;
        Ok(())
    }
}

fn experiment_of(run: &RunDir) -> String {
    run.path().parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned()
}

fn seen(run: &RunDir) -> Seen {
    let data = |path: PathBuf| path.metadata().ok();
    let time = |path| data(path).and_then(|data| data.modified().ok());
    // In this order: what changes in between is seen the next time.
    let held = run.is_held();
    let length = data(run.journal_file()).map_or(0, |data| data.len());
    (held, length, [time(run.scores_file()), time(report_file(run))])
}
