//! Runs a program for a limited time and keeps what it printed; temporary folders.
//!
//! Nothing here knows SPICE or Java.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::SpiceError;

/// How often a program is asked whether it has ended.
const POLL: Duration = Duration::from_millis(10);

/// How much of what a program printed is kept, from its end.
const KEPT_BYTES: u64 = 16_000;

/// How a program ended.
pub(super) enum End {
    /// With exit code 0.
    Success {
        /// Standard output and error, or the end of them.
        printed: String,
    },
    /// With another code, or by a signal.
    Failed {
        /// Which.
        status: String,
        /// The end of what it printed.
        printed: String,
    },
    /// It was killed.
    Timeout,
}

/// Runs `command`, its input empty, its output kept in `work`, and kills it after `limit`.
pub(super) fn run(command: &mut Command, limit: Duration, work: &WorkFolder) -> Result<End, SpiceError> {
    let path = work.path().join("printed.txt");
    let failed = |action, source| SpiceError::Io { action, path: path.clone(), source };
    let opened = File::options().read(true).write(true).create(true).truncate(true).open(&path);
    let mut printed = opened.map_err(|e| failed("write", e))?;
    let output = || printed.try_clone().map(Stdio::from).map_err(|e| failed("write", e));
    command.stdin(Stdio::null()).stdout(output()?).stderr(output()?);
    let program = PathBuf::from(command.get_program());
    let started = Instant::now();
    let mut child =
        Guarded(command.spawn().map_err(|source| SpiceError::Io { action: "start", path: program.clone(), source })?);
    let status = loop {
        let ended = child.0.try_wait();
        match ended.map_err(|source| SpiceError::Io { action: "wait for", path: program.clone(), source })? {
            Some(status) => break status,
            None if started.elapsed() >= limit => return Ok(End::Timeout),
            None => std::thread::sleep(POLL),
        }
    };
    let text = tail(&mut printed).map_err(|e| failed("read", e))?;
    Ok(if status.success() {
        End::Success { printed: text }
    } else {
        End::Failed { status: describe(status), printed: text }
    })
}

/// Whether a program can be started at all.
pub(super) fn starts(command: &mut Command) -> bool {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    child.map(Guarded).is_ok()
}

/// A process that does not outlive its handle.
struct Guarded(Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn tail(file: &mut File) -> std::io::Result<String> {
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(length.saturating_sub(KEPT_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn describe(status: ExitStatus) -> String {
    status.code().map_or_else(|| status.to_string(), |code| format!("exit code {code}"))
}

/// A folder of this process's own, removed when dropped.
pub(super) struct WorkFolder(PathBuf);

impl WorkFolder {
    /// Makes one below `parent`.
    pub(super) fn new(parent: &Path) -> Result<Self, SpiceError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = parent.join(format!("vlp-work-{}-{number}", std::process::id()));
            match std::fs::create_dir(&path) {
                Ok(()) => return absolute(&path).map(Self),
                Err(source) if source.kind() == ErrorKind::AlreadyExists => {} // left by a killed process of this number
                Err(source) => return Err(SpiceError::Io { action: "make", path, source }),
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(folder = %self.0.display(), %error, "temporary folder not removed");
        }
    }
}

/// Makes a folder; its absolute path.
pub(super) fn folder(path: &Path) -> Result<PathBuf, SpiceError> {
    std::fs::create_dir_all(path).map_err(|source| SpiceError::Io { action: "make", path: path.to_owned(), source })?;
    absolute(path)
}

/// The absolute path of what exists.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, SpiceError> {
    std::fs::canonicalize(path).map_err(|source| SpiceError::Io { action: "open", path: path.to_owned(), source })
}

pub(super) fn write(path: &Path, text: &str) -> Result<(), SpiceError> {
    std::fs::write(path, text).map_err(|source| SpiceError::Io { action: "write", path: path.to_owned(), source })
}
