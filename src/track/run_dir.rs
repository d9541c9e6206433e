//! The folder of a run: where each file lies, how folders are created and found, and who holds one at the moment.
//!
//! ```text
//! <runs>/<experiment>/<run id>/
//!   run.lock.toml  journal.jsonl  scores.json  ranks/N.log  predictions/*.json
//!   checkpoints/epoch-0007/{model.safetensors, …}
//! ```
//! It knows names, not contents: locks, journals and checkpoints are read elsewhere.

use std::cell::Cell;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use super::lock::sha256;
use super::{Entry, Journal, Lock, State, TrackError, describe, now, sync_folder};

/// How often [`Held::take`] looks before it gives up.
const HOLD_ATTEMPTS: usize = 5;

/// How often [`RunDir::hold_rank`] looks: a rank of an earlier attempt may take seconds to be gone.
const RANK_ATTEMPTS: usize = 500;

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// Shortest time between two marks of a heartbeat.
const BEAT: Duration = Duration::from_millis(200);

/// File that the runner of a folder holds.
const RUNNER: &str = ".runner.lock";

/// File that the one who tells an MLflow server of a folder holds.
const MLFLOW: &str = ".mlflow.lock";

/// A run folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDir {
    path: PathBuf,
}

/// Keeps others from running in a folder while it lives; the operating system lets go of it when the process ends,
/// however it ends.
#[derive(Debug)]
pub struct Held {
    file: File,
}

impl Held {
    /// Takes hold of the file `path`, which is made when it is missing; none when another process has it.
    pub fn take(path: &Path) -> Result<Option<Self>, TrackError> {
        Self::insist(path, HOLD_ATTEMPTS)
    }

    /// The same, with so many looks.
    fn insist(path: &Path, attempts: usize) -> Result<Option<Self>, TrackError> {
        let file = File::options().create(true).truncate(false).write(true).open(path);
        let file = file.map_err(TrackError::io("open", path))?;
        // `is_taken` of another process holds a shared lock for an instant: a second look tells it from a holder.
        for attempt in 1..=attempts {
            match file.try_lock() {
                Ok(()) => return Ok(Some(Self { file })),
                Err(std::fs::TryLockError::WouldBlock) if attempt < attempts => std::thread::sleep(LOOK),
                Err(std::fs::TryLockError::WouldBlock) => break,
                Err(std::fs::TryLockError::Error(error)) => return Err(TrackError::io("lock", path)(error)),
            }
        }
        Ok(None)
    }

    /// Whether a process has hold of the file `path`. A look only: nothing is created.
    pub fn is_taken(path: &Path) -> bool {
        let Ok(file) = File::open(path) else { return false };
        match file.try_lock_shared() {
            Ok(()) => {
                let _ = file.unlock();
                false
            }
            Err(error) => matches!(error, std::fs::TryLockError::WouldBlock),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Closing alone is not enough: a process that is being started at this moment has a copy until it has begun.
        let _ = self.file.unlock();
    }
}

/// One rank at work: keeps others from being the same rank while it lives, and shows its progress from outside as the
/// time of its file.
#[derive(Debug)]
pub struct Alive {
    held: Held,
    last: Cell<Option<Instant>>,
}

impl Alive {
    /// Says that something was done; cheap enough for every batch.
    pub fn beat(&self) {
        if self.last.get().is_none_or(|last| last.elapsed() >= BEAT) {
            self.last.set(Some(Instant::now()));
            // A mark that cannot be made is no reason to end the work that it would have shown.
            let _ = self.held.file.set_modified(SystemTime::now());
        }
    }
}

impl RunDir {
    /// Makes the folder of a new run below `runs`, with its lock and a journal in state `created` that holds what it is. The run id is the
    /// time in UTC, `20261123-171500`, and `-2`, `-3`, … after it where that is taken.
    pub fn create(runs: &Path, lock: &Lock) -> Result<Self, TrackError> {
        let parent = runs.join(&lock.settings.experiment.name);
        std::fs::create_dir_all(&parent).map_err(TrackError::io("create", &parent))?;
        let stamp = now().strftime("%Y%m%d-%H%M%S").to_string();
        let mut path = parent.join(&stamp);
        let mut number = 1;
        while let Err(error) = std::fs::create_dir(&path) {
            if error.kind() != std::io::ErrorKind::AlreadyExists {
                return Err(TrackError::io("create", &path)(error));
            }
            number += 1;
            path = parent.join(format!("{stamp}-{number}"));
        }
        let run = Self { path };
        for folder in [run.ranks(), run.checkpoints(), run.predictions()] {
            std::fs::create_dir(&folder).map_err(TrackError::io("create", &folder))?;
        }
        // The lock comes last: a folder that has one is a run, and its journal says what it is.
        let identity = sha256(lock.text(&run.lock_file())?.as_bytes());
        let journal = Journal::open(&run.journal_file())?;
        journal.append(&Entry::state(State::Created, ""))?;
        describe::entries(&run, lock, identity).iter().try_for_each(|entry| journal.append(entry))?;
        journal.sync()?;
        lock.save(&run.lock_file())?;
        sync_folder(&parent)?;
        Ok(run)
    }

    /// An existing run folder.
    pub fn open(path: &Path) -> Result<Self, TrackError> {
        let run = Self { path: path.to_path_buf() };
        if run.lock_file().is_file() { Ok(run) } else { Err(TrackError::NotARun { path: run.path }) }
    }

    /// All runs of an experiment, oldest first; none when it never ran.
    pub fn find(runs: &Path, experiment: &str) -> Result<Vec<Self>, TrackError> {
        let mut found: Vec<Self> =
            folders(&runs.join(experiment))?.into_iter().filter_map(|path| Self::open(&path).ok()).collect();
        found.sort_by_key(Self::age_key);
        Ok(found)
    }

    /// All runs of all experiments: by name, oldest first.
    pub fn all(runs: &Path) -> Result<Vec<Self>, TrackError> {
        let mut names: Vec<String> =
            folders(runs)?.iter().filter_map(|p| Some(p.file_name()?.to_string_lossy().into_owned())).collect();
        names.sort();
        let mut found = Vec::new();
        for name in names {
            found.extend(Self::find(runs, &name)?);
        }
        Ok(found)
    }

    /// The newest run of an experiment.
    pub fn latest(runs: &Path, experiment: &str) -> Result<Option<Self>, TrackError> {
        Ok(Self::find(runs, experiment)?.pop())
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Run id: the name of the folder.
    pub fn id(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// `run.lock.toml`.
    pub fn lock_file(&self) -> PathBuf {
        self.path.join("run.lock.toml")
    }

    /// `journal.jsonl`.
    pub fn journal_file(&self) -> PathBuf {
        self.path.join("journal.jsonl")
    }

    /// `scores.json`.
    pub fn scores_file(&self) -> PathBuf {
        self.path.join("scores.json")
    }

    /// `mlflow.json`: what MLflow servers know of the run; made when there is one.
    pub fn mlflow_file(&self) -> PathBuf {
        self.path.join("mlflow.json")
    }

    /// File by which a run is asked to end at the boundary of an epoch: while it is there, training goes on no further than
    /// the newest checkpoint of an epoch. It says why; a runner that begins removes it.
    pub fn stop_at_epoch_file(&self) -> PathBuf {
        self.path.join(".stop-at-epoch")
    }

    /// Folder of the submissions for an evaluation server; made when there is one.
    pub fn submissions(&self) -> PathBuf {
        self.path.join("submissions")
    }

    /// Folder of the rank logs.
    pub fn ranks(&self) -> PathBuf {
        self.path.join("ranks")
    }

    /// Log of one rank: JSON lines.
    pub fn rank_log(&self, rank: usize) -> PathBuf {
        self.ranks().join(format!("{rank}.log"))
    }

    /// File that a rank holds while it works; its time is that of the last progress.
    pub fn rank_alive(&self, rank: usize) -> PathBuf {
        self.ranks().join(format!(".{rank}.alive"))
    }

    /// Folder of the predictions.
    pub fn predictions(&self) -> PathBuf {
        self.path.join("predictions")
    }

    /// Folder of the checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// Folder of the checkpoint written after `epoch` (counted from 1).
    pub fn checkpoint(&self, epoch: usize) -> PathBuf {
        self.checkpoints().join(format!("epoch-{epoch:04}"))
    }

    /// Weights in the checkpoint of `epoch`.
    pub fn model_file(&self, epoch: usize) -> PathBuf {
        self.checkpoint(epoch).join("model.safetensors")
    }

    /// Folder of the checkpoint written within an epoch, after `step` steps in all.
    pub fn step_checkpoint(&self, step: u64) -> PathBuf {
        self.checkpoints().join(format!("step-{step:08}"))
    }

    /// Epochs whose checkpoints are kept, in order.
    pub fn checkpoint_epochs(&self) -> Result<Vec<usize>, TrackError> {
        self.numbered_checkpoints("epoch-")
    }

    /// Steps within an epoch whose checkpoints are kept, in order.
    pub fn checkpoint_steps(&self) -> Result<Vec<u64>, TrackError> {
        self.numbered_checkpoints("step-")
    }

    fn numbered_checkpoints<T: std::str::FromStr + Ord>(&self, prefix: &str) -> Result<Vec<T>, TrackError> {
        let mut numbers: Vec<T> = folders(&self.checkpoints())?
            .iter()
            .filter_map(|p| p.file_name()?.to_str()?.strip_prefix(prefix)?.parse().ok())
            .collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Takes hold of the folder for running in it; an error when another process has it.
    pub fn hold(&self) -> Result<Held, TrackError> {
        self.lock(&self.path.join(RUNNER), HOLD_ATTEMPTS)
    }

    /// Becomes the one that tells an MLflow server of this folder; an error when another process is.
    pub(super) fn hold_mlflow(&self) -> Result<Held, TrackError> {
        self.lock(&self.path.join(MLFLOW), HOLD_ATTEMPTS)
    }

    /// Takes the place of one rank; an error when another process keeps it.
    pub fn hold_rank(&self, rank: usize) -> Result<Alive, TrackError> {
        Ok(Alive { held: self.lock(&self.rank_alive(rank), RANK_ATTEMPTS)?, last: Cell::new(None) })
    }

    fn lock(&self, path: &Path, attempts: usize) -> Result<Held, TrackError> {
        Held::insist(path, attempts)?.ok_or_else(|| TrackError::Busy { path: self.path.clone() })
    }

    /// Whether a runner or its first rank works in this folder at the moment. A look only: nothing is created.
    pub fn is_held(&self) -> bool {
        [self.path.join(RUNNER), self.rank_alive(0)].iter().any(|path| Held::is_taken(path))
    }

    /// Order of creation: the time, then the number after it.
    fn age_key(&self) -> (String, u64) {
        let id = self.id();
        let mut parts = id.splitn(3, '-');
        let stamp = [parts.next(), parts.next()].into_iter().flatten().collect::<Vec<_>>().join("-");
        (stamp, parts.next().and_then(|n| n.parse().ok()).unwrap_or(1))
    }
}

/// Folders inside `path`, hidden ones left out; none when it does not exist.
fn folders(path: &Path) -> Result<Vec<PathBuf>, TrackError> {
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(TrackError::io("read", path)(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(TrackError::io("read", path))?;
        if entry.path().is_dir() && !entry.file_name().to_string_lossy().starts_with('.') {
            found.push(entry.path());
        }
    }
    Ok(found)
}
