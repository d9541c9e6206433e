//! What the ranks of a run tell each other, behind one small trait. Plain slices in and out, no tensors and no settings.

mod collective;

pub use collective::{Collective, CollectiveError, Single};
