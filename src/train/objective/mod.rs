//! What is minimised. Tensors of a batch in, one loss out; no optimiser, no files.

mod masked;

pub use masked::{LossParts, MaskedInputs, MaskedOptions, masked_loss};
