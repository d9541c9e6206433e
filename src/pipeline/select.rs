//! The checkpoint that a downstream run starts from: the best, last or first of a finished run, or a file by its path.
//!
//! Which epoch is the best is told by [`RunRecord`]; here its weights are found and identified. No weights are read.

use std::path::{Path, PathBuf};

use crate::config::CheckpointChoice;
use crate::track::{Parent, RunRecord, TrackError, sha256_of_file};

/// Why there are no weights to start from.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    /// The run has no such checkpoint.
    #[error("run `{}` has no {choice} checkpoint: expected `{}`\n  help: `vlp run {file} --fresh` trains it again", run.display(), expected.display())]
    NoCheckpoint {
        /// The run folder.
        run: PathBuf,
        /// `best`, `last` or `first`.
        choice: &'static str,
        /// The file that is missing.
        expected: PathBuf,
        /// The experiment file of the run.
        file: String,
    },
    /// The file named by `init.from` is missing.
    #[error("`init.from` names the checkpoint `{}`, but there is no such file\n  help: correct the path (it is relative to the current folder), or give the name of an experiment", path.display())]
    NoFile {
        /// The path.
        path: PathBuf,
    },
    /// A file could not be read.
    #[error(transparent)]
    Track(#[from] TrackError),
}

/// The weights that `choice` means in a finished run.
pub fn from_run(record: &RunRecord, choice: CheckpointChoice) -> Result<Parent, SelectError> {
    let model = record.epoch_of(choice).map(|epoch| record.run.model_file(epoch));
    match model {
        Some(model) if model.is_file() => Ok(Parent {
            experiment: record.lock.settings.experiment.name.clone(),
            run: record.run.id(),
            sha256: sha256_of_file(&model)?,
            checkpoint: model,
        }),
        expected => Err(SelectError::NoCheckpoint {
            run: record.run.path().to_path_buf(),
            choice: match choice {
                CheckpointChoice::Best => "best",
                CheckpointChoice::Last => "last",
                CheckpointChoice::First => "first",
            },
            expected: expected.unwrap_or_else(|| record.run.checkpoints()),
            file: record.lock.file.clone(),
        }),
    }
}

/// The weights in a file, or in the `model.safetensors` of a checkpoint folder.
pub fn from_path(path: &Path) -> Result<Parent, SelectError> {
    let file = if path.is_dir() { path.join("model.safetensors") } else { path.to_path_buf() };
    if !file.is_file() {
        return Err(SelectError::NoFile { path: file });
    }
    Ok(Parent { experiment: String::new(), run: String::new(), sha256: sha256_of_file(&file)?, checkpoint: file })
}
