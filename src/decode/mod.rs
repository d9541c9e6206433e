//! Caption generation by mask prediction: at each step the network reads [last word, `[MASK]`] behind the image and
//! what is written so far, and the prediction is read at `[MASK]`.
//!
//! Shape letters: B images, K beams, N = B·K rows, S = regions + 2 image positions, t text positions kept, A heads,
//! D head size, V vocabulary.

pub mod cache;

mod greedy;

mod beam;

mod sample;

pub use beam::{BeamResult, BeamSettings, Frame, beam_frames, beam_search};
pub use cache::{Prompt, Stepper, TextDropout, encode_image};
pub use greedy::{greedy, greedy_logits};
pub use sample::{Extent, greedy_and_sample};
