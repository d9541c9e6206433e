//! Run records: the folder of a run, its lock file, its journal, its scores and its progress lines; and what an MLflow server
//! is told of them.
//!
//! Everything a run leaves behind is written and read here, and nothing that cost compute is ever overwritten. This
//! module starts no process, trains nothing and compares nothing with the paper.

mod describe;
mod gpus;
mod journal;
mod lock;
pub mod mlflow;
mod progress;
mod rank_log;
mod run_dir;
mod run_record;
mod system;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

pub use gpus::{Gpus, NVML};
pub use journal::{Entry, Journal, State, What, complete_lines, read};
pub use lock::{Code, Difference, Lock, Parent, influencing, sha256_of_file};
pub use progress::{Progress, ProgressPoint, duration_text, grouped, line_text};
pub use rank_log::{render_line, tail};
pub use run_dir::{Alive, Held, RunDir};
pub use run_record::{Condition, LOSS, RunRecord, Scores, selection_metric};
pub use system::System;

/// What can go wrong with the records of a run.
#[derive(Debug, thiserror::Error)]
pub enum TrackError {
    /// The operating system refused a file operation.
    #[error("cannot {action} `{}`: {source}\n  help: check that the folder exists, may be written to, and that its disk is not full", path.display())]
    Io {
        /// What was tried: `write`, `read`, `lock`, …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The answer of the operating system.
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("`{}` is not {expected}: {found}\n  help: {help}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What the file should be, e.g. `a run lock`.
        expected: &'static str,
        /// What was found instead.
        found: String,
        /// What to do.
        help: String,
    },
    /// Another process runs in this folder.
    #[error("run `{}` is in use by another `vlp` process\n  help: wait until it ends, or stop it with Ctrl-C; `vlp status` shows how far it is", path.display())]
    Busy {
        /// The run folder.
        path: PathBuf,
    },
    /// The folder holds no run.
    #[error("`{}` is not a run folder: it has no `run.lock.toml`\n  help: `vlp status` lists the runs; a run is `<runs>/<experiment>/<run id>`", path.display())]
    NotARun {
        /// The folder.
        path: PathBuf,
    },
}

impl TrackError {
    /// Wraps an error of the operating system: `.map_err(TrackError::io("write", path))`.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }
}

/// Writes `bytes` to `path` so that a reader sees the old content or the new, never a part: temporary name in the same
/// folder, sync, rename, sync of the folder. Missing parent folders are made.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), TrackError> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let parent = parent_of(path);
    std::fs::create_dir_all(parent).map_err(TrackError::io("create", parent))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let temporary = parent.join(format!(".{name}.{}-{number}.tmp", std::process::id()));
    let written = write_synced(&temporary, bytes)
        .map_err(TrackError::io("write", path))
        .and_then(|()| std::fs::rename(&temporary, path).map_err(TrackError::io("write", path)));
    if written.is_err() {
        // Best effort: the failure itself is what is reported.
        let _ = std::fs::remove_file(&temporary);
    }
    written?;
    sync_folder(parent)
}

/// Makes the entries of a folder (a rename, a new file) durable.
pub fn sync_folder(folder: &Path) -> Result<(), TrackError> {
    std::fs::File::open(folder).and_then(|f| f.sync_all()).map_err(TrackError::io("sync", folder))
}

fn write_synced(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = std::fs::File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// The current time in UTC, cut to milliseconds.
pub fn now() -> jiff::Timestamp {
    let now = jiff::Timestamp::now();
    jiff::Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
}

/// RFC 3339 in UTC with milliseconds: `2026-11-23T17:15:00.042Z`.
pub fn time_text(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}
