//! Initial weights, drawn on the host so that every engine starts from the same numbers.

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

/// Values that a thread draws at a time; even.
const PART: usize = 1 << 16;

/// Draws parameters; the numbers of a parameter depend on (seed, name) alone.
pub(super) struct Initializer<'a> {
    seed: u64,
    deviation: f64,
    device: &'a Device,
}

impl<'a> Initializer<'a> {
    pub(super) fn new(seed: u64, deviation: f64, device: &'a Device) -> Self {
        Self { seed, deviation, device }
    }

    fn generator(&self, name: &str) -> ChaCha8Rng {
        let digest = Sha256::new().chain_update(self.seed.to_le_bytes()).chain_update(name).finalize();
        ChaCha8Rng::from_seed(digest.into())
    }

    fn parameter<const D: usize>(&self, values: Vec<f32>, shape: [usize; D]) -> Param<Tensor<D>> {
        Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), self.device))
    }

    /// N(0, deviation), by the Box–Muller transform. Drawn in parts, several at a time: each starts at its own place of
    /// the one stream of numbers.
    pub(super) fn normal(&self, name: &str, shape: [usize; 2]) -> Param<Tensor<2>> {
        let generator = self.generator(name);
        let mut values = vec![0f32; shape[0] * shape[1]];
        values.par_chunks_mut(PART).enumerate().for_each(|(part, values)| {
            let mut generator = generator.clone();
            // Two numbers of two words each make two values.
            generator.set_word_pos((part * PART * 2) as u128);
            for pair in values.chunks_mut(2) {
                let radius = (-2.0 * (1.0 - generator.random::<f64>()).ln()).sqrt() * self.deviation;
                let angle = std::f64::consts::TAU * generator.random::<f64>();
                for (value, projected) in pair.iter_mut().zip([angle.cos(), angle.sin()]) {
                    *value = (radius * projected) as f32;
                }
            }
        });
        self.parameter(values, shape)
    }

    /// U(±1/√fan_in), PyTorch's default for linear layers.
    pub(super) fn uniform<const D: usize>(&self, name: &str, shape: [usize; D], fan_in: usize) -> Param<Tensor<D>> {
        let mut generator = self.generator(name);
        let bound = 1.0 / (fan_in as f32).sqrt();
        let values = (0..shape.iter().product()).map(|_| generator.random_range(-bound..bound)).collect();
        self.parameter(values, shape)
    }

    pub(super) fn constant(&self, value: f32, size: usize) -> Param<Tensor<1>> {
        self.parameter(vec![value; size], [size])
    }
}
