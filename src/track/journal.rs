//! The journal of a run: every parameter, tag, state change, metric, event and warning, one JSON object per line, only ever appended to.
//!
//! A crash can leave a torn last line; it is cut off at the next opening or append, and quoted in a warning entry, so
//! that no complete line is lost. An append syncs the file when that has not been done for [`SYNC_EVERY`]; checkpoints and
//! changes of state sync it at once. Metrics that are not finite survive as the strings `"NaN"`, `"inf"` and `"-inf"`.
//! The runner and rank 0 append to the same file, which is why each append takes the lock of the file for a moment.

use std::cell::Cell;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{TrackError, now};

/// Longest time that appended lines stay unsafe from a power cut while more are appended.
const SYNC_EVERY: Duration = Duration::from_secs(3);

/// Bytes at the end of the journal in which the newest metric is looked for.
const TAIL: u64 = 1 << 16;

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The folder exists; nothing has run in it.
    Created,
    /// A runner has started its processes.
    Running,
    /// It was asked to stop, and can be resumed.
    Interrupted,
    /// A process failed.
    Failed,
    /// Trained and evaluated.
    Finished,
}

/// One line of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// When it was written, UTC, milliseconds.
    #[serde(with = "time")]
    pub time: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// What a line of the journal tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum What {
    /// The run changed its state.
    State {
        /// The new state.
        state: State,
        /// Why, in words; may be empty.
        detail: String,
    },
    /// A resolved setting.
    Param {
        /// Its dotted key.
        name: String,
        /// Its value.
        value: Value,
    },
    /// Something else that tells what the run is.
    Tag {
        /// `vlp.version`, `vlp.host`, …
        name: String,
        /// In words.
        value: String,
    },
    /// A measured value.
    Metric {
        /// `train/loss`, `val/cider`, …
        name: String,
        /// The value in its own unit (scores: unit fractions); may be NaN or infinite.
        #[serde(with = "real")]
        value: f64,
        /// Optimiser steps done since the beginning of the training.
        step: u64,
        /// Epoch, counted from 1.
        epoch: u64,
    },
    /// Something worth knowing.
    Event {
        /// In words.
        message: String,
    },
    /// Something that needs a look.
    Warning {
        /// In words.
        message: String,
    },
}

impl Entry {
    /// A change of state, now.
    pub fn state(state: State, detail: impl Into<String>) -> Self {
        Self::of(What::State { state, detail: detail.into() })
    }

    /// A resolved setting, now.
    pub fn param(name: impl Into<String>, value: Value) -> Self {
        Self::of(What::Param { name: name.into(), value })
    }

    /// Something else that tells what the run is, now.
    pub fn tag(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self::of(What::Tag { name: name.into(), value: value.into() })
    }

    /// A measured value, now; `epoch` counts from 1.
    pub fn metric(name: impl Into<String>, value: f64, step: u64, epoch: u64) -> Self {
        Self::of(What::Metric { name: name.into(), value, step, epoch })
    }

    /// Something worth knowing, now.
    pub fn event(message: impl Into<String>) -> Self {
        Self::of(What::Event { message: message.into() })
    }

    /// Something that needs a look, now.
    pub fn warning(message: impl Into<String>) -> Self {
        Self::of(What::Warning { message: message.into() })
    }

    fn of(what: What) -> Self {
        Self { time: now(), what }
    }
}

/// A journal that is open for appending.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
    synced: Cell<Instant>,
}

impl Journal {
    /// Opens or creates the journal at `path`; a torn last line is cut off, and quoted in a warning entry.
    pub fn open(path: &Path) -> Result<Self, TrackError> {
        let file =
            File::options().read(true).append(true).create(true).open(path).map_err(TrackError::io("open", path))?;
        let journal = Self { file, path: path.to_path_buf(), synced: Cell::new(Instant::now()) };
        journal.locked(|| journal.repair())?;
        Ok(journal)
    }

    /// Appends one line. It is in the file, and safe from a power cut after [`Journal::sync`], or after the first append that comes
    /// three seconds later.
    pub fn append(&self, entry: &Entry) -> Result<(), TrackError> {
        self.locked(|| {
            self.repair()?;
            self.write(entry)
        })?;
        if self.synced.get().elapsed() >= SYNC_EVERY { self.sync() } else { Ok(()) }
    }

    /// Forces all lines to the disk.
    pub fn sync(&self) -> Result<(), TrackError> {
        self.synced.set(Instant::now());
        self.file.sync_data().map_err(TrackError::io("sync", &self.path))
    }

    /// Step and epoch of the newest metric, among the last lines of the file.
    pub fn last_point(&self) -> Result<Option<(u64, u64)>, TrackError> {
        let tail = self.tail().map_err(TrackError::io("read", &self.path))?;
        let mut lines = tail.split(|byte| *byte == b'\n').rev();
        Ok(lines.find_map(|line| match serde_json::from_slice(line).ok()? {
            Entry { what: What::Metric { step, epoch, .. }, .. } => Some((step, epoch)),
            _ => None,
        }))
    }

    fn tail(&self) -> std::io::Result<Vec<u8>> {
        let mut file = &self.file;
        let length = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        let mut bytes = Vec::new();
        file.take(TAIL).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn write(&self, entry: &Entry) -> Result<(), TrackError> {
        let mut line =
            serde_json::to_vec(entry).map_err(|e| TrackError::io("write", &self.path)(std::io::Error::other(e)))?;
        line.push(b'\n');
        (&self.file).write_all(&line).map_err(TrackError::io("write", &self.path))
    }

    fn locked<T>(&self, act: impl FnOnce() -> Result<T, TrackError>) -> Result<T, TrackError> {
        self.file.lock().map_err(TrackError::io("lock", &self.path))?;
        let result = act();
        self.file.unlock().map_err(TrackError::io("unlock", &self.path))?;
        result
    }

    /// Cuts the file after its last newline if it does not end with one.
    fn repair(&self) -> Result<(), TrackError> {
        let torn = self.cut_torn_line().map_err(TrackError::io("repair", &self.path))?;
        match torn {
            None => Ok(()),
            Some(text) => self.write(&Entry::warning(format!("cut off a torn last line of the journal: {text:?}"))),
        }
    }

    fn cut_torn_line(&self) -> std::io::Result<Option<String>> {
        let mut file = &self.file;
        let length = file.seek(SeekFrom::End(0))?;
        if length == 0 {
            return Ok(None);
        }
        let mut last = [0u8];
        file.seek(SeekFrom::Start(length - 1))?;
        file.read_exact(&mut last)?;
        if last == *b"\n" {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        file.rewind()?;
        file.read_to_end(&mut bytes)?;
        let keep = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
        file.set_len(keep as u64)?;
        Ok(Some(String::from_utf8_lossy(&bytes[keep..]).into_owned()))
    }
}

/// All complete lines of the journal at `path`, in order. A torn last line is left out, and left alone: a run may be
/// writing it at this moment.
pub fn read(path: &Path) -> Result<Vec<Entry>, TrackError> {
    Ok(complete_lines(path, "a journal", "`time` and `kind`")?.0)
}

/// The complete lines of a file that is only appended to, each one JSON object, and how many bytes they are; a torn last
/// line is not among them. `expected` and `keys` are what an error says of the file and of its lines.
pub fn complete_lines<T: DeserializeOwned>(
    path: &Path,
    expected: &'static str,
    keys: &str,
) -> Result<(Vec<T>, u64), TrackError> {
    let bytes = std::fs::read(path).map_err(TrackError::io("read", path))?;
    let complete = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
    let mut lines = Vec::new();
    for (index, line) in bytes[..complete].split(|b| *b == b'\n').enumerate() {
        if line.is_empty() {
            continue;
        }
        lines.push(serde_json::from_slice(line).map_err(|e| TrackError::Format {
            path: path.to_path_buf(),
            expected,
            found: format!("line {} is `{}`: {e}", index + 1, String::from_utf8_lossy(line)),
            help: format!("mend or remove that line; every line is one JSON object with {keys}"),
        })?);
    }
    Ok((lines, complete as u64))
}

/// RFC 3339 in UTC with milliseconds.
mod time {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&crate::track::time_text(*time))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Numbers as JSON numbers, and what JSON has no number for as `"NaN"`, `"inf"`, `"-inf"`.
pub(super) mod real {
    use serde::{Deserializer, Serializer, de::Error, de::Visitor};

    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        if value.is_finite() { serializer.serialize_f64(*value) } else { serializer.serialize_str(&value.to_string()) }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        deserializer.deserialize_any(Real)
    }

    struct Real;

    impl Visitor<'_> for Real {
        type Value = f64;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a number, \"NaN\", \"inf\" or \"-inf\"")
        }

        fn visit_f64<E: Error>(self, value: f64) -> Result<f64, E> {
            Ok(value)
        }

        fn visit_i64<E: Error>(self, value: i64) -> Result<f64, E> {
            Ok(value as f64)
        }

        fn visit_u64<E: Error>(self, value: u64) -> Result<f64, E> {
            Ok(value as f64)
        }

        fn visit_str<E: Error>(self, value: &str) -> Result<f64, E> {
            match value {
                "NaN" => Ok(f64::NAN),
                "inf" => Ok(f64::INFINITY),
                "-inf" => Ok(f64::NEG_INFINITY),
                other => Err(E::invalid_value(serde::de::Unexpected::Str(other), &self)),
            }
        }
    }
}
