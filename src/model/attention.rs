//! Attention in one call, where the engine has kernels that keep its weights on the chip.
//!
//! Composed of tensor operations, attention writes scores, softmax, dropout mask and what is left of the weights to memory,
//! `[B, A, Q, K]` each, and the backward pass reads them again. On GPUs LibTorch's `scaled_dot_product_attention` chooses one of its
//! kernels (flash, memory-efficient, cuDNN's, or composed operations where none fits); the backward pass is that of the kernel.
//! [`applies`] says where it is computed. It draws its dropout masks itself, from a seed, so a mask that another pass needs as well
//! (`DropoutStream::replayed`, `Pass::Part`) takes the composed operations, which are also what the tests hold it against.
//!
//! Shape letters: B batch, A heads, Q queries, K keys, D size of a head.

#[cfg(feature = "tch")]
mod libtorch;

use burn::tensor::{Device, Tensor};

use super::device::libtorch_gpu;
use super::layers::{Pass, draws_alone, next_key};

#[cfg(feature = "tch")]
pub use libtorch::scaled_dot_product;

/// Dropout of attention weights: the mask depends on `seed`, the shapes, and the kernel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropout {
    /// Of a weight, to be dropped.
    pub prob: f64,
    /// From `masks::key`.
    pub seed: u64,
}

/// Whether attention of queries on the device of `x`, with dropout `prob` in `pass`, is computed in one call.
pub fn applies<const N: usize>(x: &Tensor<N>, prob: f64, pass: Pass) -> bool {
    has_kernels(&x.device()) && draws_alone(prob, pass)
}

fn has_kernels(device: &Device) -> bool {
    #[cfg(all(test, feature = "tch"))]
    if tests::ON_CPU.get() {
        return !super::device::is_gpu(device) && device.clone().inner() != Device::flex();
    }
    libtorch_gpu(device).is_some()
}

/// `dropout(softmax(q·kᵀ/√D + bias))·v` over queries `[B, A, Q, D]`, which are not divided by √D, keys and values `[B, A, K, D]`; `bias`
/// `[B, 1, Q, K]`. → `[B, A, Q, D]`; none where [`applies`] is false. With dropout it takes one mask from the pass.
pub fn in_one_call(
    queries: &Tensor<4>,
    keys: &Tensor<4>,
    values: &Tensor<4>,
    bias: Option<&Tensor<4>>,
    prob: f64,
    pass: Pass,
) -> Option<Tensor<4>> {
    if !applies(queries, prob, pass) {
        return None;
    }
    let dropout = next_key(prob, pass).map(|seed| Dropout { prob, seed });
    call([queries, keys, values].map(Tensor::clone), bias.cloned(), dropout)
}

#[cfg(feature = "tch")]
fn call(inputs: [Tensor<4>; 3], bias: Option<Tensor<4>>, dropout: Option<Dropout>) -> Option<Tensor<4>> {
    Some(scaled_dot_product(inputs, bias, dropout))
}

#[cfg(not(feature = "tch"))]
fn call(_inputs: [Tensor<4>; 3], _bias: Option<Tensor<4>>, _dropout: Option<Dropout>) -> Option<Tensor<4>> {
    None
}

#[cfg(all(test, feature = "tch"))]
mod tests {
    use std::cell::Cell;

    use burn::module::{Module, ModuleVisitor, Param};
    use burn::tensor::{DType, Gradients};

    use super::*;
    use crate::config::ModelSettings;
    use crate::model::encoder::{Layer, attention_bias};
    use crate::model::layers::{DropoutStream, Part, dropout, mix};
    use crate::model::transfer::{floats, integers};
    use crate::model::{DataSizes, Vlp, host_values};

    thread_local! {
        /// Whether LibTorch's CPU counts as having kernels.
        pub static ON_CPU: Cell<bool> = const { Cell::new(false) };
    }

    /// `run` with attention in one call on LibTorch's CPU, or with composed operations.
    fn with_kernels<T>(on: bool, run: impl FnOnce() -> T) -> T {
        ON_CPU.set(on);
        let found = run();
        ON_CPU.set(false);
        found
    }

    fn device() -> Device {
        crate::model::device::open("tch-cpu").unwrap()
    }

    fn table<const N: usize>(shape: [usize; N], salt: u64, device: &Device) -> Tensor<N> {
        let value = |i: usize| (mix(i as u64 ^ (salt << 32)) >> 40) as f32 / 8_388_608.0 - 1.0;
        floats((0..shape.iter().product()).map(value).collect::<Vec<_>>(), shape, device)
    }

    fn model(dropout: f64, device: &Device) -> Vlp {
        let settings = ModelSettings {
            hidden_size: 16,
            num_hidden_layers: 3,
            num_attention_heads: 2,
            intermediate_size: 32,
            max_position_embeddings: 32,
            hidden_dropout_prob: dropout,
            attention_probs_dropout_prob: dropout,
            initializer_range: 0.3,
            ..ModelSettings::default()
        };
        let sizes = DataSizes { vocabulary: 23, region_feature_size: 5, num_region_classes: 4, answers: 0 };
        Vlp::new(&settings, sizes, 4, device)
    }

    struct Collect<'a>(&'a Gradients, Vec<Vec<f32>>);

    impl ModuleVisitor for Collect<'_> {
        fn visit_float<const N: usize>(&mut self, param: &Param<Tensor<N>>) {
            if let Some(gradient) = param.val().grad(self.0) {
                self.1.push(host_values(gradient));
            }
        }
    }

    /// Logits of words behind regions, and the gradient of a sum of them at every parameter; regions in `kind`.
    fn step(model: &Vlp, kind: DType, pass: Pass) -> Vec<Vec<f32>> {
        let device = &model.bert.encoder.layer[0].attention.self_attention.query.weight.val().device();
        let (batch, regions, length) = (3, 4, 11);
        let region = |width, salt| table([batch, regions, width], salt, device).cast(kind);
        let ids: Vec<i64> = (0..batch * (length - regions)).map(|i| (i * 5 % 23) as i64).collect();
        let ids = integers(ids, [batch, length - regions], device);
        let segments = integers(vec![4i64; batch * length], [batch, length], device);
        // Words see the regions and what is before them; the last sample has padding, which nobody sees.
        let sees = |i: usize| {
            let (sample, row, column) = (i / length / length, i / length % length, i % length);
            f32::from((column <= regions || column <= row) && !(sample == 2 && column > 8))
        };
        let mask: Vec<f32> = (0..batch * length * length).map(sees).collect();
        let bias = attention_bias(floats(mask, [batch, length, length], device));
        let embedded = model.regions(region(5, 1), region(10, 2), pass);
        let x = model.bert.embeddings.forward(ids, segments, &embedded, pass);
        let rows = integers(vec![5i64, 7, 8, 6, 9, 10, 5, 6, 7], [batch, 3], device);
        let logits = model.word_logits(model.bert.encoder.forward_rows(x, bias, rows, pass));
        let gradients = (logits.clone() * table(logits.dims(), 3, device)).sum().backward();
        let mut collect = Collect(&gradients, vec![host_values(logits)]);
        model.visit(&mut collect);
        assert!(collect.1.len() > 40, "{} parameters", collect.1.len());
        collect.1
    }

    fn norm(values: impl Iterator<Item = f32>) -> f64 {
        values.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt()
    }

    #[test]
    fn a_model_computes_what_it_does_with_composed_operations() {
        let plain = device().autodiff();
        for (graph, kind, allowed) in [
            (plain.clone(), DType::F32, 1e-5),
            (plain.clone().gradient_checkpointing(), DType::F32, 1e-5),
            // As far as two passes in bfloat16 may be apart, each some units of 2⁻⁹ from the exact one.
            (plain, DType::BF16, 0.1),
        ] {
            let model = model(0.0, &graph);
            let run = |on| with_kernels(on, || step(&model, kind, Pass::Evaluate));
            let (found, expected) = (run(true), run(false));
            assert_eq!(found.len(), expected.len());
            let all = norm(expected[1..].iter().flatten().copied());
            for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let apart = norm(found.iter().zip(expected).map(|(a, b)| a - b));
                let size = norm(expected.iter().copied()).max(0.01 * all);
                assert!(apart <= allowed * size, "{graph:?} {kind:?}, {at}: {apart:e} of {size}");
            }
            assert!(found != expected, "{kind:?}: both are composed");
        }
    }

    #[test]
    fn masks_that_another_pass_draws_again_are_composed() {
        let graph = device().autodiff();
        let model = model(0.3, &graph);
        let run = |on, stream: DropoutStream| with_kernels(on, || step(&model, DType::F32, Pass::Train(&stream)));
        assert_eq!(run(true, DropoutStream::replayed(7)), run(false, DropoutStream::new(7)));
        assert_ne!(run(true, DropoutStream::new(7)), run(false, DropoutStream::new(7)));

        let (stream, replayed, part) = (DropoutStream::new(1), DropoutStream::replayed(1), Part::default());
        let x = Tensor::<3>::zeros([1, 1, 1], &graph);
        let applies = |prob, pass| with_kernels(true, || applies(&x, prob, pass));
        assert!(applies(0.1, Pass::Evaluate) && applies(0.1, Pass::Train(&stream)));
        assert!(!applies(0.1, Pass::Train(&replayed)) && !applies(0.1, Pass::Part(&stream, &part)));
        assert!(applies(0.0, Pass::Train(&replayed)) && applies(0.0, Pass::Part(&stream, &part)));
    }

    #[test]
    fn attention_takes_one_mask_of_its_pass() {
        let graph = device().autodiff();
        let model = model(0.3, &graph);
        let layer: &Layer = &model.bert.encoder.layer[0];
        let next = |on| {
            with_kernels(on, || {
                let stream = DropoutStream::new(3);
                let x = table([2, 5, 16], 4, &graph);
                let _ = layer.attend(x.clone(), &layer.keys_values(x), None, Pass::Train(&stream));
                host_values(dropout(Tensor::<2>::ones([9, 9], &graph), 0.5, Pass::Train(&stream)))
            })
        };
        assert_eq!(next(true), next(false));
    }

    #[test]
    fn only_gpus_of_libtorch_have_kernels() {
        for name in crate::model::device::available() {
            let x = Tensor::<1>::zeros([1], &crate::model::device::open(name).unwrap().autodiff());
            assert_eq!(applies(&x, 0.1, Pass::Evaluate), name == "tch-cuda", "{name}");
        }
    }
}
