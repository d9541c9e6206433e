//! Steps of the network that read and write their values once, with their own backward passes, for engines whose tensors lie in
//! host memory.
//!
//! Composed of tensor operations, a layer normalisation with its dropout and residual passes over memory some thirty times. Here
//! are linear maps whose gradients come out as the weights lie, GELU, the softmax of attention and dropout with sum and
//! normalisation, as burn operations with gradients. [`applies`] says where they can be used: f32, on `flex` and on LibTorch's
//! CPU, unless the graph computes activations twice (gradient checkpointing). Everywhere else the composed operations are
//! computed, but for attention on GPUs (`attention`); they give the same numbers up to rounding. The loops are in `kernels`.

// burn marks its LibTorch backend as deprecated; it is one of the engines here, by request.
#![cfg_attr(feature = "tch", allow(deprecated))]

mod gradients;
mod host;
mod kernels;
#[cfg(feature = "tch")]
mod libtorch;

use std::sync::Arc;

#[cfg(feature = "tch")]
use burn::backend::LibTorch;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, GradientCheckpointingStrategy, backend_extension};
use burn::tensor::{DType, Tensor};

use super::device::is_gpu;
use host::Host;
use kernels::Kept;

/// What a dropout keeps of a tensor's values.
#[derive(Debug, Clone)]
pub struct Mask {
    /// One byte per value in the order of its axes: 1 for kept, 0 for dropped.
    pub bytes: Arc<Vec<u8>>,
    /// 1 / (1 − probability).
    pub scale: f32,
}

impl Mask {
    fn kept(&self) -> Kept<'_> {
        Kept { bytes: &self.bytes, scale: self.scale }
    }
}

/// Whether tensors like `x` can take the operations of this file.
pub fn applies<const D: usize>(x: &Tensor<D>) -> bool {
    let device = x.device();
    x.dtype() == DType::F32
        && !is_gpu(&device)
        && device.gradient_checkpointing_strategy() != Some(GradientCheckpointingStrategy::Balanced)
}

/// `x · Wᵀ + b`: x `[…, in]`, `weight` `[out, in]`, `bias` `[out]` → `[…, out]`.
pub fn linear<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<D> {
    let y = Dispatch::fused_linear(x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
    Tensor::from_dispatch(y)
}

/// erf-GELU.
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::fused_gelu(x.into_dispatch()))
}

/// Dropout of `x`.
pub fn drop_out<const D: usize>(x: Tensor<D>, mask: Mask) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::fused_dropout(x.into_dispatch(), mask))
}

/// `dropout(softmax(scores + bias))`: `scores` `[B, A, Q, K]`, `bias` `[B, 1, Q, K]`, which gets no gradient.
pub fn attention_weights(scores: Tensor<4>, bias: Tensor<4>, mask: Option<Mask>) -> Tensor<4> {
    let y = Dispatch::fused_softmax(scores.into_dispatch(), bias.into_dispatch(), mask);
    Tensor::from_dispatch(y)
}

/// `normalise(x)`, `[…, H]`, with `weight` and `bias` `[H]`.
pub fn norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<D> {
    let y = Dispatch::fused_norm(x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch(), eps as f32);
    Tensor::from_dispatch(y)
}

/// `normalise(dropout(x) + residual)`, `[…, H]`, with `weight` and `bias` `[H]`.
pub fn add_norm<const D: usize>(
    x: Tensor<D>,
    residual: Tensor<D>,
    mask: Option<Mask>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    eps: f64,
) -> Tensor<D> {
    let (weight, bias) = (weight.into_dispatch(), bias.into_dispatch());
    Tensor::from_dispatch(Dispatch::fused_add_norm(
        x.into_dispatch(),
        residual.into_dispatch(),
        weight,
        bias,
        eps as f32,
        mask,
    ))
}

/// The operations, by engine; those with gradients are of `Autodiff`.
#[backend_extension(Autodiff, Flex, LibTorch: cfg(feature = "tch"))]
pub trait FusedOps: Backend {
    /// See [`linear`].
    fn fused_linear(x: FloatTensor<Self>, weight: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self>;
    /// See [`gelu`].
    fn fused_gelu(x: FloatTensor<Self>) -> FloatTensor<Self>;
    /// See [`drop_out`].
    fn fused_dropout(x: FloatTensor<Self>, mask: Mask) -> FloatTensor<Self>;
    /// See [`attention_weights`].
    fn fused_softmax(scores: FloatTensor<Self>, bias: FloatTensor<Self>, mask: Option<Mask>) -> FloatTensor<Self>;
    /// See [`norm`].
    fn fused_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f32,
    ) -> FloatTensor<Self>;
    /// See [`add_norm`].
    fn fused_add_norm(
        x: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f32,
        mask: Option<Mask>,
    ) -> FloatTensor<Self>;
}

macro_rules! without_gradient {
    ($engine:ty) => {
        impl FusedOps for $engine {
            fn fused_linear(
                x: FloatTensor<Self>,
                weight: FloatTensor<Self>,
                bias: FloatTensor<Self>,
            ) -> FloatTensor<Self> {
                host::linear::<Self>(x, weight, bias)
            }
            fn fused_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
                host::gelu::<Self>(&Self::in_order(x))
            }
            fn fused_dropout(x: FloatTensor<Self>, mask: Mask) -> FloatTensor<Self> {
                host::drop_out::<Self>(x, &mask)
            }
            fn fused_softmax(
                scores: FloatTensor<Self>,
                bias: FloatTensor<Self>,
                mask: Option<Mask>,
            ) -> FloatTensor<Self> {
                host::softmax::<Self>(scores, bias, mask.as_ref()).1
            }
            fn fused_norm(
                x: FloatTensor<Self>,
                weight: FloatTensor<Self>,
                bias: FloatTensor<Self>,
                eps: f32,
            ) -> FloatTensor<Self> {
                host::norm::<Self>(x, None, weight, bias, eps, None).out
            }
            fn fused_add_norm(
                x: FloatTensor<Self>,
                residual: FloatTensor<Self>,
                weight: FloatTensor<Self>,
                bias: FloatTensor<Self>,
                eps: f32,
                mask: Option<Mask>,
            ) -> FloatTensor<Self> {
                host::norm::<Self>(x, Some(residual), weight, bias, eps, mask.as_ref()).out
            }
        }
    };
}

without_gradient!(Flex);
#[cfg(feature = "tch")]
without_gradient!(LibTorch);

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution, activation};

    use super::*;
    use crate::model::host_values;

    /// Devices whose tensors lie in host memory, in this build.
    fn devices() -> Vec<Device> {
        crate::model::device::available()
            .into_iter()
            .filter_map(|name| crate::model::device::open(name).ok())
            .filter(|device| !is_gpu(device))
            .collect()
    }

    fn random<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
        Tensor::<D>::random(shape, Distribution::Normal(0.0, 1.0), &device.clone().inner())
    }

    fn mask(count: usize) -> Mask {
        Mask { bytes: Arc::new((0..count).map(|i| u8::from(i % 3 != 1)).collect()), scale: 1.5 }
    }

    fn factors<const D: usize>(mask: &Mask, shape: [usize; D], device: &Device) -> Tensor<D> {
        let values: Vec<f32> = mask.bytes.iter().map(|b| f32::from(*b) * mask.scale).collect();
        Tensor::from_data(burn::tensor::TensorData::new(values, shape), device)
    }

    fn assert_close(what: &str, found: &[f32], expected: &[f32]) {
        assert_eq!(found.len(), expected.len(), "{what}");
        for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!((found - expected).abs() <= 2e-5 * (1.0 + expected.abs()), "{what} {i}: {found} for {expected}");
        }
    }

    type Run<'a, const D: usize> = &'a dyn Fn(&[Tensor<2>]) -> Tensor<D>;

    /// Runs the fused and the composed form over the same leaves of a graph; results and all gradients must agree.
    fn compare<const D: usize>(what: &str, device: &Device, leaves: &[Tensor<2>], run: [Run<D>; 2]) {
        let graph = device.clone().autodiff();
        let [found, expected] = run.map(|run| {
            let leaves: Vec<Tensor<2>> =
                leaves.iter().map(|leaf| Tensor::from_data(leaf.clone().into_data(), &graph).require_grad()).collect();
            let y = run(&leaves);
            // A gradient that differs from place to place.
            let weights: Vec<f32> = (0..y.shape().num_elements()).map(|i| (i % 11) as f32 / 5.0 - 1.0).collect();
            let weights = Tensor::from_data(burn::tensor::TensorData::new(weights, y.shape()), &graph);
            let gradients = (y.clone() * weights).sum().backward();
            let mut values = vec![host_values(y)];
            values.extend(leaves.iter().map(|leaf| host_values(leaf.grad(&gradients).expect("a gradient"))));
            values
        });
        assert_eq!(found.len(), expected.len());
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert_close(&format!("{what} on {device:?}, result {i}"), found, expected);
        }
    }

    fn flat(leaf: &Tensor<2>) -> Tensor<1> {
        let [rows, columns] = leaf.dims();
        leaf.clone().reshape([rows * columns])
    }

    #[test]
    fn linear_maps_are_the_composed_ones() {
        for device in devices() {
            for [batch, rows, input, output] in [[1, 1, 1, 1], [2, 3, 5, 7], [3, 40, 33, 65]] {
                let leaves = [
                    random([batch * rows, input], &device),
                    random([output, input], &device),
                    random([1, output], &device),
                ];
                let shape = [batch, rows, input];
                compare(
                    "linear",
                    &device,
                    &leaves,
                    [
                        &|leaves| linear(leaves[0].clone().reshape(shape), leaves[1].clone(), flat(&leaves[2])),
                        &|leaves| {
                            leaves[0].clone().reshape(shape).matmul(leaves[1].clone().transpose().unsqueeze())
                                + flat(&leaves[2]).reshape([1, 1, output])
                        },
                    ],
                );
            }
        }
    }

    #[test]
    fn values_that_do_not_lie_in_order_are_brought_into_it() {
        for device in devices() {
            let leaves = [random([6, 35], &device), random([7, 6], &device), random([1, 7], &device)];
            let turned = |leaf: &Tensor<2>| leaf.clone().reshape([6, 5, 7]).permute([2, 1, 0]);
            compare(
                "linear of permuted values",
                &device,
                &leaves,
                [&|leaves| linear(turned(&leaves[0]), leaves[1].clone(), flat(&leaves[2])), &|leaves| {
                    turned(&leaves[0]).matmul(leaves[1].clone().transpose().unsqueeze())
                        + flat(&leaves[2]).reshape([1, 1, 7])
                }],
            );
            compare(
                "GELU",
                &device,
                &leaves,
                [
                    &|leaves| {
                        gelu(turned(&leaves[0]))
                            + leaves[1].clone().sum().reshape([1, 1, 1])
                            + leaves[2].clone().sum().reshape([1, 1, 1])
                    },
                    &|leaves| {
                        activation::gelu(turned(&leaves[0]))
                            + leaves[1].clone().sum().reshape([1, 1, 1])
                            + leaves[2].clone().sum().reshape([1, 1, 1])
                    },
                ],
            );
        }
    }

    #[test]
    fn gelu_and_dropout_are_the_composed_ones() {
        for device in devices() {
            let leaves = [random([70, 301], &device).mul_scalar(3.0)];
            compare(
                "GELU",
                &device,
                &leaves,
                [&|leaves| gelu(leaves[0].clone()), &|leaves| activation::gelu(leaves[0].clone())],
            );
            let mask = mask(70 * 301);
            compare(
                "dropout",
                &device,
                &leaves,
                [&|leaves| drop_out(leaves[0].clone(), mask.clone()), &|leaves| {
                    leaves[0].clone() * factors(&mask, [70, 301], &leaves[0].device())
                }],
            );
        }
    }

    #[test]
    fn attention_weights_are_the_composed_ones() {
        for device in devices() {
            let shape = [2, 3, 19, 37];
            let count = shape.iter().product::<usize>();
            let leaves = [random([2 * 3 * 19, 37], &device).mul_scalar(2.0)];
            let hidden: Vec<f32> = (0..2 * 19 * 37).map(|i| if i % 5 == 2 { -10_000.0 } else { 0.0 }).collect();
            let hidden = burn::tensor::TensorData::new(hidden, [2, 1, 19, 37]);
            let bias = |leaf: &Tensor<2>| Tensor::<4>::from_data(hidden.clone(), &leaf.device());
            for mask in [None, Some(mask(count))] {
                compare(
                    "attention",
                    &device,
                    &leaves,
                    [
                        &|leaves| attention_weights(leaves[0].clone().reshape(shape), bias(&leaves[0]), mask.clone()),
                        &|leaves| {
                            let weights = activation::softmax(leaves[0].clone().reshape(shape) + bias(&leaves[0]), 3);
                            match &mask {
                                None => weights,
                                Some(mask) => weights * factors(mask, shape, &leaves[0].device()),
                            }
                        },
                    ],
                );
            }
        }
    }

    #[test]
    fn normalisations_are_the_composed_ones() {
        for device in devices() {
            for [rows, width] in [[1, 5], [40, 33], [70, 64]] {
                let leaves = [
                    random([rows, width], &device),
                    random([rows, width], &device),
                    random([1, width], &device),
                    random([1, width], &device),
                ];
                let plain = |x: Tensor<2>, leaves: &[Tensor<2>]| {
                    burn::tensor::module::layer_norm(x, flat(&leaves[2]), Some(flat(&leaves[3])), 1e-5)
                };
                for mask in [None, Some(mask(rows * width))] {
                    compare(
                        "sum and normalisation",
                        &device,
                        &leaves,
                        [
                            &|leaves| {
                                let [x, residual] = [0, 1].map(|i| leaves[i].clone());
                                add_norm(x, residual, mask.clone(), flat(&leaves[2]), flat(&leaves[3]), 1e-5)
                            },
                            &|leaves| {
                                let x = match &mask {
                                    None => leaves[0].clone(),
                                    Some(mask) => leaves[0].clone() * factors(mask, [rows, width], &leaves[0].device()),
                                };
                                plain(x + leaves[1].clone(), leaves)
                            },
                        ],
                    );
                }
                compare(
                    "normalisation",
                    &device,
                    &leaves,
                    [
                        &|leaves| norm(leaves[0].clone() * leaves[1].clone(), flat(&leaves[2]), flat(&leaves[3]), 1e-5),
                        &|leaves| plain(leaves[0].clone() * leaves[1].clone(), leaves),
                    ],
                );
            }
        }
    }

    #[test]
    fn shared_tensors_are_left_as_they_are() {
        for device in devices() {
            let scores = random([2, 37], &device).reshape([1, 1, 2, 37]);
            let before = host_values(scores.clone());
            let bias = Tensor::<4>::zeros([1, 1, 2, 37], &device);
            let _ = attention_weights(scores.clone(), bias.clone(), None);
            let _ = attention_weights(scores.clone(), bias, Some(mask(74)));
            let x = scores.clone().reshape([2, 37]);
            let ones = Tensor::<1>::ones([37], &device);
            let _ = norm(x.clone(), ones.clone(), ones.clone(), 1e-5);
            let _ = add_norm(x.clone(), x, None, ones.clone(), ones, 1e-5);
            assert_eq!(host_values(scores), before);
        }
    }

    #[test]
    fn other_types_and_graphs_that_compute_twice_take_the_composed_operations() {
        let device = Device::flex();
        let x = Tensor::<2>::ones([2, 2], &device);
        assert!(applies(&x));
        assert!(applies(&Tensor::<2>::ones([2, 2], &device.clone().autodiff())));
        assert!(!applies(&x.cast(DType::BF16)));
        assert!(!applies(&Tensor::<2>::ones([2, 2], &device.autodiff().gradient_checkpointing())));
    }
}
