//! `mlflow.json`: per server, which MLflow run a run folder is, and what of it the server has accepted.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::super::{TrackError, write_atomic};

/// What one server has accepted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Progress {
    /// Id of the MLflow experiment.
    pub(super) experiment_id: String,
    /// Id of the MLflow run; empty before there is one.
    pub(super) run_id: String,
    /// Whether it has the parameters and tags.
    pub(super) described: bool,
    /// It has all points of the journal before this byte.
    pub(super) journal_bytes: u64,
    /// State in MLflow's words.
    pub(super) status: String,
    /// Files that it has, by name, with size and time.
    pub(super) files: BTreeMap<String, String>,
}

/// All servers, by address.
#[derive(Debug, Default, Serialize, Deserialize)]
struct File {
    servers: BTreeMap<String, Progress>,
}

/// What the server at `address` has accepted; nothing where there is no file, or none that can be read: then the server
/// is asked what it has.
pub(super) fn load(path: &Path, address: &str) -> Progress {
    read(path).servers.remove(address).unwrap_or_default()
}

/// Records what the server at `address` has accepted.
pub(super) fn save(path: &Path, address: &str, progress: &Progress) -> Result<(), TrackError> {
    let mut file = read(path);
    file.servers.insert(address.to_owned(), progress.clone());
    let text = serde_json::to_string_pretty(&file);
    let text = text.map_err(|e| TrackError::io("write", path)(std::io::Error::other(e)))?;
    write_atomic(path, format!("{text}\n").as_bytes())
}

fn read(path: &Path) -> File {
    std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}
