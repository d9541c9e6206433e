//! The smallest parts of the network: linear maps, layer normalisation, and dropout whose masks come from a counter.
//!
//! Weights are stored as PyTorch stores them (`[out, in]`), so that checkpoints move in and out without transposing.
//! Dropout masks are drawn on the host from (seed, call number): the same on every engine, and known again after a resume.

use std::cell::Cell;

use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;

/// `y = x · Wᵀ + b`.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out, in]`.
    pub weight: Param<Tensor<2>>,
    /// `[out]`.
    pub bias: Param<Tensor<1>>,
}

impl Linear {
    /// x `[…, in]` → `[…, out]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        burn::tensor::module::linear(x, self.weight.val().transpose(), Some(self.bias.val()))
    }
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
        burn::tensor::module::layer_norm(x, self.weight.val(), Some(self.bias.val()), self.eps)
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
}

/// Dropout with probability `prob`: kept values are scaled by 1/(1 − prob).
pub fn dropout<const D: usize>(x: Tensor<D>, prob: f64, pass: Pass) -> Tensor<D> {
    let Pass::Train(stream) = pass else { return x };
    if prob <= 0.0 {
        return x;
    }
    let key = stream.next_key();
    let shape = x.shape();
    let mask = dropout_mask(shape.num_elements(), prob, key);
    let device = x.device().inner();
    let mask = Tensor::<D>::from_data(TensorData::new(mask, shape), &device);
    x.mul(Tensor::from_inner(mask))
}

/// Values 0 (with probability `prob`) or 1/(1 − prob).
fn dropout_mask(size: usize, prob: f64, key: u64) -> Vec<f32> {
    const CHUNK: usize = 1 << 14;
    let threshold = (prob * 4_294_967_296.0) as u32;
    let scale = (1.0 / (1.0 - prob)) as f32;
    let mut mask = vec![0f32; size];
    mask.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, values)| {
        let base = key.wrapping_add(((chunk * CHUNK / 2) as u64).wrapping_mul(GOLDEN));
        for (i, pair) in values.chunks_mut(2).enumerate() {
            let bits = mix(base.wrapping_add((i as u64).wrapping_mul(GOLDEN)));
            for (value, half) in pair.iter_mut().zip([bits as u32, (bits >> 32) as u32]) {
                *value = if half < threshold { 0.0 } else { scale };
            }
        }
    });
    mask
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
        let dropped = a.iter().filter(|v| **v == 0.0).count();
        assert_eq!(dropped, 9992);
        assert!(a.iter().all(|v| *v == 0.0 || *v == 1.0 / 0.9));
    }
}
