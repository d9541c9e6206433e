//! What is minimised. Tensors of a batch in, one loss out; no optimiser, no files.

mod masked;

mod vqa;

mod scst;

pub use masked::{LossParts, MaskedInputs, MaskedOptions, masked_loss};
pub use scst::{SampledInputs, draw_log_probs, reward_loss};
pub use vqa::{AnswerLoss, answer_loss, best_answer};
