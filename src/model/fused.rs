//! Steps of the network that read and write their values once, with their own backward passes, for engines whose tensors lie in
//! host memory.
//!
//! Composed of tensor operations, a layer normalisation with its dropout and residual passes over memory some thirty times. Here
//! are linear maps whose gradients come out as the weights lie, GELU, attention, and dropout with sum and
//! normalisation, as burn operations with gradients. [`applies`] says where they can be used: f32, on `flex` and on LibTorch's
//! CPU, unless the graph computes activations twice (gradient checkpointing). Everywhere else the composed operations are
//! computed, but for attention on GPUs (`attention`); they give the same numbers up to rounding. The loops are in `kernels`.

// burn marks its LibTorch backend as deprecated; it is one of the engines here, by request.
#![cfg_attr(feature = "tch", allow(deprecated))]

mod attention;
mod cached;
mod flex;
mod gradients;
mod host;
mod kernels;
#[cfg(feature = "tch")]
mod libtorch;
mod product;

use std::sync::Arc;

#[cfg(feature = "tch")]
use burn::backend::LibTorch;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, GradientCheckpointingStrategy, backend_extension};
use burn::tensor::{DType, Tensor, TensorData};

use super::device::is_gpu;
use super::host_values;
use host::Host;
use kernels::Kept;
pub use kernels::{AS_IT_IS, largest, log_sum_exp};

/// What a dropout keeps of a tensor's values.
#[derive(Debug, Clone)]
pub struct Mask {
    /// One byte per value in the order of its axes: 1 for kept, 0 for dropped, [`AS_IT_IS`] for a value without dropout.
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

/// Three linear maps of the same x `[…, in]` side by side: `weights` `[out, in]`, `biases` `[out]` each → `[…, 3 · out]`.
pub fn linear_3<const D: usize>(x: Tensor<D>, weights: [Tensor<2>; 3], biases: [Tensor<1>; 3]) -> Tensor<D> {
    linear(x, Tensor::cat(weights.into(), 0), Tensor::cat(biases.into(), 0))
}

/// Self-attention with `heads` heads: `together` `[B, T, 3 · H]` holds queries, keys and values side by side; `bias` `[B, 1, T, T]`, which gets
/// no gradient, is added to the scores; `mask` is that of the weights `[B, A, T, T]`. → `[B, T, H]`.
pub fn attention(together: Tensor<3>, bias: Tensor<4>, heads: usize, mask: Option<Mask>) -> Tensor<3> {
    Tensor::from_dispatch(Dispatch::fused_attention(together.into_dispatch(), bias.into_dispatch(), heads, mask))
}

/// Attention of queries `[B, Q, H]`, not yet divided by √D, over keys and values `[B, A, K, D]`; `bias` `[B, 1, Q, K]`, which gets no
/// gradient, is added to the scores; `mask` is that of the weights `[B, A, Q, K]`. → `[B, Q, H]`.
pub fn attention_over(
    queries: Tensor<3>,
    keys: Tensor<4>,
    values: Tensor<4>,
    bias: Tensor<4>,
    mask: Option<Mask>,
) -> Tensor<3> {
    let [keys, values, bias] = [keys, values, bias].map(Tensor::into_dispatch);
    Tensor::from_dispatch(Dispatch::fused_attention_over(queries.into_dispatch(), keys, values, bias, mask))
}

/// erf-GELU.
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::fused_gelu(x.into_dispatch()))
}

/// Dropout of `x`.
pub fn drop_out<const D: usize>(x: Tensor<D>, mask: Mask) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::fused_dropout(x.into_dispatch(), mask))
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

/// Attention of queries `[N, q, H]`, not yet divided by √D, over the keys `[B, A, D, P]` and values `[B, A, S, D]` of images, N / B rows for
/// each, and behind them the rows' own, `[N, A, t, D]` both; `bias` `[1 or N, 1, q, t]` is added to the scores of the latter; `mask` is that of the
/// weights `[N, A, q, S + t]`. Keys from column S on are not read. All
/// without graph. → `[N, q, H]`.
pub fn attention_cached(
    queries: Tensor<3>,
    image: [Tensor<4>; 2],
    text: [Tensor<4>; 2],
    bias: Tensor<4>,
    mask: Option<Mask>,
) -> Tensor<3> {
    let [image_keys, image_values] = image.map(Tensor::into_dispatch);
    let [keys, values] = text.map(Tensor::into_dispatch);
    let queries = queries.into_dispatch();
    let bias = bias.into_dispatch();
    Tensor::from_dispatch(Dispatch::attention_cached(queries, image_keys, image_values, keys, values, bias, mask))
}

/// Lets `change` loose on the values of `x`, in the order of its axes: where they lie if `x` lies in host memory and is shared with no
/// other tensor, on a copy if not. `x` is of no graph.
pub fn edit<const D: usize>(x: Tensor<D>, change: &mut dyn FnMut(&mut [f32])) -> Tensor<D> {
    let device = x.device();
    if x.dtype() == DType::F32 && !is_gpu(&device) {
        return Tensor::from_dispatch(Dispatch::edit(x.into_dispatch(), change));
    }
    let shape = x.shape();
    let mut values = host_values(x);
    change(&mut values);
    Tensor::from_data(TensorData::new(values, shape), &device)
}

/// Shows `take` the values of `x`, in the order of its axes: where they lie if that is in host memory. `x` is of no graph.
pub fn read<const D: usize>(x: &Tensor<D>, take: &mut dyn FnMut(&[f32])) {
    if x.dtype() == DType::F32 && !is_gpu(&x.device()) {
        Dispatch::read(x.clone().into_dispatch(), take);
        return;
    }
    take(&host_values(x.clone()));
}

/// Operations over tensors of no graph, by engine.
#[backend_extension(Flex, LibTorch: cfg(feature = "tch"))]
pub trait PlainOps: Backend {
    /// See [`attention_cached`].
    fn attention_cached(
        queries: FloatTensor<Self>,
        image_keys: FloatTensor<Self>,
        image_values: FloatTensor<Self>,
        text_keys: FloatTensor<Self>,
        text_values: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        mask: Option<Mask>,
    ) -> FloatTensor<Self>;
    /// See [`edit`].
    fn edit(x: FloatTensor<Self>, change: &mut dyn FnMut(&mut [f32])) -> FloatTensor<Self>;
    /// See [`read`]. Gives `x` back.
    fn read(x: FloatTensor<Self>, take: &mut dyn FnMut(&[f32])) -> FloatTensor<Self>;
}

/// The operations, by engine; those with gradients are of `Autodiff`.
#[backend_extension(Autodiff, Flex, LibTorch: cfg(feature = "tch"))]
pub trait FusedOps: Backend {
    /// See [`linear`].
    fn fused_linear(x: FloatTensor<Self>, weight: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self>;
    /// See [`attention`].
    fn fused_attention(
        together: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        heads: usize,
        mask: Option<Mask>,
    ) -> FloatTensor<Self>;
    /// See [`attention_over`].
    fn fused_attention_over(
        queries: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        mask: Option<Mask>,
    ) -> FloatTensor<Self>;
    /// See [`gelu`].
    fn fused_gelu(x: FloatTensor<Self>) -> FloatTensor<Self>;
    /// See [`drop_out`].
    fn fused_dropout(x: FloatTensor<Self>, mask: Mask) -> FloatTensor<Self>;
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
        impl PlainOps for $engine {
            fn attention_cached(
                queries: FloatTensor<Self>,
                image_keys: FloatTensor<Self>,
                image_values: FloatTensor<Self>,
                text_keys: FloatTensor<Self>,
                text_values: FloatTensor<Self>,
                bias: FloatTensor<Self>,
                mask: Option<Mask>,
            ) -> FloatTensor<Self> {
                let image = [image_keys, image_values].map(Self::in_order);
                let text = [text_keys, text_values].map(Self::in_order);
                let rest = [queries, bias].map(Self::in_order);
                host::attention_cached::<Self>(&rest[0], &image, &text, &rest[1], mask.as_ref())
            }
            fn edit(x: FloatTensor<Self>, change: &mut dyn FnMut(&mut [f32])) -> FloatTensor<Self> {
                let mut x = Self::own(x);
                change(Self::values_mut(&mut x));
                x
            }
            fn read(x: FloatTensor<Self>, take: &mut dyn FnMut(&[f32])) -> FloatTensor<Self> {
                let x = Self::in_order(x);
                take(Self::values(&x));
                x
            }
        }

        impl FusedOps for $engine {
            fn fused_linear(
                x: FloatTensor<Self>,
                weight: FloatTensor<Self>,
                bias: FloatTensor<Self>,
            ) -> FloatTensor<Self> {
                host::linear::<Self>(x, weight, bias)
            }
            fn fused_attention(
                together: FloatTensor<Self>,
                bias: FloatTensor<Self>,
                heads: usize,
                mask: Option<Mask>,
            ) -> FloatTensor<Self> {
                let together = Self::in_order(together);
                let sizes = host::sizes_together::<Self>(&together, heads);
                let inputs = host::inputs_together::<Self>(sizes, &together);
                host::attention::<Self>(sizes, inputs, bias, mask.as_ref()).1
            }
            fn fused_attention_over(
                queries: FloatTensor<Self>,
                keys: FloatTensor<Self>,
                values: FloatTensor<Self>,
                bias: FloatTensor<Self>,
                mask: Option<Mask>,
            ) -> FloatTensor<Self> {
                let parts = [queries, keys, values].map(Self::in_order);
                let sizes = host::sizes_apart::<Self>(&parts[0], &parts[1]);
                let inputs = host::inputs_apart::<Self>(sizes, &parts);
                host::attention::<Self>(sizes, inputs, bias, mask.as_ref()).1
            }
            fn fused_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
                host::gelu::<Self>(&Self::in_order(x))
            }
            fn fused_dropout(x: FloatTensor<Self>, mask: Mask) -> FloatTensor<Self> {
                host::drop_out::<Self>(x, &mask)
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
mod tests;
