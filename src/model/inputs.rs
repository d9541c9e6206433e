//! Whole sequences as tensors: from a batch's plain vectors to what the embeddings and the encoder take.
//!
//! Shape letters: B batch, R regions, F feature size, C classes, T sequence.

use burn::tensor::{Device, Int, Tensor};

use super::encoder::attention_bias;
use super::transfer::{floats, integers};

/// A batch's plain vectors, row-major.
#[derive(Debug, Clone)]
pub struct SequenceValues<'a> {
    /// B.
    pub batch: usize,
    /// R.
    pub regions: usize,
    /// T.
    pub length: usize,
    /// `[B, R, F]`.
    pub features: &'a [f32],
    /// `[B, R, 6 + C]`.
    pub positions: &'a [f32],
    /// `[B, T]`; the ids at the places of regions are not read.
    pub ids: &'a [i64],
    /// `[B, T]`.
    pub segments: &'a [i64],
    /// `[B, T, T]` 0/1, row = who looks.
    pub mask: Vec<f32>,
}

/// The same as tensors.
#[derive(Debug, Clone)]
pub struct SequenceInputs {
    /// `[B, R, F]`.
    pub features: Tensor<3>,
    /// `[B, R, 6 + C]`.
    pub positions: Tensor<3>,
    /// `[B, T − R]`: `[CLS]`, and all behind the regions.
    pub ids: Tensor<2, Int>,
    /// `[B, T]`.
    pub segments: Tensor<2, Int>,
    /// `[B, 1, T, T]`, added to the attention scores.
    pub bias: Tensor<4>,
}

impl SequenceInputs {
    /// Puts the values on `device`.
    pub fn new(values: SequenceValues, device: &Device) -> Self {
        let (size, regions, length) = (values.batch, values.regions, values.length);
        let mut ids = Vec::with_capacity(size * (length - regions));
        for row in values.ids.chunks_exact(length) {
            ids.push(row[0]);
            ids.extend(&row[regions + 1..]);
        }
        Self {
            features: region_table(values.features, size, regions, device),
            positions: region_table(values.positions, size, regions, device),
            ids: integers(ids, [size, length - regions], device),
            segments: integers(values.segments, [size, length], device),
            bias: attention_bias(floats(values.mask, [size, length, length], device)),
        }
    }
}

/// A table per image, `[B, R, ·]`.
pub fn region_table(values: &[f32], batch: usize, regions: usize, device: &Device) -> Tensor<3> {
    let width = values.len() / (batch * regions).max(1);
    floats(values, [batch, regions, width], device)
}
