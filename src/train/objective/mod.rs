//! What is minimised. Tensors of a batch in, one loss out; no optimiser, no files.

mod masked;

mod vqa;

mod scst;

pub use crate::model::heads::best_answer;
pub use masked::{LossParts, MaskedInputs, MaskedOptions, masked_loss};
pub use scst::{SampledInputs, ScstLoss, SelfCriticalObjective, reward_loss, text_log_probs, text_places};
pub use vqa::{AnswerLoss, answer_loss};
