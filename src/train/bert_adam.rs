//! BertAdam, the optimiser of the reference, as one pass per parameter over host memory.
//!
//! Adam without bias correction, with decoupled weight decay, each tensor's gradient clipped on its own, and a step
//! count per tensor. A tensor without a gradient is left alone.
//!
//! ```text
//! g ← g · min(1, max_norm / (‖g‖ + 10⁻⁶))
//! m ← β₁·m + (1 − β₁)·g        v ← β₂·v + (1 − β₂)·g²
//! p ← p − lr · (m / (√v + ε) + decay · p)
//! ```

use std::collections::BTreeMap;

use burn::module::{ModuleVisitor, Param};
use burn::tensor::{Gradients, Tensor};

use super::schedule;
use crate::config::TrainSettings;
use crate::model::vlp::reference_key;
use crate::model::{Vlp, fused, host_floats, threads};

/// Elements a thread works on at a time.
const CHUNK: usize = 1 << 14;

/// Gradients on the host, by checkpoint name; parameters that the loss does not reach are absent.
pub type HostGradients = BTreeMap<String, Vec<f32>>;

/// Takes the parameters' gradients out of `gradients`.
pub fn host_gradients(model: &Vlp, gradients: &mut Gradients) -> HostGradients {
    take_gradients(model, gradients, |gradient| host_floats(gradient.into_data()))
}

/// Takes the parameters' gradients out of `gradients`, flat, as `keep` has them.
pub(super) fn take_gradients<T>(
    model: &Vlp,
    gradients: &mut Gradients,
    keep: impl Fn(Tensor<1>) -> T,
) -> BTreeMap<String, T> {
    struct Take<'a, T, F> {
        path: Vec<String>,
        gradients: &'a mut Gradients,
        keep: F,
        taken: BTreeMap<String, T>,
    }
    impl<T, F: Fn(Tensor<1>) -> T> ModuleVisitor for Take<'_, T, F> {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(gradient) = param.val().grad_remove(self.gradients) {
                let name = reference_key(&self.path.join("."));
                let length = gradient.shape().num_elements();
                self.taken.insert(name, (self.keep)(gradient.reshape([length])));
            }
        }
    }
    let mut take = Take { path: Vec::new(), gradients, keep, taken: BTreeMap::new() };
    burn::module::Module::visit(model, &mut take);
    take.taken
}

/// Moments of one parameter.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Moments {
    /// Updates so far.
    pub steps: u64,
    /// m.
    pub first: Vec<f32>,
    /// v.
    pub second: Vec<f32>,
}

/// The optimiser's state.
#[derive(Debug, Clone, PartialEq)]
pub struct BertAdam {
    pub(super) settings: TrainSettings,
    total_steps: u64,
    /// By checkpoint name; a parameter enters with its first gradient.
    pub moments: BTreeMap<String, Moments>,
}

impl BertAdam {
    /// `total_steps`: optimiser steps of the whole training.
    pub fn new(settings: &TrainSettings, total_steps: u64) -> Self {
        Self { settings: settings.clone(), total_steps, moments: BTreeMap::new() }
    }

    /// Learning rate of a parameter that has had `steps` updates.
    pub fn learning_rate(&self, steps: u64) -> f64 {
        let progress = steps as f64 / self.total_steps.max(1) as f64;
        self.settings.learning_rate
            * schedule::factor(self.settings.schedule, progress, self.settings.warmup_proportion)
    }

    /// One update of every parameter that has a gradient. Returns the model and the norm of all gradients before clipping.
    pub fn step(&mut self, model: Vlp, gradients: HostGradients) -> (Vlp, f64) {
        self.step_read(model, &gradients, |values, take| take(values))
    }

    /// As [`BertAdam::step`], with gradients where the engine has them.
    pub(super) fn step_with(&mut self, model: Vlp, gradients: &BTreeMap<String, Tensor<1>>) -> (Vlp, f64) {
        self.step_read(model, gradients, |values, take| fused::read(values, take))
    }

    /// `read` shows the values of one gradient.
    fn step_read<T: Sync>(
        &mut self,
        model: Vlp,
        gradients: &BTreeMap<String, T>,
        read: impl Fn(&T, &mut dyn FnMut(&[f32])) + Sync,
    ) -> (Vlp, f64) {
        let norms = Norms::of(gradients, &read);
        let model = model.edit(&|name| gradients.contains_key(name), &mut |name, values| {
            read(&gradients[name], &mut |gradient| self.update(name, values, gradient, norms.of_one(name)));
        });
        (model, norms.of_all())
    }

    /// Updates one parameter in place; `norm`: that of its gradient ([`reference_norm`]).
    pub fn update(&mut self, name: &str, values: &mut [f32], gradient: &[f32], norm: f64) {
        let steps = self.moments.get(name).map_or(0, |m| m.steps);
        let rate = self.learning_rate(steps) as f32;
        let s = &self.settings;
        let clip = match s.max_grad_norm {
            max if max > 0.0 => (max / (norm + 1e-6)).min(1.0) as f32,
            _ => 1.0,
        };
        let decay = if decays(name) { s.weight_decay as f32 } else { 0.0 };
        let (b1, b2, eps) = (s.beta1 as f32, s.beta2 as f32, s.epsilon as f32);
        let (c1, c2) = ((1.0 - s.beta1) as f32, (1.0 - s.beta2) as f32);
        let moments = self.moments.entry(name.to_owned()).or_insert_with(|| Moments {
            steps: 0,
            first: vec![0.0; values.len()],
            second: vec![0.0; values.len()],
        });
        moments.steps += 1;
        let moments = moments.first.chunks_mut(CHUNK).zip(moments.second.chunks_mut(CHUNK));
        let pieces = values.chunks_mut(CHUNK).zip(gradient.chunks(CHUNK)).zip(moments);
        threads::each(pieces, |((p, g), (m, v))| {
            for (((p, g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
                let g = g * clip;
                *m = *m * b1 + g * c1;
                *v = *v * b2 + g * g * c2;
                *p -= rate * (*m / (v.sqrt() + eps) + decay * *p);
            }
        });
    }
}

/// Norms of gradients before clipping, by checkpoint name.
struct Norms(BTreeMap<String, f64>);

impl Norms {
    /// Those of `gradients`, several at a time; `read` shows the values of one.
    fn of<T: Sync>(gradients: &BTreeMap<String, T>, read: impl Fn(&T, &mut dyn FnMut(&[f32])) + Sync) -> Self {
        let norms = threads::map(gradients.iter(), |(name, gradient)| {
            let mut norm = 0.0;
            read(gradient, &mut |values| norm = reference_norm(values));
            (name.clone(), norm)
        });
        Self(norms.into_iter().collect())
    }

    fn of_one(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or(0.0)
    }

    fn of_all(&self) -> f64 {
        self.0.values().map(|norm| norm * norm).sum::<f64>().sqrt()
    }
}

/// Whether weights of this name decay: all but biases and LayerNorm.
pub(super) fn decays(name: &str) -> bool {
    !(name.contains("bias") || name.contains("LayerNorm"))
}

/// The norm as PyTorch's CPU kernel computes it: eight f32 accumulators in turn, then their sum.
///
/// For millions of elements small ones are lost beside large sums (4·10⁻⁴ below the exact norm for 2048 × 2048), and
/// the reference clips with what is left; equal steps need the equal norm. It is also the same for any number of threads.
pub fn reference_norm(values: &[f32]) -> f64 {
    let mut lanes = [0f32; 8];
    for chunk in values.chunks(8) {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane += v * v;
        }
    }
    f64::from(lanes.iter().sum::<f32>().sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> TrainSettings {
        TrainSettings { learning_rate: 0.1, warmup_proportion: 0.5, ..TrainSettings::default() }
    }

    fn update(adam: &mut BertAdam, name: &str, values: &mut [f32], gradient: &[f32]) {
        adam.update(name, values, gradient, reference_norm(gradient));
    }

    #[test]
    fn the_first_step_moves_nothing_and_the_second_follows_the_formula() {
        let mut adam = BertAdam::new(&settings(), 4);
        let mut p = [1.0f32, -2.0];
        update(&mut adam, "w.weight", &mut p, &[0.3, 0.4]);
        assert_eq!(p, [1.0, -2.0]);
        assert_eq!(adam.moments["w.weight"].steps, 1);
        for (m, expected) in adam.moments["w.weight"].first.iter().zip([0.03, 0.04]) {
            assert!((m - expected).abs() < 1e-7, "{m} {expected}");
        }
        update(&mut adam, "w.weight", &mut p, &[3.0, 4.0]); // norm 5: clipped to [0.6, 0.8]
        let m = [0.9 * 0.03 + 0.06, 0.9 * 0.04 + 0.08];
        let v = [0.999 * 0.00009 + 0.00036, 0.999 * 0.00016 + 0.00064];
        let expected =
            [0, 1].map(|i| [1.0, -2.0][i] - 0.05 * (m[i] / (f64::sqrt(v[i]) + 1e-6) + 0.01 * [1.0, -2.0][i]));
        for (p, e) in p.iter().zip(expected) {
            assert!((f64::from(*p) - e).abs() < 1e-6, "{p} {e}");
        }
    }

    #[test]
    fn biases_and_layer_norms_do_not_decay() {
        let mut adam = BertAdam::new(&TrainSettings { warmup_proportion: 0.0, ..settings() }, 4);
        for name in ["a.bias", "a.LayerNorm.weight"] {
            let mut p = [5.0f32];
            update(&mut adam, name, &mut p, &[0.0]);
            assert_eq!(p, [5.0]);
        }
        let mut p = [5.0f32];
        update(&mut adam, "a.weight", &mut p, &[0.0]);
        assert!((p[0] - (5.0 - 0.1 * 0.01 * 5.0)).abs() < 1e-6);
    }
}
