//! The trait, and the group of one rank.

/// A failed exchange between ranks.
#[derive(Debug, thiserror::Error)]
pub enum CollectiveError {
    /// A peer did not answer.
    #[error(
        "rank {rank} lost its group during {operation}: {reason}\n  help: see the log of the rank that failed first"
    )]
    Lost {
        /// This rank.
        rank: usize,
        /// What was going on.
        operation: &'static str,
        /// What the transport said.
        reason: String,
    },
}

/// The operations data-parallel training needs. Every rank calls them in the same order.
pub trait Collective: Send {
    /// This process, `0..world_size`.
    fn rank(&self) -> usize;

    /// Number of processes.
    fn world_size(&self) -> usize;

    /// Replaces `values` by their mean over all ranks.
    fn all_reduce_mean(&mut self, values: &mut [f32]) -> Result<(), CollectiveError>;

    /// Replaces `values` by those of `root`.
    fn broadcast(&mut self, values: &mut [f32], root: usize) -> Result<(), CollectiveError>;

    /// Everyone's `value`, by rank.
    fn gather(&mut self, value: f64) -> Result<Vec<f64>, CollectiveError>;

    /// Returns when all ranks have called it.
    fn barrier(&mut self) -> Result<(), CollectiveError>;
}

/// A group of one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Single;

impl Collective for Single {
    fn rank(&self) -> usize {
        0
    }

    fn world_size(&self) -> usize {
        1
    }

    fn all_reduce_mean(&mut self, _: &mut [f32]) -> Result<(), CollectiveError> {
        Ok(())
    }

    fn broadcast(&mut self, _: &mut [f32], _: usize) -> Result<(), CollectiveError> {
        Ok(())
    }

    fn gather(&mut self, value: f64) -> Result<Vec<f64>, CollectiveError> {
        Ok(vec![value])
    }

    fn barrier(&mut self) -> Result<(), CollectiveError> {
        Ok(())
    }
}
