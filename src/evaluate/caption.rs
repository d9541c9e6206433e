//! Captions of a split: decoded, saved in the layout of the COCO results files, scored.

use std::path::Path;
use std::sync::Arc;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::scorers::{CaptionReport, Scorers};
use super::{EvaluateError, Pulse};
use crate::config::{DataSettings, EvaluateSettings, Metric};
use crate::data::batch::ImageBatch;
use crate::data::karpathy::{CaptionData, ImageId};
use crate::data::loader::image_batches;
use crate::data::region_store::RegionStore;
use crate::data::tokenizer::Tokenizer;
use crate::decode::{BeamSettings, Prompt, Stepper, beam_search, greedy};
use crate::metrics::CaptionEntry;
use crate::model::Vlp;
use crate::model::inputs::region_table;
use crate::track::{TrackError, write_atomic};

/// One entry of a COCO results file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// The image's id, as its collection derives it.
    pub image_id: ImageId,
    /// The caption.
    pub caption: String,
}

/// A split to be captioned.
pub struct CaptionTask<'a> {
    /// Images and their references.
    pub data: Arc<CaptionData>,
    /// Region features.
    pub store: Arc<RegionStore>,
    /// Vocabulary.
    pub tokenizer: &'a Tokenizer,
    /// `[data]`: sizes and loader.
    pub data_settings: &'a DataSettings,
    /// `[evaluate]`: lengths and batch size.
    pub settings: &'a EvaluateSettings,
    /// Beams; 1 is greedy.
    pub beam_size: usize,
}

impl CaptionTask<'_> {
    /// One caption per image, in the order of the split. `model` is in evaluation form, on `device`.
    pub fn caption(&self, model: &Vlp, device: &Device) -> Result<Vec<Prediction>, EvaluateError> {
        let model = &model.clone().packed();
        let mut predictions = Vec::with_capacity(self.data.images.len());
        let mut pulse = Pulse::new(self.data.images.len());
        for batch in image_batches(&self.data, &self.store, self.settings.batch_size, self.data_settings) {
            let batch = batch?;
            pulse.add(batch.size);
            for (image, words) in batch.images.iter().zip(self.decode(model, &batch, device)) {
                let image_id = self.data.images[*image].image_id.clone();
                predictions.push(Prediction { image_id, caption: self.tokenizer.decode(&words) });
            }
        }
        Ok(predictions)
    }

    fn decode(&self, model: &Vlp, batch: &ImageBatch, device: &Device) -> Vec<Vec<u32>> {
        let tensor = |values: &[f32]| region_table(values, batch.size, batch.num_regions, device);
        let t = self.tokenizer;
        let prompt = Prompt { cls: t.cls_id(), sep: t.sep_id(), mask: t.mask_id(), pad: t.pad_id() };
        let stepper = Stepper::new(model, prompt, tensor(&batch.features), tensor(&batch.positions));
        let settings = BeamSettings {
            beam_size: self.beam_size,
            max_length: self.settings.max_length,
            min_length: self.settings.min_length,
            length_penalty: self.settings.length_penalty as f32,
            no_repeat_ngram: self.settings.no_repeat_ngram,
            ignored: Vec::new(),
            end: prompt.sep,
        };
        let plain = settings.min_length == 0 && settings.no_repeat_ngram == 0;
        if self.beam_size == 1 && plain {
            return greedy(stepper, settings.max_length, prompt.sep);
        }
        beam_search(stepper, &settings).into_iter().map(|found| found.words).collect()
    }
}

/// Writes predictions as a COCO results file.
pub fn save_predictions(predictions: &[Prediction], path: &Path) -> Result<(), EvaluateError> {
    let json = serde_json::to_vec(predictions).map_err(|e| TrackError::io("write", path)(std::io::Error::other(e)))?;
    Ok(write_atomic(path, &json)?)
}

/// Scores of predictions against the references of `data` (same images, same order).
pub fn score_predictions(
    data: &CaptionData,
    predictions: &[Prediction],
    scorers: &Scorers,
    metrics: &[Metric],
) -> Result<CaptionReport, EvaluateError> {
    let entries: Vec<CaptionEntry> = data
        .images
        .iter()
        .zip(predictions)
        .map(|(image, prediction)| CaptionEntry {
            id: image.image_id.to_string(),
            candidate: prediction.caption.clone(),
            references: image.references.clone(),
        })
        .collect();
    scorers.score(&entries, metrics).map_err(|e| EvaluateError::Metrics(e.to_string()))
}

/// Writes the scores of the set and of each image, in full precision, as `vlp score --format json --per-image` prints them.
pub fn save_scores(report: &CaptionReport, predictions: &[Prediction], path: &Path) -> Result<(), EvaluateError> {
    let ids: Vec<ImageId> = predictions.iter().map(|prediction| prediction.image_id.clone()).collect();
    Ok(write_atomic(path, format!("{:#}\n", report.json(ids.len(), &ids)).as_bytes())?)
}
