//! In which numbers a training computes, and the graph it computes in: the low type, the scale of the loss that fp16 needs,
//! gradient checkpointing.
//!
//! The network follows the type of its inputs (`model::layers`); parameters and gradients of parameters are f32.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use super::bert_adam::HostGradients;
use crate::config::Precision;
use crate::model::Vlp;

/// Steps without overflow after which the loss is scaled up: the interval of PyTorch's GradScaler.
const GROWTH_INTERVAL: u32 = 2000;

/// The largest scale: the loss itself is f32, and must stay finite.
const LARGEST: f64 = (1u64 << 32) as f64;

/// The type of activations and matrix products.
pub fn dtype(precision: Precision) -> DType {
    match precision {
        Precision::Fp32 => DType::F32,
        Precision::Bf16 => DType::BF16,
        Precision::Fp16 => DType::F16,
    }
}

/// `device` with autodiff. With `checkpointing`, what burn calls memory-bound (all but products and reductions) is computed
/// again for the backward pass where it is needed.
pub fn graph(device: &Device, checkpointing: bool) -> Device {
    let graph = device.clone().autodiff();
    if checkpointing { graph.gradient_checkpointing() } else { graph }
}

/// The parameters of a model in training form as leaves of `graph`.
pub fn in_graph(model: Vlp, graph: &Device) -> Vlp {
    struct Move<'a>(&'a Device);
    impl ModuleMapper for Move<'_> {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|old| {
                let trains = old.is_require_grad();
                let new = Tensor::from_data(old.inner().into_data(), self.0);
                if trains { new.require_grad() } else { new }
            })
        }
    }
    if graph.gradient_checkpointing_strategy()
        == Device::gradient_checkpointing_strategy(&graph.clone().inner().autodiff())
    {
        return model;
    }
    model.map(&mut Move(graph))
}

/// The factor on the loss that keeps small gradients representable in fp16. Halved when gradients overflow (that step is
/// left out), doubled after 2000 steps without.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LossScale {
    /// The factor, a power of two.
    pub factor: f64,
    /// Steps without overflow since it last changed.
    pub good_steps: u32,
}

impl Default for LossScale {
    fn default() -> Self {
        Self { factor: 65_536.0, good_steps: 0 }
    }
}

impl LossScale {
    /// Whether it is that of the start, which checkpoints do not mention.
    pub fn is_initial(&self) -> bool {
        *self == Self::default()
    }

    /// Divides gradients of the scaled loss by the factor: exact, because it is a power of two.
    pub fn remove_from(&self, gradients: &mut HostGradients) {
        let inverse = (1.0 / self.factor) as f32;
        gradients.values_mut().flatten().for_each(|value| *value *= inverse);
    }

    /// Whether a step may be made with these gradients: all are finite. Takes note of it.
    pub fn update(&mut self, gradients: &HostGradients) -> bool {
        self.note(gradients.values().flatten().all(|value| value.is_finite()))
    }

    /// As [`LossScale::update`], for gradients of which it is known whether all are finite.
    pub fn note(&mut self, finite: bool) -> bool {
        if !finite {
            *self = Self { factor: (self.factor / 2.0).max(1.0), good_steps: 0 };
            return false;
        }
        self.good_steps += 1;
        if self.good_steps >= GROWTH_INTERVAL {
            *self = Self { factor: (self.factor * 2.0).min(LARGEST), good_steps: 0 };
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gradients(value: f32) -> HostGradients {
        HostGradients::from([("w".to_owned(), vec![1.0, value])])
    }

    #[test]
    fn the_scale_falls_with_an_overflow_and_grows_after_two_thousand_steps() {
        let mut scale = LossScale::default();
        assert!(scale.is_initial());
        for value in [f32::INFINITY, f32::NAN] {
            assert!(!scale.update(&gradients(value)));
        }
        assert_eq!(scale, LossScale { factor: 16_384.0, good_steps: 0 });
        for _ in 0..1999 {
            assert!(scale.update(&gradients(2.0)));
        }
        assert_eq!(scale, LossScale { factor: 16_384.0, good_steps: 1999 });
        assert!(scale.update(&gradients(2.0)));
        assert_eq!(scale, LossScale { factor: 32_768.0, good_steps: 0 });
        let mut lowest = LossScale { factor: 1.0, good_steps: 0 };
        assert!(!lowest.update(&gradients(f32::NAN)));
        assert_eq!(lowest.factor, 1.0);
    }

    #[test]
    fn the_scale_is_taken_out_exactly() {
        let mut found = gradients(65_536.0 / 3.0);
        LossScale::default().remove_from(&mut found);
        assert_eq!(found["w"], [1.0 / 65_536.0, (65_536.0f32 / 3.0) / 65_536.0]);
    }
}
