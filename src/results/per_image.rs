//! The scores of each image that a run saved beside the predictions of a split: `predictions/….scores.json`.
//!
//! Read here, computed elsewhere. Answers to questions have no such file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use crate::config::CheckpointChoice;
use crate::track::{RunRecord, TrackError};

/// Scores of the images of a split, in unit fractions: by image id, then by metric. A score that is not defined for an image
/// is left out.
pub type PerImage = BTreeMap<String, BTreeMap<String, f64>>;

#[derive(Deserialize)]
struct File {
    per_image: Vec<Image>,
}

#[derive(Deserialize)]
struct Image {
    image_id: Value,
    scores: BTreeMap<String, Option<f64>>,
}

/// The predictions of a checkpoint on a split of `[evaluate]`; none without such a checkpoint. The file need not exist.
pub fn predictions_file(record: &RunRecord, checkpoint: CheckpointChoice, split: &str) -> Option<PathBuf> {
    let (epoch, settings) = (record.epoch_of(checkpoint)?, &record.lock.settings);
    let name = match settings.data.dataset {
        crate::config::Dataset::Vqa2 => format!("epoch-{epoch:04}.{split}.answers.json"),
        _ => format!("epoch-{epoch:04}.{split}.beam-{}.json", settings.evaluate.beam_size),
    };
    Some(record.run.predictions().join(name))
}

/// The scores of each image for a checkpoint and a split; none where the run has no such file.
///
/// # Errors
/// A file that cannot be read or does not have the layout.
pub fn load(record: &RunRecord, checkpoint: CheckpointChoice, split: &str) -> Result<Option<PerImage>, TrackError> {
    let Some(path) = predictions_file(record, checkpoint, split).map(|path| path.with_extension("scores.json")) else {
        return Ok(None);
    };
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(TrackError::io("read", &path)(error)),
    };
    let file: File = serde_json::from_slice(&bytes).map_err(|error| TrackError::Format {
        path,
        expected: "a file of scores by image",
        found: error.to_string(),
        help: "move it away; `vlp score captions --per-image --format json` makes such a file from the predictions"
            .into(),
    })?;
    let defined = |scores: BTreeMap<String, Option<f64>>| {
        scores.into_iter().filter_map(|(name, score)| Some((name, score.filter(|s| s.is_finite())?))).collect()
    };
    Ok(Some(file.per_image.into_iter().map(|image| (id_text(&image.image_id), defined(image.scores))).collect()))
}

/// An id as text, whether it is a number or a name.
pub fn id_text(id: &Value) -> String {
    match id {
        Value::String(name) => name.clone(),
        other => other.to_string(),
    }
}
