//! Training: the loop over epochs and steps, what it minimises, the optimiser, and checkpoints.
//!
//! Decoding and scoring a split is the caller's part: the loop hands it the model after each epoch.

use std::path::PathBuf;

pub mod engine;

pub mod precision;

pub mod step;

pub mod objective;

pub mod schedule;

pub mod optimizer;

pub mod exchange;

pub mod bert_adam;

pub mod device_adam;

pub mod checkpoint;

pub mod sync;

/// Why a training ended early.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// Data on disk.
    #[error(transparent)]
    Data(#[from] crate::data::DataError),
    /// A weight file.
    #[error(transparent)]
    Weights(#[from] crate::model::weights::WeightsError),
    /// The records of the run.
    #[error(transparent)]
    Track(#[from] crate::track::TrackError),
    /// Another rank.
    #[error(transparent)]
    Collective(#[from] crate::distributed::CollectiveError),
    /// A checkpoint that is not what was written.
    #[error("`{}` is damaged: {reason}\n  help: remove the folder of this checkpoint; the one before is used then", path.display())]
    Damaged {
        /// File.
        path: PathBuf,
        /// How it shows.
        reason: String,
    },
    /// The loss is NaN or infinite.
    #[error(
        "the loss is {loss} at epoch {epoch}, step {step}\n  help: lower `train.learning_rate`; `vlp data verify FILE` finds values in the data that are not finite"
    )]
    NotFinite {
        /// The loss.
        loss: f64,
        /// Epoch, from 1.
        epoch: usize,
        /// Step within the epoch, from 1.
        step: usize,
    },
    /// Scoring the selection split failed.
    #[error("{0}")]
    Validation(String),
    /// Asked to stop.
    #[error("interrupted")]
    Interrupted,
}
