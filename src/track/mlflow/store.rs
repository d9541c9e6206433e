//! An MLflow store on this machine that one process feeds from all journals: what of them it has is noted beside it.
//!
//! The notes name the store by the time at which it was made: they say nothing about one that was made anew in its place.
//! Starting the server, and keeping others away from the folder, is for the one who feeds it.

use std::path::{Path, PathBuf};

use super::client::Client;
use super::progress::Note;
use super::{MlflowError, Server};
use crate::track::lock::sha256;
use crate::track::{Lock, RunDir, TrackError, sha256_of_file};

/// Folder of the notes, one file per run folder.
const NOTES: &str = "sent";

/// Hex digits of a hash in the name of a note.
const DIGITS: usize = 16;

/// A store, and the server on it.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    server: Server,
    key: String,
}

impl Store {
    /// The store in `folder`, of which `server` is the server.
    pub fn open(folder: &Path, server: Server) -> Result<Self, MlflowError> {
        let born = Client::new(server.clone()).store_born()?;
        Ok(Self { folder: folder.to_path_buf(), server, key: format!("store of {born}") })
    }

    /// Its server.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Where it is noted what the store has of a run. The place of the folder tells copies of a run apart.
    pub(super) fn note(&self, run: &RunDir, lock: &Lock) -> Result<Note, TrackError> {
        let path = run.path().canonicalize().map_err(TrackError::io("find", run.path()))?;
        let identity = format!("{} {}", sha256_of_file(&run.lock_file())?, path.display());
        let hash = &sha256(identity.as_bytes())[..DIGITS];
        let name = format!("{}-{}-{hash}.json", lock.settings.experiment.name, run.id());
        Ok(Note { file: self.folder.join(NOTES).join(name), server: self.key.clone() })
    }
}
