//! The scores of each item of a split that a run saved beside its predictions, `predictions/….scores.json`: of each image
//! whose caption, or each question whose answer, was scored.
//!
//! Read here, computed elsewhere.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use crate::config::{CheckpointChoice, Dataset};
use crate::track::{RunRecord, TrackError};

/// Scores of the items of a split, in unit fractions: by id, then by metric. A score that is not defined for an item is left
/// out.
pub type ItemScores = BTreeMap<String, BTreeMap<String, f64>>;

/// What is scored one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item {
    /// An image with its caption.
    Image,
    /// A question with its answer.
    Question,
}

impl Item {
    /// What the runs of a data set predict.
    pub fn of(dataset: Dataset) -> Self {
        match dataset {
            Dataset::Vqa2 => Self::Question,
            _ => Self::Image,
        }
    }

    /// `image` or `question`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Question => "question",
        }
    }

    /// `images` or `questions`.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Image => "images",
            Self::Question => "questions",
        }
    }
}

#[derive(Deserialize)]
struct ImageFile {
    per_image: Vec<Image>,
}

#[derive(Deserialize)]
struct Image {
    image_id: Value,
    scores: BTreeMap<String, Option<f64>>,
}

#[derive(Deserialize)]
struct QuestionFile {
    per_question: Vec<Question>,
}

#[derive(Deserialize)]
struct Question {
    question_id: Value,
    scores: BTreeMap<String, Option<f64>>,
}

/// The predictions of a checkpoint on a split of `[evaluate]`; none without such a checkpoint. The file need not exist.
pub fn predictions_file(record: &RunRecord, checkpoint: CheckpointChoice, split: &str) -> Option<PathBuf> {
    let (epoch, settings) = (record.epoch_of(checkpoint)?, &record.lock.settings);
    let name = match settings.data.dataset {
        Dataset::Vqa2 => format!("epoch-{epoch:04}.{split}.answers.json"),
        _ => format!("epoch-{epoch:04}.{split}.beam-{}.json", settings.evaluate.beam_size),
    };
    Some(record.run.predictions().join(name))
}

/// The scores of each item for a checkpoint and a split; none where the run has no such file.
///
/// # Errors
/// A file that cannot be read or does not have the layout.
pub fn load(record: &RunRecord, checkpoint: CheckpointChoice, split: &str) -> Result<Option<ItemScores>, TrackError> {
    let Some(path) = predictions_file(record, checkpoint, split).map(|path| path.with_extension("scores.json")) else {
        return Ok(None);
    };
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(TrackError::io("read", &path)(error)),
    };
    let wrong = |expected, help: &'static str| {
        move |error: serde_json::Error| TrackError::Format {
            path,
            expected,
            found: error.to_string(),
            help: help.into(),
        }
    };
    let items: Vec<(Value, BTreeMap<String, Option<f64>>)> = match Item::of(record.lock.settings.data.dataset) {
        Item::Image => {
            let file: ImageFile = serde_json::from_slice(&bytes).map_err(wrong(
                "a file of scores by image",
                "move it away; `vlp score captions --per-image --format json` makes such a file from the predictions",
            ))?;
            file.per_image.into_iter().map(|image| (image.image_id, image.scores)).collect()
        }
        Item::Question => {
            let file: QuestionFile = serde_json::from_slice(&bytes)
                .map_err(wrong("a file of scores by question", "move it away; comparisons then go without it"))?;
            file.per_question.into_iter().map(|question| (question.question_id, question.scores)).collect()
        }
    };
    let defined = |scores: BTreeMap<String, Option<f64>>| {
        scores.into_iter().filter_map(|(name, score)| Some((name, score.filter(|s| s.is_finite())?))).collect()
    };
    Ok(Some(items.into_iter().map(|(id, scores)| (id_text(&id), defined(scores))).collect()))
}

/// An id as text, whether it is a number or a name.
pub fn id_text(id: &Value) -> String {
    match id {
        Value::String(name) => name.clone(),
        other => other.to_string(),
    }
}
