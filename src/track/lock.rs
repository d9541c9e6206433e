//! `run.lock.toml`: what exactly a run is: resolved settings, program, machine, data and the weights it started from.
//!
//! Two runs do the same work when the settings that influence results, the data and the initial weights are equal; which
//! settings those are is decided by [`influencing`] and nowhere else. The lock says nothing about how far a run came.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{TrackError, now, time_text, write_atomic};
use crate::config::{self, Settings};

/// Keys (or their first parts) that change how a run is described, stored, or fed, but not what it computes.
const WITHOUT_INFLUENCE: [&str; 20] = [
    "experiment.description",
    "metrics",
    "output",
    "track",
    "paper",
    "data.workers",
    "data.prefetch",
    "launch.threads",
    "launch.launcher",
    "slurm",
    "launch.master_addr",
    "launch.master_port",
    "launch.timeout_s",
    "launch.hang_timeout_s",
    "launch.max_restarts",
    "train.log_every",
    "train.keep_checkpoints",
    "train.keep_every",
    "train.checkpoint_every_steps",
    "train.checkpoint_every_minutes",
];

/// What stands for a fact that could not be found out.
const UNKNOWN: &str = "unknown";

/// Content of `run.lock.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// The experiment file, as it was named on the command line.
    pub file: String,
    /// When the run was created, RFC 3339 in UTC.
    pub created: String,
    /// Version of the program.
    pub version: String,
    /// State of the source the program was built from.
    pub code: Code,
    /// Name of the machine.
    pub host: String,
    /// Device of the processes: `launch.device` of the settings, with `auto` resolved.
    pub device: String,
    /// Number of processes.
    pub world_size: usize,
    /// `experiment.seed` of the settings.
    pub seed: u64,
    /// SHA-256 over the canonical JSON of the settings that influence results.
    pub settings_hash: String,
    /// Identity of the data that was read.
    pub data_fingerprint: String,
    /// Where the initial weights come from; none for random weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// All resolved settings.
    pub settings: Settings,
}

/// State of the source code, as far as git knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Code {
    /// Commit, or `unknown`.
    pub commit: String,
    /// SHA-256 of the uncommitted changes, `clean` without any, or `unknown`.
    pub diff: String,
    /// Hash of the files that the program was compiled from (`src`, the manifest, the lock file of the dependencies); the same for
    /// two commits that differ in texts or results only.
    #[serde(default = "unknown")]
    pub source: String,
}

/// The checkpoint a run starts from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parent {
    /// Upstream experiment; empty for a checkpoint given by its path.
    pub experiment: String,
    /// Upstream run id; empty for a checkpoint given by its path.
    pub run: String,
    /// The weights file.
    pub checkpoint: PathBuf,
    /// SHA-256 of the weights file.
    pub sha256: String,
}

/// One thing in which two runs differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Dotted key of the setting, `data` or `initial weights`.
    pub key: String,
    /// The value now.
    pub now: String,
    /// The value in the recorded run.
    pub recorded: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} (the run has {})", self.key, self.now, self.recorded)
    }
}

impl Lock {
    /// The lock of a new run of the experiment in `file`.
    pub fn new(file: &Path, settings: &Settings, data_fingerprint: &str, parent: Option<Parent>) -> Self {
        Self {
            file: file.display().to_string(),
            created: time_text(now()),
            version: env!("CARGO_PKG_VERSION").into(),
            code: Code::find(),
            host: host_name(),
            device: settings.launch.device.clone(),
            world_size: settings.launch.world_size,
            seed: settings.experiment.seed,
            settings_hash: settings_hash(settings),
            data_fingerprint: data_fingerprint.into(),
            parent,
            settings: settings.clone(),
        }
    }

    /// Reads a lock file.
    pub fn load(path: &Path) -> Result<Self, TrackError> {
        let text = std::fs::read_to_string(path).map_err(TrackError::io("read", path))?;
        toml::from_str(&text).map_err(|e| TrackError::Format {
            path: path.to_path_buf(),
            expected: "a run lock that this version reads",
            found: e.to_string().trim_end().replace('\n', "\n  "),
            help: format!("this is vlp {}; use the version that wrote the file, or move the run away", version()),
        })
    }

    /// Writes the lock file; there must be none.
    pub fn save(&self, path: &Path) -> Result<(), TrackError> {
        if path.exists() {
            return Err(TrackError::io("write", path)(std::io::ErrorKind::AlreadyExists.into()));
        }
        write_atomic(path, self.text(path)?.as_bytes())
    }

    /// What the lock file at `path` holds.
    pub(super) fn text(&self, path: &Path) -> Result<String, TrackError> {
        let text = toml::to_string(self).map_err(|e| TrackError::Format {
            path: path.to_path_buf(),
            expected: "writable as TOML",
            found: e.to_string(),
            help: "whole numbers in TOML end at 2^63 - 1; choose a smaller seed".into(),
        })?;
        Ok(format!("# What this run is; written once by `vlp run`.\n{text}"))
    }

    /// In what this work differs from that of `recorded`; empty when both would compute the same. The version of the
    /// program does not count: see [`Lock::code_note`].
    pub fn same_work(&self, recorded: &Lock) -> Vec<Difference> {
        let (here, there) = (influencing(&self.settings), influencing(&recorded.settings));
        let keys: std::collections::BTreeSet<&String> = here.keys().chain(there.keys()).collect();
        let text = |value: Option<&Value>| value.map_or_else(|| "unset".to_string(), Value::to_string);
        let mut differences: Vec<Difference> = keys
            .into_iter()
            .filter(|key| here.get(*key) != there.get(*key))
            .map(|key| Difference { key: key.clone(), now: text(here.get(key)), recorded: text(there.get(key)) })
            .collect();
        if self.data_fingerprint != recorded.data_fingerprint {
            differences.push(Difference {
                key: "data".into(),
                now: self.data_fingerprint.clone(),
                recorded: recorded.data_fingerprint.clone(),
            });
        }
        let weights = |lock: &Lock| lock.parent.as_ref().map(|p| p.sha256.clone());
        if weights(self) != weights(recorded) {
            differences.push(Difference {
                key: "initial weights".into(),
                now: parent_text(self.parent.as_ref()),
                recorded: parent_text(recorded.parent.as_ref()),
            });
        }
        differences
    }

    /// Whether the same program recorded both: version and source files.
    pub fn same_program(&self, recorded: &Lock) -> bool {
        self.version == recorded.version && self.code.source == recorded.code.source
    }

    /// A remark when the run was recorded by another state of the program.
    pub fn code_note(&self, recorded: &Lock) -> Option<String> {
        let name = |lock: &Lock| {
            let commit: String = lock.code.commit.chars().take(12).collect();
            let diff: String = lock.code.diff.chars().take(12).collect();
            format!("vlp {} (commit {commit}, changes {diff})", lock.version)
        };
        let same = self.version == recorded.version && self.code == recorded.code;
        (!same).then(|| format!("recorded by {}, this is {}", name(recorded), name(self)))
    }
}

impl Code {
    /// Asks git about the repository that holds the program, else about the one around the current folder; only a
    /// repository of this crate counts.
    pub fn find() -> Self {
        let program = std::env::current_exe().ok().and_then(|p| p.parent().map(Path::to_path_buf));
        let places = [program, std::env::current_dir().ok()];
        places.into_iter().flatten().find_map(|place| Self::in_repository(&place)).unwrap_or_else(Self::unknown)
    }

    fn unknown() -> Self {
        Self { commit: unknown(), diff: unknown(), source: compiled() }
    }

    fn in_repository(place: &Path) -> Option<Self> {
        let root = git(place, &["rev-parse", "--show-toplevel"])?;
        let root = Path::new(std::str::from_utf8(&root).ok()?.trim_end()).to_path_buf();
        let manifest: toml::Table = std::fs::read_to_string(root.join("Cargo.toml")).ok()?.parse().ok()?;
        if manifest.get("package")?.get("name")?.as_str()? != env!("CARGO_PKG_NAME") {
            return None;
        }
        let commit = String::from_utf8(git(&root, &["rev-parse", "HEAD"])?).ok()?.trim_end().to_string();
        let diff = match git(&root, &["diff", "HEAD", "--binary", "--no-ext-diff", "--no-color"]) {
            Some(diff) if diff.is_empty() => "clean".into(),
            Some(diff) => hex(&Sha256::digest(&diff)),
            None => unknown(),
        };
        Some(Self { commit, diff, source: compiled() })
    }
}

fn unknown() -> String {
    UNKNOWN.into()
}

/// What this program was compiled from (`build.rs`).
fn compiled() -> String {
    env!("SOURCE_HASH").into()
}

fn git(folder: &Path, arguments: &[&str]) -> Option<Vec<u8>> {
    let output = Command::new("git").arg("-C").arg(folder).args(arguments).stdin(Stdio::null()).output().ok()?;
    output.status.success().then_some(output.stdout)
}

/// The settings that decide what a run computes, by dotted key.
pub fn influencing(settings: &Settings) -> BTreeMap<String, Value> {
    let inert = |key: &str| {
        WITHOUT_INFLUENCE
            .iter()
            .any(|name| key.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '['])))
    };
    config::flatten(settings).into_iter().filter(|(key, _)| !inert(key)).collect()
}

/// SHA-256, in hexadecimal, over the JSON of [`influencing`]: keys sorted, no white space.
fn settings_hash(settings: &Settings) -> String {
    let canonical: serde_json::Map<String, Value> = influencing(settings).into_iter().collect();
    sha256(Value::Object(canonical).to_string().as_bytes())
}

/// SHA-256 of a file, in hexadecimal.
pub fn sha256_of_file(path: &Path) -> Result<String, TrackError> {
    let mut file = std::fs::File::open(path).map_err(TrackError::io("read", path))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0u8; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(TrackError::io("read", path))? {
            0 => return Ok(hex(&hasher.finalize())),
            n => hasher.update(&buffer[..n]),
        }
    }
}

/// SHA-256 of bytes, in hexadecimal.
pub(super) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn parent_text(parent: Option<&Parent>) -> String {
    match parent {
        None => "random".into(),
        Some(p) => {
            let hash: String = p.sha256.chars().take(12).collect();
            format!("{} (sha256 {hash})", p.checkpoint.display())
        }
    }
}

fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_string())
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| UNKNOWN.into())
}
