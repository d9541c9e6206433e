//! What a run folder tells about the run: where it stands, how far it came, its best epoch and its scores.
//!
//! A record is read from the lock, the journal, the checkpoint folders and `scores.json`; nothing is cached and nothing
//! is written, except `scores.json` itself, through [`Scores`].

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::journal::{self, Entry, State, What};
use super::{Lock, RunDir, TrackError, write_atomic};
use crate::config::{CheckpointChoice, Settings};

/// Journal name of the training loss.
pub const LOSS: &str = "train/loss";

/// How the training's journal entry for a new checkpoint begins; the epoch follows.
const CHECKPOINT_OF_EPOCH: &str = "checkpoint of epoch ";

/// Journal name of the score that selects the best checkpoint, e.g. `val/cider`; none when validation is switched off.
pub fn selection_metric(settings: &Settings) -> Option<String> {
    let split = &settings.select.split;
    (!split.is_empty()).then(|| format!("{split}/{}", name_of(&settings.select.metric)))
}

/// Where a run stands, as far as one can see from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Created, and no process has run in it yet.
    Created,
    /// A process is at work.
    Running,
    /// The journal says `running`, but no process is there; it can be resumed.
    Died,
    /// It was asked to stop; it can be resumed.
    Interrupted,
    /// A process failed; it can be resumed.
    Failed,
    /// Trained and evaluated.
    Finished,
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Died => "died (resumable)",
            Self::Interrupted => "interrupted",
            Self::Failed => "failed",
            Self::Finished => "finished",
        })
    }
}

/// Summary of one run.
#[derive(Debug, Clone)]
pub struct RunRecord {
    /// The folder.
    pub run: RunDir,
    /// What the run is.
    pub lock: Lock,
    /// Where it stands.
    pub condition: Condition,
    /// What the last change of state said; may be empty.
    pub detail: String,
    /// Newest epoch with a checkpoint, counted from 1.
    pub last_epoch: Option<usize>,
    /// Epoch with the best selection score (the first of equal ones), among those up to `last_epoch`; `last_epoch` when
    /// validation is switched off.
    pub best_epoch: Option<usize>,
    /// The selection score of `best_epoch`, in unit fractions.
    pub best_score: Option<f64>,
    /// Newest point of the training loss.
    pub last_loss: Option<f64>,
    /// Median time between a checkpoint and what came before it (the checkpoint of the epoch before, or the start of the
    /// processes), in seconds; it includes the validation of the epoch before.
    pub epoch_seconds: Option<f64>,
    /// Time of the newest journal entry.
    pub last_entry: Option<Timestamp>,
    /// Scores of the evaluated checkpoints.
    pub scores: Scores,
}

impl RunRecord {
    /// Reads the record of a run.
    pub fn read(run: &RunDir) -> Result<Self, TrackError> {
        let lock = Lock::load(&run.lock_file())?;
        let entries = journal::read(&run.journal_file())?;
        let last_epoch = run.checkpoint_epochs()?.pop();
        let (state, detail) = last_state(&entries);
        let best = best_epoch(&entries, &lock.settings, last_epoch);
        let best_score = best.and_then(|(_, score)| score);
        Ok(Self {
            run: run.clone(),
            condition: condition(state, run.is_held()),
            detail,
            last_epoch,
            best_epoch: best.map(|(epoch, _)| epoch),
            best_score,
            last_loss: last_loss(&entries),
            epoch_seconds: epoch_seconds(&entries),
            last_entry: entries.last().map(|e| e.time),
            scores: Scores::load(&run.scores_file())?,
            lock,
        })
    }

    /// The epoch that `choice` means in this run. `first` is epoch 1.
    pub fn epoch_of(&self, choice: CheckpointChoice) -> Option<usize> {
        match choice {
            CheckpointChoice::Best => self.best_epoch,
            CheckpointChoice::Last => self.last_epoch,
            CheckpointChoice::First => self.last_epoch.map(|_| 1),
        }
    }
}

fn last_state(entries: &[Entry]) -> (State, String) {
    let states = entries.iter().rev().find_map(|entry| match &entry.what {
        What::State { state, detail } => Some((*state, detail.clone())),
        _ => None,
    });
    states.unwrap_or((State::Created, String::new()))
}

fn condition(state: State, held: bool) -> Condition {
    match (state, held) {
        (State::Finished, _) => Condition::Finished,
        (_, true) => Condition::Running,
        (State::Running, false) => Condition::Died,
        (State::Created, false) => Condition::Created,
        (State::Interrupted, false) => Condition::Interrupted,
        (State::Failed, false) => Condition::Failed,
    }
}

fn last_loss(entries: &[Entry]) -> Option<f64> {
    entries.iter().rev().find_map(|entry| match &entry.what {
        What::Metric { name, value, .. } if name == LOSS => Some(*value),
        _ => None,
    })
}

/// See [`RunRecord::epoch_seconds`].
fn epoch_seconds(entries: &[Entry]) -> Option<f64> {
    let mut seconds = Vec::new();
    let mut before: Option<Timestamp> = None;
    for entry in entries {
        match &entry.what {
            What::State { state, .. } => before = (*state == State::Running).then_some(entry.time),
            What::Event { message } if message.starts_with(CHECKPOINT_OF_EPOCH) => {
                seconds.extend(before.map(|before| entry.time.duration_since(before).as_secs_f64()));
                before = Some(entry.time);
            }
            _ => {}
        }
    }
    seconds.sort_by(f64::total_cmp);
    seconds.get(seconds.len() / 2).copied()
}

/// Best epoch and its score. A resumed run may have scored an epoch twice: the later score counts.
fn best_epoch(entries: &[Entry], settings: &Settings, last: Option<usize>) -> Option<(usize, Option<f64>)> {
    let last = last?;
    let Some(selection) = selection_metric(settings) else { return Some((last, None)) };
    let mut scores = BTreeMap::new();
    for entry in entries {
        if let What::Metric { name, value, epoch, .. } = &entry.what
            && *name == selection
            && *epoch <= last as u64
        {
            scores.insert(*epoch as usize, *value);
        }
    }
    let mut best: Option<(usize, f64)> = None;
    for (epoch, score) in scores {
        if !score.is_nan() && best.is_none_or(|(_, value)| score > value) {
            best = Some((epoch, score));
        }
    }
    best.map(|(epoch, score)| (epoch, Some(score)))
}

/// Scores of a run: `{ "<checkpoint>/<split>": { "bleu_4": 0.31, … } }`, in unit fractions and full precision.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Scores {
    by_evaluation: BTreeMap<String, BTreeMap<String, f64>>,
}

impl Scores {
    /// Reads a scores file; a missing one holds no scores.
    pub fn load(path: &Path) -> Result<Self, TrackError> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(TrackError::io("read", path)(error)),
        };
        let read: BTreeMap<String, BTreeMap<String, Real>> =
            serde_json::from_slice(&bytes).map_err(|e| TrackError::Format {
                path: path.to_path_buf(),
                expected: "a scores file",
                found: e.to_string(),
                help: "remove it and run the experiment again: only the scoring is repeated".into(),
            })?;
        let by_evaluation =
            read.into_iter().map(|(key, m)| (key, m.into_iter().map(|(name, v)| (name, v.0)).collect())).collect();
        Ok(Self { by_evaluation })
    }

    /// Writes the scores file.
    pub fn save(&self, path: &Path) -> Result<(), TrackError> {
        let out: BTreeMap<&String, BTreeMap<&String, Real>> = self
            .by_evaluation
            .iter()
            .map(|(key, m)| (key, m.iter().map(|(name, v)| (name, Real(*v))).collect()))
            .collect();
        let mut text =
            serde_json::to_vec_pretty(&out).map_err(|e| TrackError::io("write", path)(std::io::Error::other(e)))?;
        text.push(b'\n');
        write_atomic(path, &text)
    }

    /// Scores of a checkpoint on a split, by metric, in unit fractions.
    pub fn get(&self, checkpoint: CheckpointChoice, split: &str) -> Option<&BTreeMap<String, f64>> {
        self.by_evaluation.get(&key(checkpoint, split))
    }

    /// Records the scores of a checkpoint on a split.
    pub fn insert(&mut self, checkpoint: CheckpointChoice, split: &str, scores: BTreeMap<String, f64>) {
        self.by_evaluation.insert(key(checkpoint, split), scores);
    }

    /// Whether nothing has been scored.
    pub fn is_empty(&self) -> bool {
        self.by_evaluation.is_empty()
    }

    /// All evaluations, `<checkpoint>/<split>`, with their scores.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &BTreeMap<String, f64>)> {
        self.by_evaluation.iter()
    }
}

/// A number that survives JSON when it is not finite.
#[derive(Serialize, Deserialize)]
struct Real(#[serde(with = "journal::real")] f64);

fn key(checkpoint: CheckpointChoice, split: &str) -> String {
    format!("{}/{split}", name_of(&checkpoint))
}

/// The name of a unit variant in configuration files.
fn name_of(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        _ => String::new(),
    }
}
