//! The loss of one batch: from plain vectors to tensors on the device, to the objective of the experiment.
//!
//! What is minimised is in `objective`; the loop around it in `engine`.

use std::sync::Arc;

use burn::tensor::{DType, Device, Tensor};

use super::objective::{MaskedInputs, MaskedOptions, SelfCriticalObjective, answer_loss, masked_loss};
use super::precision;
use crate::config::{DocumentFrequency, ObjectiveKind, Settings};
use crate::data::batch::Batch;
use crate::data::karpathy::CaptionData;
use crate::data::sample::Layout;
use crate::data::tokenizer::Tokenizer;
use crate::data::vqa_imdb::VqaData;
use crate::decode::{Extent, Prompt};
use crate::model::Vlp;
use crate::model::inputs::{SequenceInputs, SequenceValues, region_table};
use crate::model::layers::{DropoutStream, Pass};
use crate::model::transfer::floats;

/// What training reads.
#[derive(Debug, Clone)]
pub enum TrainingData {
    /// Captions.
    Captions(Arc<CaptionData>),
    /// Questions and answers.
    Questions(Arc<VqaData>),
}

impl TrainingData {
    /// The texts and their images.
    pub fn texts(&self) -> &Arc<CaptionData> {
        match self {
            Self::Captions(data) => data,
            Self::Questions(data) => &data.texts,
        }
    }
}

/// A loss, and what else is worth recording.
#[derive(Debug)]
pub struct StepLoss {
    /// What is minimised, `[1]`.
    pub total: Tensor<1>,
    /// Journal names and values.
    pub extras: Vec<(&'static str, f64)>,
}

/// The objective of an experiment, ready for batches.
#[derive(Debug)]
pub struct Objective<'a> {
    settings: &'a Settings,
    data: &'a TrainingData,
    layout: Layout,
    scst: Option<SelfCriticalObjective>,
}

impl<'a> Objective<'a> {
    /// Prepares the objective; corpus document frequencies are counted here.
    pub fn new(settings: &'a Settings, data: &'a TrainingData, tokenizer: &Tokenizer) -> Self {
        let layout = Layout::new(&settings.data, tokenizer);
        let scst = (settings.objective.kind == ObjectiveKind::Scst).then(|| {
            let words = settings.data.max_text_length + 1;
            let mut objective = SelfCriticalObjective {
                prompt: Prompt { cls: layout.cls, sep: layout.sep, mask: layout.mask, pad: layout.pad },
                extent: Extent { words, end: layout.sep, padding: layout.pad },
                mask: settings.scst.mask,
                corpus: None,
            };
            if settings.scst.document_frequency == DocumentFrequency::Corpus {
                let texts = data.texts();
                let mut images = vec![Vec::new(); texts.images.len()];
                for sample in &texts.samples {
                    let mut caption = layout.truncate(&sample.pieces, 0).to_vec();
                    caption.push(layout.sep);
                    images[sample.image].push(caption);
                }
                objective.corpus = Some(objective.document_frequencies(&images));
            }
            objective
        });
        Self { settings, data, layout, scst }
    }

    /// Loss of a batch on `device`, that of the model with its autodiff; `seed` decides all that is random and differs from step to step.
    pub fn loss(&self, model: &Vlp, batch: &Batch, epoch: usize, device: &Device, seed: u64) -> StepLoss {
        let kind = precision::dtype(self.settings.train.precision);
        if let Some(objective) = &self.scst {
            let [features, positions] = regions(batch, device).map(|table| table.cast(kind));
            let found = objective.loss(model, features, positions, &self.captions(batch), seed);
            let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
            let extras = vec![
                ("train/reward", mean(&found.rewards.reward)),
                ("train/sampled_cider", mean(&found.rewards.sampled)),
                ("train/greedy_cider", mean(&found.rewards.greedy)),
            ];
            return StepLoss { total: found.total, extras };
        }
        let stream = DropoutStream::new(seed);
        let pass = Pass::Train(&stream);
        let objective = &self.settings.objective;
        let total = match (self.data, &model.ans_classifier) {
            (TrainingData::Questions(data), Some(classifier)) => {
                let targets = floats(data.targets(&batch.samples), [batch.size, data.answers.len()], device);
                answer_loss(model, classifier, &inputs(batch, device, kind), targets, pass).total
            }
            _ => {
                let drop_worst = if epoch > objective.drop_after { objective.drop_worst_ratio } else { 0.0 };
                let options = MaskedOptions { label_smoothing: objective.label_smoothing, drop_worst };
                masked_loss(model, &inputs(batch, device, kind), options, pass).total
            }
        };
        StepLoss { total, extras: Vec::new() }
    }

    /// The paired captions of a batch, with their ends.
    fn captions(&self, batch: &Batch) -> Vec<Vec<u32>> {
        let rows = batch.input_ids.chunks_exact(batch.sequence_length()).zip(&batch.text_lengths);
        let start = self.layout.text_start();
        rows.map(|(row, length)| row[start..start + length].iter().map(|id| *id as u32).collect()).collect()
    }
}

/// Region features `[B, R, F]` and positions `[B, R, 6 + C]` of a batch.
fn regions(batch: &Batch, device: &Device) -> [Tensor<3>; 2] {
    [&batch.features, &batch.positions].map(|values| region_table(values, batch.size, batch.num_regions, device))
}

/// A batch as tensors on `device`, constants of the graph; regions in numbers of type `kind`, which those of the pass follow.
fn inputs(batch: &Batch, device: &Device, kind: DType) -> MaskedInputs {
    let values = SequenceValues {
        batch: batch.size,
        regions: batch.num_regions,
        length: batch.sequence_length(),
        features: &batch.features,
        positions: &batch.positions,
        ids: &batch.input_ids,
        segments: &batch.segment_ids,
        mask: batch.attention_mask(),
    };
    let SequenceInputs { features, positions, ids, segments, bias } = SequenceInputs::new(values, device);
    let [features, positions] = [features, positions].map(|table| table.cast(kind));
    MaskedInputs {
        features,
        positions,
        ids,
        segments,
        bias,
        masked_positions: batch.masked_positions.clone(),
        masked_ids: batch.masked_ids.clone(),
        masked_weights: batch.masked_weights.clone(),
        masked_regions: batch.masked_regions.clone(),
    }
}
