//! The files of a run that an MLflow server keeps beside its numbers.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::super::{RunRecord, TrackError};

/// A file, and its name among the artifacts of the MLflow run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Relative path with `/`.
    pub name: String,
    /// Where it is here.
    pub file: PathBuf,
}

impl Artifact {
    /// What a run has by now: its lock, scores, report and predictions, `tables`, and, where `track.upload_best_checkpoint` says so,
    /// the weights of its best epoch. What does not exist is left out.
    pub fn of_run(record: &RunRecord, tables: &[PathBuf]) -> Result<Vec<Self>, TrackError> {
        let run = &record.run;
        let mut found = Vec::new();
        let mut add = |folder: &str, file: PathBuf| {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            let name = if folder.is_empty() { name.into_owned() } else { format!("{folder}/{name}") };
            if file.is_file() && !name.starts_with('.') {
                found.push(Self { name, file });
            }
        };
        for file in [run.lock_file(), run.scores_file(), run.path().join("report.html")] {
            add("", file);
        }
        for table in tables {
            add("tables", table.clone());
        }
        for (name, folder) in [("predictions", run.predictions()), ("submissions", run.submissions())] {
            for file in files(&folder)? {
                add(name, file);
            }
        }
        if let (true, Some(epoch)) = (record.lock.settings.track.upload_best_checkpoint, record.best_epoch) {
            add("checkpoints/best", run.model_file(epoch));
        }
        Ok(found)
    }

    /// Size in bytes, and a text that changes when the file does.
    pub(super) fn stamp(&self) -> Result<(u64, String), TrackError> {
        let metadata = self.file.metadata().map_err(TrackError::io("read", &self.file))?;
        let time = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        Ok((metadata.len(), format!("{} bytes, {}.{:09}", metadata.len(), time.as_secs(), time.subsec_nanos())))
    }
}

/// The visible files in a folder, sorted; none when it does not exist.
fn files(folder: &Path) -> Result<Vec<PathBuf>, TrackError> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(TrackError::io("read", folder)(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(TrackError::io("read", folder))?.path();
        if !path.file_name().unwrap_or_default().to_string_lossy().starts_with('.') {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
