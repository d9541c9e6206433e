//! The golden fixtures that the binary carries: inputs and outputs of the reference on a toy world of six images.
//!
//! They are those of `tests/golden/`, of which the whole is run by the tests; here is what one pass over a new device
//! needs. Reads and builds; compares nothing.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use burn::tensor::{Device, Int, Tensor, TensorData};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::config::ModelSettings;
use crate::decode::Prompt;
use crate::formats::StateDict;
use crate::model::encoder::attention_bias;
use crate::model::weights::{self, LoadOptions, LoadReport};
use crate::model::{DataSizes, Vlp};
use crate::train::objective::MaskedInputs;

/// A fixture that cannot be read: the binary was built from damaged files.
#[derive(Debug, thiserror::Error)]
#[error("the built-in golden data `{name}` cannot be read: {reason}\n  help: build again from a clean checkout")]
pub struct GoldenError {
    name: String,
    reason: String,
}

/// A file below `tests/golden/`, as it lies there (gzip or plain).
#[derive(Debug, Clone, Copy)]
pub struct Fixture {
    name: &'static str,
    stored: &'static [u8],
}

macro_rules! fixture {
    ($($part:literal),+) => {
        Fixture { name: concat!($($part),+), stored: include_bytes!(concat!("../../../tests/golden/", $($part),+)) }
    };
}

const MODEL: Fixture = fixture!("model.legacy.bin.gz");
const MODEL_SIZES: Fixture = fixture!("bert_config.json");
const SIZES: Fixture = fixture!("config.json");
const IMAGES: Fixture = fixture!("images.safetensors.gz");

macro_rules! case {
    ($name:literal) => {
        ($name, fixture!("forward/", $name, ".in.safetensors.gz"), fixture!("forward/", $name, ".json.gz"))
    };
}

/// Name, batch and expectation of every variant of the loss.
pub const LOSSES: [(&str, Fixture, Fixture); 8] = [
    case!("s2s"),
    case!("bi"),
    case!("mixed"),
    case!("s2s_regions"),
    case!("drop_worst"),
    case!("smoothed"),
    case!("vqa"),
    case!("no_masks"),
];
/// Outputs of the network for the batch `mixed`.
pub const MIXED: [Fixture; 2] =
    [fixture!("forward/mixed.in.safetensors.gz"), fixture!("forward/mixed.out.safetensors.gz")];
/// Optimiser steps.
pub const STEPS: Fixture = fixture!("optim/optim.json.gz");
/// Their batches, in turn.
pub const STEP_BATCHES: [Fixture; 2] =
    [fixture!("optim/batch0.safetensors.gz"), fixture!("optim/batch1.safetensors.gz")];
/// Self-critical training with given samples.
pub const SELF_CRITICAL: [Fixture; 2] = [fixture!("scst/scst.json.gz"), fixture!("scst/scst.safetensors.gz")];
/// Decoding: settings and captions; images; greedy words and logits.
pub const DECODING: [Fixture; 3] =
    [fixture!("decode/decode.json.gz"), fixture!("decode/in.safetensors.gz"), fixture!("decode/greedy.safetensors.gz")];

impl Fixture {
    fn error(&self, reason: impl ToString) -> GoldenError {
        GoldenError { name: self.name.to_owned(), reason: reason.to_string() }
    }

    fn bytes(&self) -> Result<Vec<u8>, GoldenError> {
        if !self.name.ends_with(".gz") {
            return Ok(self.stored.to_vec());
        }
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(self.stored).read_to_end(&mut bytes).map_err(|e| self.error(e))?;
        Ok(bytes)
    }

    /// A JSON file.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, GoldenError> {
        serde_json::from_slice(&self.bytes()?).map_err(|e| self.error(e))
    }

    /// A safetensors file.
    pub fn arrays(&self) -> Result<Arrays, GoldenError> {
        let bytes = self.bytes()?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| self.error(e))?;
        let mut arrays = BTreeMap::new();
        for (name, view) in file.iter() {
            let data = view.data();
            let (halves, singles) = (data.as_chunks::<2>().0, data.as_chunks::<4>().0);
            let doubles = data.as_chunks::<8>().0;
            let values: Vec<f64> = match view.dtype() {
                Dtype::F16 => halves.iter().map(|b| half::f16::from_le_bytes(*b).to_f64()).collect(),
                Dtype::F32 => singles.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
                Dtype::F64 => doubles.iter().map(|b| f64::from_le_bytes(*b)).collect(),
                Dtype::I64 => doubles.iter().map(|b| i64::from_le_bytes(*b) as f64).collect(),
                Dtype::U8 => data.iter().map(|b| f64::from(*b)).collect(),
                other => return Err(self.error(format!("`{name}` has elements of type {other:?}"))),
            };
            arrays.insert(name.to_owned(), Array { shape: view.shape().to_vec(), values });
        }
        Ok(Arrays { file: *self, arrays })
    }
}

/// The tensors of a safetensors file.
#[derive(Debug)]
pub struct Arrays {
    file: Fixture,
    arrays: BTreeMap<String, Array>,
}

/// Shape and values of a tensor.
#[derive(Debug, Clone, Default)]
pub struct Array {
    /// Length of each axis.
    pub shape: Vec<usize>,
    /// Values, last axis fastest.
    pub values: Vec<f64>,
}

impl Arrays {
    /// The tensor `name`, which has `axes` axes.
    pub fn get(&self, name: &str, axes: usize) -> Result<&Array, GoldenError> {
        let found = self.arrays.get(name).filter(|array| array.shape.len() == axes);
        found.ok_or_else(|| self.file.error(format!("no tensor `{name}` of {axes} axes")))
    }

    /// Tensors whose name starts with `prefix`, by the rest of their name.
    pub fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a Array)> {
        self.arrays.iter().filter_map(move |(name, array)| Some((name.strip_prefix(prefix)?, array)))
    }

    /// The integers of `name`; none where there is no such tensor.
    pub fn integers(&self, name: &str) -> Vec<i64> {
        self.arrays.get(name).map(Array::integers).unwrap_or_default()
    }
}

impl Array {
    /// As integers.
    pub fn integers(&self) -> Vec<i64> {
        self.values.iter().map(|v| *v as i64).collect()
    }

    /// As f32.
    pub fn floats(&self) -> Vec<f32> {
        self.values.iter().map(|v| *v as f32).collect()
    }

    /// As token ids.
    pub fn words(&self) -> Vec<u32> {
        self.values.iter().map(|v| *v as u32).collect()
    }

    /// As a float tensor of as many axes.
    pub fn tensor<const D: usize>(&self, device: &Device) -> Tensor<D> {
        Tensor::from_data(TensorData::new(self.floats(), self.shape.clone()), device)
    }

    /// Rows of the first axis.
    fn rows(&self, index: &[i64]) -> Array {
        let width: usize = self.shape.iter().skip(1).product();
        let row = |i: &i64| self.values.chunks_exact(width.max(1)).nth(*i as usize).unwrap_or_default();
        let shape = [&[index.len()], &self.shape[1..]].concat();
        Array { shape, values: index.iter().flat_map(row).copied().collect() }
    }
}

/// Sizes of the toy world.
#[derive(Debug, Deserialize)]
struct WorldSizes {
    num_answers: usize,
    pad_id: u32,
    cls_id: u32,
    sep_id: u32,
    mask_id: u32,
}

#[derive(Debug, Deserialize)]
struct NetworkSizes {
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    max_position_embeddings: usize,
    type_vocab_size: usize,
}

/// The toy world: its images, the ids of its special tokens, and its model.
#[derive(Debug)]
pub struct World {
    features: Array,
    positions: Array,
    /// Special tokens.
    pub prompt: Prompt,
    answers: usize,
    network: NetworkSizes,
}

impl World {
    /// Unpacks it.
    pub fn open() -> Result<Self, GoldenError> {
        let images = IMAGES.arrays()?;
        let sizes: WorldSizes = SIZES.json()?;
        let WorldSizes { cls_id: cls, sep_id: sep, mask_id: mask, pad_id: pad, num_answers: answers } = sizes;
        Ok(Self {
            features: images.get("feats", 3)?.clone(),
            positions: images.get("vis_pe", 3)?.clone(),
            prompt: Prompt { cls, sep, mask, pad },
            answers,
            network: MODEL_SIZES.json()?,
        })
    }

    /// The trained model on `device`, read from the reference's checkpoint, and what the reading left open. No dropout.
    pub fn model(&self, device: &Device) -> Result<(Vlp, LoadReport), GoldenError> {
        let n = &self.network;
        let settings = ModelSettings {
            hidden_size: n.hidden_size,
            num_hidden_layers: n.num_hidden_layers,
            num_attention_heads: n.num_attention_heads,
            intermediate_size: n.intermediate_size,
            max_position_embeddings: n.max_position_embeddings,
            type_vocab_size: n.type_vocab_size,
            hidden_dropout_prob: 0.0,
            attention_probs_dropout_prob: 0.0,
            ..ModelSettings::default()
        };
        let sizes = DataSizes {
            vocabulary: n.vocab_size,
            region_feature_size: self.features.shape[2],
            num_region_classes: self.positions.shape[2].saturating_sub(6),
            answers: self.answers,
        };
        let file = StateDict::from_bytes(Path::new(MODEL.name), MODEL.bytes()?).map_err(|e| MODEL.error(e))?;
        let model = Vlp::new(&settings, sizes, 0, device);
        weights::fill(model, &file, LoadOptions::default()).map_err(|e| MODEL.error(e))
    }

    /// Features `[B, R, F]` and positions `[B, R, 6 + C]` of these images.
    pub fn regions(&self, images: &[i64], device: &Device) -> (Tensor<3>, Tensor<3>) {
        (self.features.rows(images).tensor(device), self.positions.rows(images).tensor(device))
    }

    /// A batch as the objectives take it; its masked regions only if `mask_regions`.
    pub fn inputs(&self, batch: &Arrays, mask_regions: bool, device: &Device) -> Result<MaskedInputs, GoldenError> {
        let (features, positions) = self.regions(&batch.integers("image"), device);
        let [size, regions, _] = features.dims();
        let (ids, segments) = (batch.get("input_ids", 2)?, batch.get("segment_ids", 2)?);
        let length = ids.shape[1];
        // [CLS], [SEP] and the text: the region places between them hold no words.
        let words = ids.integers().into_iter().enumerate().filter(|(i, _)| !(1..=regions).contains(&(i % length)));
        let words = TensorData::new(words.map(|(_, id)| id).collect(), [size, length - regions]);
        Ok(MaskedInputs {
            features,
            positions,
            ids: Tensor::<2, Int>::from_data(words, device),
            segments: Tensor::<2, Int>::from_data(TensorData::new(segments.integers(), [size, length]), device),
            bias: attention_bias(batch.get("input_mask", 3)?.tensor(device)),
            masked_positions: batch.integers("masked_pos"),
            masked_ids: batch.integers("masked_ids"),
            masked_weights: batch.integers("masked_weights").iter().map(|w| *w as f32).collect(),
            masked_regions: if mask_regions { batch.integers("vis_masked_pos") } else { Vec::new() },
        })
    }
}
