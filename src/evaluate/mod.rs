//! From a data set and a model to a predictions file, and from that to scores.

mod caption;

pub use caption::{CaptionTask, EvaluateError, Prediction, save_predictions, score_predictions};
