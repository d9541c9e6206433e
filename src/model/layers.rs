//! The smallest parts of the network: linear maps, layer normalisation, and dropout whose masks come from a counter.
//!
//! Weights are stored as PyTorch stores them (`[out, in]`), so that checkpoints move in and out without transposing.
//! Dropout masks are drawn on the host from (seed, call number): the same on every engine, and known again after a resume.
//! The type of the input decides in which numbers a pass computes: parameters stay f32 and are converted where a product needs them;
//! what sums or divides (normalisation, softmax) and dropout compute in f32 and give back the type they were given.

use std::cell::Cell;
use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::activation::{gelu, softmax};
use burn::tensor::{DType, Tensor, TensorData};
use rayon::prelude::*;

use super::fused::{self, Mask};
use super::packed::{Packed, Then};

/// `y = x · Wᵀ + b`.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out, in]`.
    pub weight: Param<Tensor<2>>,
    /// `[out]`.
    pub bias: Param<Tensor<1>>,
    /// Both once more, for passes without gradient ([`Linear::packed`]).
    #[module(skip)]
    pub packed: Option<Packed>,
}

impl Linear {
    /// The map of these parameters.
    pub fn new(weight: Param<Tensor<2>>, bias: Param<Tensor<1>>) -> Self {
        Self { weight, bias, packed: None }
    }

    /// The same map with its weights packed, where the engine has such products. For evaluation: what is packed does not
    /// follow when the parameters change.
    pub fn packed(self) -> Self {
        let packed = Packed::of(self.weight.val(), self.bias.val());
        Self { packed, ..self }
    }

    /// x `[…, in]` → `[…, out]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        match self.packed.as_ref().and_then(|packed| packed.forward(&x, Then::Nothing)) {
            Some(y) => y,
            None => self.plain(x),
        }
    }

    /// `gelu(forward(x))`, with the erf.
    pub fn forward_gelu<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        match self.packed.as_ref().and_then(|packed| packed.forward(&x, Then::Gelu)) {
            Some(y) => y,
            None => {
                let y = self.plain(x);
                if fused::applies(&y) { fused::gelu(y) } else { gelu(y) }
            }
        }
    }

    fn plain<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        if fused::applies(&x) {
            return fused::linear(x, self.weight.val(), self.bias.val());
        }
        let kind = x.dtype();
        burn::tensor::module::linear(x, self.weight.val().cast(kind).transpose(), Some(self.bias.val().cast(kind)))
    }
}

/// `x` in f32, whatever type it has; no operation when it has it already.
pub fn exact<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    x.cast(DType::F32)
}

/// `(x − mean) / √(variance + ε) · weight + bias` over the last axis, with the biased variance.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// `[size]`.
    pub weight: Param<Tensor<1>>,
    /// `[size]`.
    pub bias: Param<Tensor<1>>,
    /// ε.
    pub eps: f64,
}

impl LayerNorm {
    /// x `[…, size]` → the same shape.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        if fused::applies(&x) {
            return fused::norm(x, self.weight.val(), self.bias.val(), self.eps);
        }
        let kind = x.dtype();
        burn::tensor::module::layer_norm(exact(x), self.weight.val(), Some(self.bias.val()), self.eps).cast(kind)
    }
}

impl LayerNorm {
    /// `forward(dropout(x) + residual)`, all `[…, size]`.
    pub fn forward_sum<const D: usize>(&self, x: Tensor<D>, residual: Tensor<D>, prob: f64, pass: Pass) -> Tensor<D> {
        if fused::applies(&x) && fused::applies(&residual) {
            let mask = mask(&x, prob, pass);
            return fused::add_norm(x, residual, mask, self.weight.val(), self.bias.val(), self.eps);
        }
        self.forward(dropout(x, prob, pass) + residual)
    }
}

/// The source of one forward pass's dropout masks: the n-th mask of a pass depends on (seed, n) alone.
#[derive(Debug)]
pub struct DropoutStream {
    seed: u64,
    calls: Cell<u64>,
}

impl DropoutStream {
    /// `seed` must differ from pass to pass: derive it from (run seed, step, rank).
    pub fn new(seed: u64) -> Self {
        Self { seed: mix(seed), calls: Cell::new(0) }
    }

    fn next_key(&self) -> u64 {
        let call = self.calls.get();
        self.calls.set(call + 1);
        mix(self.seed ^ mix(call.wrapping_mul(GOLDEN)))
    }
}

/// Whether a forward pass trains (with dropout) or evaluates.
#[derive(Debug, Clone, Copy)]
pub enum Pass<'a> {
    /// No dropout.
    Evaluate,
    /// Dropout from this stream.
    Train(&'a DropoutStream),
    /// Dropout as the same positions have it in a larger pass over the same stream.
    Part(&'a DropoutStream, &'a Part),
}

/// Which positions of a larger pass a smaller one computes. A tensor `[b, q, H]` stands for rows of `[B, Q, H]`, one of
/// `[b, A, q, k]` for rows and columns of `[B, A, Q, K]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Part {
    /// `[b]`: sample of the larger batch; none for one that has no dropout.
    pub samples: Vec<Option<usize>>,
    /// `[q]`: row.
    pub rows: Vec<usize>,
    /// Q.
    pub all_rows: usize,
    /// `[k]`: column of the attention.
    pub columns: Vec<usize>,
    /// K.
    pub all_columns: usize,
}

impl Part {
    /// The elements of the larger tensor's mask that stand at the places of `shape` (3 or 4 axes), in order.
    fn mask(&self, shape: &[usize], prob: f64, key: u64) -> Vec<u8> {
        let (heads, width) = match *shape {
            [_, _, width] => (1, width),
            [_, heads, _, _] => (heads, self.columns.len()),
            _ => return dropout_mask(shape.iter().product(), prob, key),
        };
        let of_sample = heads * self.rows.len() * width;
        let mut mask = vec![1u8; self.samples.len() * of_sample];
        mask.par_chunks_mut(of_sample.max(1)).zip(&self.samples).for_each(|(values, sample)| {
            let Some(sample) = sample else { return };
            for (i, values) in values.chunks_exact_mut(width.max(1)).enumerate() {
                let (head, row) = (i / self.rows.len(), self.rows[i % self.rows.len()]);
                let start = (sample * heads + head) * self.all_rows + row;
                for (column, value) in values.iter_mut().enumerate() {
                    let place = match shape.len() {
                        3 => start * width + column,
                        _ => start * self.all_columns + self.columns[column],
                    };
                    *value = dropout_value(place, prob, key);
                }
            }
        });
        mask
    }
}

/// Dropout with probability `prob`: kept values are scaled by 1/(1 − prob).
pub fn dropout<const D: usize>(x: Tensor<D>, prob: f64, pass: Pass) -> Tensor<D> {
    let Some(mask) = mask(&x, prob, pass) else { return x };
    if fused::applies(&x) {
        return fused::drop_out(x, mask);
    }
    // A constant of the graph, which may have checkpoints.
    let factors: Vec<f32> = mask.bytes.par_iter().map(|kept| f32::from(*kept) * mask.scale).collect();
    let factors = Tensor::from_data(TensorData::new(factors, x.shape()), &x.device());
    let kind = x.dtype();
    exact(x).mul(factors).cast(kind)
}

/// `dropout(softmax(scores + bias))` over the last axis: `scores` `[B, A, Q, K]`, `bias` `[B, 1, Q, K]`.
pub fn attention_weights(scores: Tensor<4>, bias: Tensor<4>, prob: f64, pass: Pass) -> Tensor<4> {
    let bias_fits = |[batch, _, queries, keys]: [usize; 4]| bias.dims() == [batch, 1, queries, keys];
    if fused::applies(&scores) && fused::applies(&bias) && bias_fits(scores.dims()) {
        let mask = mask(&scores, prob, pass);
        return fused::attention_weights(scores, bias, mask);
    }
    dropout(softmax(exact(scores) + bias, 3), prob, pass)
}

/// The next mask of the pass, for the values of `x`; none where nothing is dropped.
fn mask<const D: usize>(x: &Tensor<D>, prob: f64, pass: Pass) -> Option<Mask> {
    let (Pass::Train(stream) | Pass::Part(stream, _)) = pass else { return None };
    if prob <= 0.0 {
        return None;
    }
    let key = stream.next_key();
    let bytes = match pass {
        Pass::Part(_, part) => part.mask(&x.dims(), prob, key),
        _ => dropout_mask(x.shape().num_elements(), prob, key),
    };
    Some(Mask { bytes: Arc::new(bytes), scale: (1.0 / (1.0 - prob)) as f32 })
}

/// Bytes 0 (with probability `prob`) or 1.
fn dropout_mask(size: usize, prob: f64, key: u64) -> Vec<u8> {
    const CHUNK: usize = 1 << 14;
    let threshold = (prob * 4_294_967_296.0) as u32;
    let mut mask = vec![0u8; size];
    mask.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, values)| {
        let base = key.wrapping_add(((chunk * CHUNK / 2) as u64).wrapping_mul(GOLDEN));
        for (i, pair) in values.chunks_mut(2).enumerate() {
            let bits = mix(base.wrapping_add((i as u64).wrapping_mul(GOLDEN)));
            for (value, half) in pair.iter_mut().zip([bits as u32, (bits >> 32) as u32]) {
                *value = u8::from(half >= threshold);
            }
        }
    });
    mask
}

/// Element `place` of [`dropout_mask`].
fn dropout_value(place: usize, prob: f64, key: u64) -> u8 {
    let bits = mix(key.wrapping_add((place as u64 / 2).wrapping_mul(GOLDEN)));
    let half = if place.is_multiple_of(2) { bits as u32 } else { (bits >> 32) as u32 };
    u8::from(half >= (prob * 4_294_967_296.0) as u32)
}

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection whose outputs for a counter pass as random bits.
pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_depends_on_its_key_alone_and_keeps_the_mean() {
        let a = dropout_mask(100_000, 0.1, 7);
        assert_eq!(a, dropout_mask(100_000, 0.1, 7));
        assert_ne!(a, dropout_mask(100_000, 0.1, 8));
        assert_eq!(a[..1001], dropout_mask(1001, 0.1, 7)[..]);
        assert!((0..100_000).all(|place| a[place] == dropout_value(place, 0.1, 7)));
        let dropped = a.iter().filter(|v| **v == 0).count();
        assert_eq!(dropped, 9992);
        assert!(a.iter().all(|v| *v <= 1));
    }

    #[test]
    fn a_part_has_the_masks_of_the_whole() {
        use burn::tensor::Device;
        let stream = || DropoutStream::new(5);
        let ones = |shape: [usize; 4]| Tensor::<4>::ones(shape, &Device::flex());
        let values = |t: Tensor<4>| t.into_data().try_into_vec::<f32>().unwrap();
        let whole = values(dropout(ones([3, 2, 4, 5]), 0.5, Pass::Train(&stream())));
        let part = Part {
            samples: vec![Some(2), Some(0)],
            rows: vec![3, 1],
            all_rows: 4,
            columns: vec![0, 4],
            all_columns: 5,
        };
        let some = values(dropout(ones([2, 2, 2, 2]), 0.5, Pass::Part(&stream(), &part)));
        let mut expected = Vec::new();
        for sample in [2, 0] {
            for head in 0..2 {
                for row in [3, 1] {
                    expected.extend([0, 4].map(|column| whole[((sample * 2 + head) * 4 + row) * 5 + column]));
                }
            }
        }
        assert_eq!(some, expected);
        let without = Part { samples: vec![None, Some(0)], ..part.clone() };
        let some = values(dropout(ones([2, 2, 2, 2]), 0.5, Pass::Part(&stream(), &without)));
        assert_eq!(some, [&[1.0; 8], &expected[8..]].concat());
        let whole = dropout(Tensor::<3>::ones([3, 4, 6], &Device::flex()), 0.5, Pass::Train(&stream()));
        let some = dropout(
            Tensor::<3>::ones([1, 1, 6], &Device::flex()),
            0.5,
            Pass::Part(&stream(), &Part { samples: vec![Some(1)], rows: vec![2], ..part }),
        );
        let whole: Vec<f32> = whole.into_data().try_into_vec().unwrap();
        assert_eq!(some.into_data().try_into_vec::<f32>().unwrap(), whole[(4 + 2) * 6..(4 + 3) * 6]);
    }
}
