//! `mlflow.json`: per server, which MLflow run a run folder is, and what of it the server has accepted. For a store on this
//! machine the same stands beside the store.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

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

/// Where it is noted what one server has accepted of one run.
#[derive(Debug, Clone)]
pub(super) struct Note {
    /// The file.
    pub(super) file: PathBuf,
    /// What tells the server from others: its address, or what a store is known by.
    pub(super) server: String,
}

/// All servers, by address.
#[derive(Debug, Default, Serialize, Deserialize)]
struct File {
    servers: BTreeMap<String, Progress>,
}

impl Note {
    /// What the server has accepted; nothing where there is no file, or none that can be read: then the server is asked
    /// what it has.
    pub(super) fn load(&self) -> Progress {
        read(&self.file).servers.remove(&self.server).unwrap_or_default()
    }

    /// Records what the server has accepted.
    pub(super) fn save(&self, progress: &Progress) -> Result<(), TrackError> {
        let mut file = read(&self.file);
        file.servers.insert(self.server.clone(), progress.clone());
        let text = serde_json::to_string_pretty(&file);
        let text = text.map_err(|e| TrackError::io("write", &self.file)(std::io::Error::other(e)))?;
        write_atomic(&self.file, format!("{text}\n").as_bytes())
    }
}

fn read(path: &Path) -> File {
    std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}
