//! One run folder and one server: brings the server up to what the journal holds.
//!
//! A point counts as accepted when the server said so; only then the note (`mlflow.json`) moves on. When it is left open whether a
//! call arrived (it failed, or another process was cut off within one), the server is asked which of the points it has.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use super::artifacts::Artifact;
use super::client::{Client, Known};
use super::describe::{self, Description};
use super::points::{self, Pair, Piece, Point};
use super::progress::{Note, Progress};
use super::{MlflowError, Server, Store};
use crate::track::run_dir::{Held, RunDir};
use crate::track::{Lock, State, TrackError};

/// Parameters or tags that a server takes in one call.
const PAIRS: usize = 100;

/// Time for sending one file.
const FILE: Duration = Duration::from_secs(3600);

/// How the server names a store that it passes files on to.
const STORE: &str = "mlflow-artifacts:";

/// Tells one server of one run.
pub struct Sink {
    run: RunDir,
    lock: Lock,
    client: Client,
    /// Name of the MLflow experiment.
    experiment: String,
    /// Id of the MLflow run above it; empty for none.
    parent: String,
    note: Note,
    progress: Progress,
    /// Points before this byte of the journal may have arrived although nothing says so.
    doubtful_until: u64,
    /// What the server has of a metric, as long as there is doubt.
    known: BTreeMap<String, HashSet<Known>>,
    /// Points sent by this sink.
    points: u64,
    /// What keeps other sinks away from the run folder; a store has one process that feeds it.
    _held: Option<Held>,
}

impl Sink {
    /// For a run folder that no other sink has.
    pub fn open(run: &RunDir, server: Server, experiment: &str) -> Result<Self, TrackError> {
        let held = run.hold_mlflow()?;
        let note = Note { file: run.mlflow_file(), server: server.address().to_owned() };
        let lock = Lock::load(&run.lock_file())?;
        let parent = lock.settings.track.parent_run.clone();
        Self::new(run, lock, server, experiment, parent, note, Some(held))
    }

    /// For a store on this machine: nothing is written into the run folder. `parent` is the id of the run above it there; the one
    /// that the settings name is of another server.
    pub fn into_store(run: &RunDir, store: &Store, experiment: &str, parent: &str) -> Result<Self, TrackError> {
        let lock = Lock::load(&run.lock_file())?;
        let note = store.note(run, &lock)?;
        Self::new(run, lock, store.server().clone(), experiment, parent.to_owned(), note, None)
    }

    fn new(
        run: &RunDir,
        lock: Lock,
        server: Server,
        experiment: &str,
        parent: String,
        note: Note,
        held: Option<Held>,
    ) -> Result<Self, TrackError> {
        let mut sink = Self {
            run: run.clone(),
            lock,
            client: Client::new(server),
            experiment: experiment.to_owned(),
            parent,
            progress: note.load(),
            note,
            doubtful_until: 0,
            known: BTreeMap::new(),
            points: 0,
            _held: held,
        };
        // The one before may have been cut off between the server's answer and its own note.
        sink.doubt()?;
        Ok(sink)
    }

    /// Points that the server was sent by this sink.
    pub fn points(&self) -> u64 {
        self.points
    }

    /// Whether the server has every point of the journal.
    pub fn is_level(&self) -> Result<bool, TrackError> {
        Ok(points::next(&self.run.journal_file(), self.progress.journal_bytes)?.points.is_empty())
    }

    /// No call goes on after `deadline`.
    pub fn set_deadline(&self, deadline: Instant) {
        self.client.set_deadline(Some(deadline));
    }

    /// Sends all that the journal holds by now.
    pub fn drain(&mut self) -> Result<(), MlflowError> {
        self.begin()?;
        loop {
            let journal = self.run.journal_file();
            let piece = points::next(&journal, self.progress.journal_bytes)?;
            if piece.end == self.progress.journal_bytes {
                return Ok(());
            }
            if piece.strange > 0 {
                tracing::warn!("{}: left out {} lines that are no entries", journal.display(), piece.strange);
            }
            self.send(&piece)?;
        }
    }

    /// Sends the files that the server lacks or that have changed, and says how many; none where it does not take files.
    pub fn upload(&mut self, artifacts: &[Artifact]) -> Result<usize, MlflowError> {
        let mut missing = Vec::new();
        for artifact in artifacts {
            let (size, stamp) = artifact.stamp()?;
            if self.progress.files.get(&artifact.name) != Some(&stamp) {
                missing.push((artifact, size, stamp));
            }
        }
        if missing.is_empty() {
            return Ok(0);
        }
        self.begin()?;
        let uri = self.client.artifact_uri(&self.progress.run_id)?;
        let Some(root) = store_path(&uri) else {
            let server = self.client.server().address();
            tracing::warn!("{server} keeps files at `{uri}` and takes none itself; start it with `--serve-artifacts`");
            return Ok(0);
        };
        let mut sent = 0;
        for (artifact, size, stamp) in missing {
            let file = std::fs::File::open(&artifact.file).map_err(TrackError::io("read", &artifact.file))?;
            self.client.put(&format!("{root}/{}", artifact.name), size, file, FILE)?;
            self.progress.files.insert(artifact.name.clone(), stamp);
            self.save()?;
            sent += 1;
        }
        Ok(sent)
    }

    /// The MLflow run, with its parameters and tags: found again, or made.
    fn begin(&mut self) -> Result<(), MlflowError> {
        if self.progress.described {
            return Ok(());
        }
        let Description { identity, tags, params } = Description::of(&self.run, &self.lock, &self.parent)?;
        if self.progress.run_id.is_empty() {
            let experiment = self.client.experiment(&self.experiment)?;
            let found = self.client.find_run(&experiment, describe::IDENTITY, &identity)?;
            let run = match found {
                Some(run) => {
                    self.doubtful_until = points::length(&self.run.journal_file())?;
                    run
                }
                None => {
                    let start = self.lock.created.parse().map_or(0, |time: jiff::Timestamp| time.as_millisecond());
                    self.client.create_run(&experiment, &describe::name(&self.run, &self.lock), start, &tags)?
                }
            };
            self.progress = Progress { experiment_id: experiment, run_id: run, ..Progress::default() };
            self.save()?;
        }
        // Both may be said again: the values are the same.
        self.describe(&params, &tags)?;
        self.progress.described = true;
        Ok(self.save()?)
    }

    /// Parameters and tags: what is said again changes nothing.
    fn describe(&self, params: &[Pair], tags: &[Pair]) -> Result<(), MlflowError> {
        for params in params.chunks(PAIRS) {
            self.client.log_batch(&self.progress.run_id, &[], params, &[])?;
        }
        for tags in tags.chunks(PAIRS) {
            self.client.log_batch(&self.progress.run_id, &[], &[], tags)?;
        }
        Ok(())
    }

    fn send(&mut self, piece: &Piece) -> Result<(), MlflowError> {
        self.describe(&piece.params, &piece.tags)?;
        let points = self.missing(&piece.points)?;
        if !points.is_empty() {
            let sent: Vec<_> = points.iter().map(Point::json).collect();
            if let Err(error) = self.client.log_batch(&self.progress.run_id, &sent, &[], &[]) {
                self.doubt()?;
                return Err(error);
            }
            self.points += points.len() as u64;
        }
        if let Some((state, time)) = piece.state
            && let Some((status, ended)) = status(state)
            && (ended || self.progress.status != status)
        {
            self.client.update_run(&self.progress.run_id, status, ended.then_some(time)).inspect_err(|_| {
                // The points have arrived; asking what the server has costs less than sending them twice.
                self.doubtful_until = self.doubtful_until.max(piece.end);
            })?;
            self.progress.status = status.into();
        }
        self.progress.journal_bytes = piece.end;
        if piece.end >= self.doubtful_until {
            self.known.clear();
        }
        Ok(self.save()?)
    }

    /// Those of the points that the server lacks.
    fn missing(&mut self, points: &[Point]) -> Result<Vec<Point>, MlflowError> {
        if self.progress.journal_bytes >= self.doubtful_until {
            return Ok(points.to_vec());
        }
        for (key, ..) in points.iter().map(|point| &point.id) {
            if !self.known.contains_key(key) {
                let history = self.client.history(&self.progress.run_id, key)?;
                self.known.insert(key.clone(), history.into_iter().collect());
            }
        }
        let known = |point: &&Point| self.known.get(&point.id.0).is_some_and(|known| known.contains(&point.id));
        Ok(points.iter().filter(|point| !known(point)).cloned().collect())
    }

    /// The next call may repeat one that has arrived.
    fn doubt(&mut self) -> Result<(), TrackError> {
        self.known.clear();
        if !self.progress.run_id.is_empty() {
            let end = points::next(&self.run.journal_file(), self.progress.journal_bytes)?.end;
            self.doubtful_until = self.doubtful_until.max(end);
        }
        Ok(())
    }

    fn save(&self) -> Result<(), TrackError> {
        self.note.save(&self.progress)
    }
}

/// A state in MLflow's words, and whether it is an end; none for one that MLflow need not know.
fn status(state: State) -> Option<(&'static str, bool)> {
    match state {
        State::Created => None,
        State::Running => Some(("RUNNING", false)),
        State::Interrupted => Some(("KILLED", true)),
        State::Failed => Some(("FAILED", true)),
        State::Finished => Some(("FINISHED", true)),
    }
}

/// The path within the server's store, of an address such as `mlflow-artifacts:/1/abc/artifacts`, with or without a host.
fn store_path(uri: &str) -> Option<String> {
    let rest = uri.strip_prefix(STORE)?;
    let path = match rest.strip_prefix("//") {
        Some(with_host) => with_host.split_once('/').map_or("", |(_, path)| path),
        None => rest,
    };
    Some(path.trim_matches('/').to_owned())
}
