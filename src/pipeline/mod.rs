//! Chains of experiments: what a run starts from, which stages must run first, and which earlier runs do already.
//!
//! It decides; starting processes is left to `launch`, and telling people about it to `cli`.

pub mod equivalence;
pub mod lineage;
pub mod select;
pub mod stage;

use crate::track::TrackError;

/// Why a chain of experiments cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// A record of a run could not be read.
    #[error(transparent)]
    Track(#[from] TrackError),
    /// The initial weights are not there.
    #[error(transparent)]
    Select(#[from] select::SelectError),
    /// An unfinished run differs from what is asked for.
    #[error(transparent)]
    Refused(#[from] stage::Refusal),
    /// A run would start from weights that another state of the program trained.
    #[error(transparent)]
    Drift(#[from] stage::Drift),
}
