//! From a data set and a model to a predictions file, and from that to scores.

use crate::data::DataError;
use crate::track::TrackError;

mod caption;

mod scorers;

mod answer;

mod split;

pub use answer::{
    AnswerPrediction, AnswerReport, AnswerTask, QuestionScores, save_answer_scores, save_answers, score_answers,
    write_submissions,
};
pub use caption::{CaptionTask, Prediction, save_predictions, save_scores, score_predictions};
pub use scorers::{CaptionReport, Column, Places, Scorers};
pub use split::{Evaluation, SplitData, SplitScores};

/// Why a split could not be predicted or scored.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// Data on disk.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The predictions file.
    #[error(transparent)]
    Track(#[from] TrackError),
    /// The metrics cannot be computed.
    #[error("the predictions cannot be scored: {0}")]
    Metrics(String),
    /// The model answers no questions.
    #[error("the model has no answer head\n  help: train or load one with `objective.kind = \"vqa\"`")]
    NoAnswerHead,
    /// A question without a prediction.
    #[error(
        "question {question} has no predicted answer\n  help: is its image in the list of valid images, and the question in the imdb file? every question must be answered"
    )]
    Unanswered {
        /// The question.
        question: u64,
    },
    /// A question with two predictions.
    #[error(
        "question {question} is answered twice\n  help: the evaluation server takes one answer per question; remove duplicates from the imdb file"
    )]
    AnsweredTwice {
        /// The question.
        question: u64,
    },
    /// An answer that is not a class.
    #[error(
        "question {question} is answered with {answer:?}, which is not in the answer vocabulary\n  help: `data.answers` must be the vocabulary that the model was trained with"
    )]
    UnknownAnswer {
        /// The question.
        question: u64,
        /// The answer.
        answer: String,
    },
}

/// Lines in the log while a split is predicted: how far it is, and that it goes on.
struct Pulse {
    total: usize,
    done: usize,
    said: std::time::Instant,
}

impl Pulse {
    /// Time between two lines.
    const EVERY: std::time::Duration = std::time::Duration::from_secs(30);

    fn new(total: usize) -> Self {
        Self { total, done: 0, said: std::time::Instant::now() }
    }

    /// So many more are done.
    fn add(&mut self, more: usize) {
        self.done += more;
        if self.said.elapsed() >= Self::EVERY {
            self.said = std::time::Instant::now();
            tracing::info!(done = self.done, of = self.total, "predicting");
        }
    }
}
