//! From a data set and a model to a predictions file, and from that to scores.

mod caption;
mod scorers;

pub use caption::{CaptionTask, EvaluateError, Prediction, save_predictions, save_scores, score_predictions};
pub use scorers::{CaptionReport, Column, Places, Scorers};
