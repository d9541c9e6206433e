//! Steps of the network that read and write their values once, with their own backward passes, for engines whose tensors lie in
//! host memory.
//!
//! Composed of tensor operations, a layer normalisation with its dropout and residual passes over memory some thirty times. Here
//! are linear maps whose gradients come out as the weights lie, GELU, the softmax of attention and dropout with sum and
//! normalisation, as burn operations with gradients. [`applies`] says where they can be used: f32, on `flex` and on LibTorch's
//! CPU, unless the graph computes activations twice (gradient checkpointing). Everywhere else the composed operations are
//! computed; they give the same numbers up to rounding. The loops are in `kernels`.

// burn marks its LibTorch backend as deprecated; it is one of the engines here, by request.
#![cfg_attr(feature = "tch", allow(deprecated))]

mod kernels;
#[cfg(feature = "tch")]
mod libtorch;

use std::sync::Arc;

#[cfg(feature = "tch")]
use burn::backend::LibTorch;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Autodiff, Backend, Dispatch, DispatchDevice, Flex, GradientCheckpointingStrategy, TensorMetadata, backend_extension,
};
use burn::tensor::{DType, Device, Shape, Tensor};

use kernels::{Kept, Norm, Scores};

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
        && in_host_memory(&device)
        && device.gradient_checkpointing_strategy() != Some(GradientCheckpointingStrategy::Balanced)
}

fn in_host_memory(device: &Device) -> bool {
    match device.clone().inner().as_dispatch() {
        DispatchDevice::Flex(_) => true,
        #[cfg(feature = "tch")]
        DispatchDevice::LibTorch(device) => libtorch::is_cpu(device),
        #[allow(unreachable_patterns)] // with the engines of some builds
        _ => false,
    }
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

/// `normalise(dropout(x))`, `[…, H]`, with `weight` and `bias` `[H]`.
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

/// An engine whose tensors lie in the memory of this process. All tensors are f32.
pub trait Host: Backend {
    /// The values in the order of the axes.
    fn in_order(tensor: FloatTensor<Self>) -> FloatTensor<Self>;

    /// The same, shared with no other tensor.
    fn own(tensor: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Values of a tensor that is in order.
    fn values(tensor: &FloatTensor<Self>) -> &[f32];

    /// Values of a tensor that is in order and shared with no other.
    fn values_mut(tensor: &mut FloatTensor<Self>) -> &mut [f32];

    /// A tensor of any values, shared with no other.
    fn blank(shape: Shape) -> FloatTensor<Self>;

    /// `x · Wᵀ + b` for `x` `[rows, in]`.
    fn product_with_bias(x: FloatTensor<Self>, weight: FloatTensor<Self>, bias: FloatTensor<Self>)
    -> FloatTensor<Self>;

    /// A tensor of these values.
    fn of(values: &[f32]) -> FloatTensor<Self> {
        let mut tensor = Self::blank(Shape::new([values.len()]));
        Self::values_mut(&mut tensor).copy_from_slice(values);
        tensor
    }
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
                host_linear::<Self>(x, weight, bias)
            }
            fn fused_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
                host_gelu::<Self>(&Self::in_order(x))
            }
            fn fused_dropout(x: FloatTensor<Self>, mask: Mask) -> FloatTensor<Self> {
                host_dropout::<Self>(x, &mask)
            }
            fn fused_softmax(
                scores: FloatTensor<Self>,
                bias: FloatTensor<Self>,
                mask: Option<Mask>,
            ) -> FloatTensor<Self> {
                host_softmax::<Self>(scores, bias, mask.as_ref()).1
            }
            fn fused_norm(
                x: FloatTensor<Self>,
                weight: FloatTensor<Self>,
                bias: FloatTensor<Self>,
                eps: f32,
            ) -> FloatTensor<Self> {
                host_norm::<Self>(x, None, weight, bias, eps, None).out
            }
            fn fused_add_norm(
                x: FloatTensor<Self>,
                residual: FloatTensor<Self>,
                weight: FloatTensor<Self>,
                bias: FloatTensor<Self>,
                eps: f32,
                mask: Option<Mask>,
            ) -> FloatTensor<Self> {
                host_norm::<Self>(x, Some(residual), weight, bias, eps, mask.as_ref()).out
            }
        }
    };
}

without_gradient!(Flex);
#[cfg(feature = "tch")]
without_gradient!(LibTorch);

/// `tensor` `[…, n]` as `[rows, n]`.
fn as_rows<B: Host>(tensor: FloatTensor<B>) -> FloatTensor<B> {
    let tensor = B::in_order(tensor);
    let shape = tensor.shape();
    let width = shape[shape.num_dims() - 1];
    let rows = shape.num_elements() / width.max(1);
    B::float_reshape(tensor, Shape::new([rows, width]))
}

/// `shape` with another last axis.
fn with_last(shape: &Shape, last: usize) -> Shape {
    let count = shape.num_dims();
    Shape::from((0..count).map(|i| if i + 1 == count { last } else { shape[i] }).collect::<Vec<_>>())
}

fn host_linear<B: Host>(x: FloatTensor<B>, weight: FloatTensor<B>, bias: FloatTensor<B>) -> FloatTensor<B> {
    let shape = with_last(&x.shape(), weight.shape()[0]);
    B::float_reshape(B::product_with_bias(as_rows::<B>(x), weight, bias), shape)
}

fn host_gelu<B: Host>(x: &FloatTensor<B>) -> FloatTensor<B> {
    let mut out = B::blank(x.shape());
    kernels::gelu(B::values(x), B::values_mut(&mut out));
    out
}

fn host_dropout<B: Host>(x: FloatTensor<B>, mask: &Mask) -> FloatTensor<B> {
    let x = B::in_order(x);
    let mut out = B::blank(x.shape());
    kernels::drop_out(mask.kept(), B::values(&x), B::values_mut(&mut out));
    out
}

/// The softmax, and what dropout leaves of it.
fn host_softmax<B: Host>(
    scores: FloatTensor<B>,
    bias: FloatTensor<B>,
    mask: Option<&Mask>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let (mut weights, bias) = (B::own(scores), B::in_order(bias));
    let shape = weights.shape();
    let [heads, queries, keys] = [1, 2, 3].map(|axis| shape[axis]);
    let mut out = B::blank(shape);
    let scores = Scores { bias: B::values(&bias), heads, queries, keys };
    kernels::softmax(scores, mask.map(Mask::kept), B::values_mut(&mut weights), B::values_mut(&mut out));
    (weights, out)
}

/// What a normalisation computes.
struct Normalised<B: Backend> {
    /// Rows before weight and bias.
    normal: FloatTensor<B>,
    /// 1/√(variance + ε) of each row.
    inverse: Vec<f32>,
    out: FloatTensor<B>,
}

fn host_norm<B: Host>(
    x: FloatTensor<B>,
    residual: Option<FloatTensor<B>>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
    eps: f32,
    mask: Option<&Mask>,
) -> Normalised<B> {
    let (mut normal, residual) = (B::own(x), residual.map(B::in_order));
    let (weight, bias) = (B::in_order(weight), B::in_order(bias));
    let shape = normal.shape();
    let width = weight.shape()[0];
    let mut inverse = vec![0f32; shape.num_elements() / width.max(1)];
    let mut out = B::blank(shape);
    let norm = Norm { weight: B::values(&weight), bias: B::values(&bias), eps };
    let residual = residual.as_ref().map(B::values);
    let rows = B::values_mut(&mut normal);
    kernels::add_norm(norm, mask.map(Mask::kept), residual, rows, &mut inverse, B::values_mut(&mut out));
    Normalised { normal, inverse, out }
}

#[derive(Debug)]
struct LinearStep;

impl<B: Host> Backward<B, 3> for LinearStep {
    type State = (Option<FloatTensor<B>>, Option<FloatTensor<B>>);

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let [at_x, at_weight, at_bias] = ops.parents;
        let (x, weight) = ops.state;
        let gradient = gradients.consume::<B>(&ops.node);
        let width = gradient.shape()[gradient.shape().num_dims() - 1];
        let shape = gradient.shape();
        let gradient = as_rows::<B>(gradient);
        if let Some(node) = at_bias {
            let total = B::of(&kernels::sum_rows(B::values(&gradient), width));
            gradients.register::<B>(node.id, total);
        }
        if let (Some(node), Some(x)) = (at_weight, x) {
            let columns = B::float_swap_dims(gradient.clone(), 0, 1);
            gradients.register::<B>(node.id, B::float_matmul(columns, as_rows::<B>(x)));
        }
        if let (Some(node), Some(weight)) = (at_x, weight) {
            let shape = with_last(&shape, weight.shape()[1]);
            gradients.register::<B>(node.id, B::float_reshape(B::float_matmul(gradient, weight), shape));
        }
    }
}

#[derive(Debug)]
struct GeluStep;

impl<B: Host> Backward<B, 1> for GeluStep {
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        if let [Some(node)] = ops.parents {
            let mut gradient = B::own(gradient);
            kernels::gelu_backward(B::values(&ops.state), B::values_mut(&mut gradient));
            gradients.register::<B>(node.id, gradient);
        }
    }
}

#[derive(Debug)]
struct DropoutStep;

impl<B: Host> Backward<B, 1> for DropoutStep {
    type State = Mask;

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        if let [Some(node)] = ops.parents {
            gradients.register::<B>(node.id, host_dropout::<B>(gradient, &ops.state));
        }
    }
}

#[derive(Debug)]
struct SoftmaxStep;

impl<B: Host> Backward<B, 1> for SoftmaxStep {
    /// The softmax before dropout, and the mask.
    type State = (FloatTensor<B>, Option<Mask>);

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let (weights, mask) = ops.state;
        if let [Some(node)] = ops.parents {
            let mut gradient = B::own(gradient);
            let (keys, kept) = (weights.shape()[3], mask.as_ref().map(Mask::kept));
            kernels::softmax_backward(keys, kept, B::values(&weights), B::values_mut(&mut gradient));
            gradients.register::<B>(node.id, gradient);
        }
    }
}

/// Parents: x, residual, weight, bias; without residual, x stands in its place and gets no gradient from there.
#[derive(Debug)]
struct NormStep;

/// What the backward pass of a normalisation reads.
#[derive(Debug, Clone)]
struct NormState<B: Backend> {
    weight: FloatTensor<B>,
    normal: FloatTensor<B>,
    inverse: Arc<Vec<f32>>,
    mask: Option<Mask>,
}

impl<B: Host> NormState<B> {
    /// Gradient at the sum, at the weight, at the bias.
    fn gradients(&self, gradient: FloatTensor<B>) -> [FloatTensor<B>; 3] {
        let mut gradient = B::own(gradient);
        let (weight, normal) = (B::values(&self.weight), B::values(&self.normal));
        let found = kernels::add_norm_backward(weight, normal, &self.inverse, B::values_mut(&mut gradient));
        [gradient, B::of(&found.weight), B::of(&found.bias)]
    }
}

impl<B: Host> Backward<B, 3> for NormStep {
    type State = NormState<B>;

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        for (node, found) in ops.parents.into_iter().zip(ops.state.gradients(gradient)) {
            if let Some(node) = node {
                gradients.register::<B>(node.id, found);
            }
        }
    }
}

impl<B: Host> Backward<B, 4> for NormStep {
    type State = NormState<B>;

    fn backward(self, ops: Ops<Self::State, 4>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let [at_x, at_residual, at_weight, at_bias] = ops.parents;
        let [at_sum, of_weight, of_bias] = ops.state.gradients(gradient);
        if let Some(node) = at_x {
            let found = match &ops.state.mask {
                Some(mask) => host_dropout::<B>(at_sum.clone(), mask),
                None => at_sum.clone(),
            };
            gradients.register::<B>(node.id, found);
        }
        for (node, found) in [(at_residual, at_sum), (at_weight, of_weight), (at_bias, of_bias)] {
            if let Some(node) = node {
                gradients.register::<B>(node.id, found);
            }
        }
    }
}

impl<B: Host + FusedOps, C: CheckpointStrategy> FusedOps for Autodiff<B, C> {
    fn fused_linear(x: FloatTensor<Self>, weight: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x_trains, weight_trains) = (x.is_tracked(), weight.is_tracked());
        let nodes = [x.node(), weight.node(), bias.node()];
        let [x, weight, bias] = [x, weight, bias].map(|tensor| tensor.into_primitive());
        match LinearStep.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::UnTracked(step) => step.finish(host_linear::<B>(x, weight, bias)),
            OpsKind::Tracked(step) => {
                let state = (weight_trains.then(|| x.clone()), x_trains.then(|| weight.clone()));
                step.finish(state, host_linear::<B>(x, weight, bias))
            }
        }
    }

    fn fused_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let nodes = [x.node()];
        let x = B::in_order(x.into_primitive());
        let y = host_gelu::<B>(&x);
        match GeluStep.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::UnTracked(step) => step.finish(y),
            OpsKind::Tracked(step) => step.finish(x, y),
        }
    }

    fn fused_dropout(x: FloatTensor<Self>, mask: Mask) -> FloatTensor<Self> {
        let nodes = [x.node()];
        let y = host_dropout::<B>(x.into_primitive(), &mask);
        match DropoutStep.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::UnTracked(step) => step.finish(y),
            OpsKind::Tracked(step) => step.finish(mask, y),
        }
    }

    fn fused_softmax(scores: FloatTensor<Self>, bias: FloatTensor<Self>, mask: Option<Mask>) -> FloatTensor<Self> {
        let nodes = [scores.node()];
        let (weights, out) = host_softmax::<B>(scores.into_primitive(), bias.into_primitive(), mask.as_ref());
        match SoftmaxStep.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::UnTracked(step) => step.finish(out),
            OpsKind::Tracked(step) => step.finish((weights, mask), out),
        }
    }

    fn fused_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f32,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node(), bias.node()];
        let [x, weight, bias] = [x, weight, bias].map(|tensor| tensor.into_primitive());
        let weight = B::in_order(weight);
        let Normalised { normal, inverse, out } = host_norm::<B>(x, None, weight.clone(), bias, eps, None);
        let prepared: burn::backend::autodiff::ops::OpsPrep<_, B, NormState<B>, C, 3> = NormStep.prepare::<C>(nodes);
        match prepared.compute_bound().stateful() {
            OpsKind::UnTracked(step) => step.finish(out),
            OpsKind::Tracked(step) => {
                step.finish(NormState { weight, normal, inverse: Arc::new(inverse), mask: None }, out)
            }
        }
    }

    fn fused_add_norm(
        x: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f32,
        mask: Option<Mask>,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), residual.node(), weight.node(), bias.node()];
        let [x, residual, weight, bias] = [x, residual, weight, bias].map(|tensor| tensor.into_primitive());
        let weight = B::in_order(weight);
        let Normalised { normal, inverse, out } =
            host_norm::<B>(x, Some(residual), weight.clone(), bias, eps, mask.as_ref());
        let prepared: burn::backend::autodiff::ops::OpsPrep<_, B, NormState<B>, C, 4> = NormStep.prepare::<C>(nodes);
        match prepared.compute_bound().stateful() {
            OpsKind::UnTracked(step) => step.finish(out),
            OpsKind::Tracked(step) => step.finish(NormState { weight, normal, inverse: Arc::new(inverse), mask }, out),
        }
    }
}

impl Host for Flex {
    fn in_order(tensor: FloatTensor<Self>) -> FloatTensor<Self> {
        if tensor.as_slice::<f32>().is_some() { tensor } else { tensor.to_contiguous() }
    }

    fn own(tensor: FloatTensor<Self>) -> FloatTensor<Self> {
        let whole = |tensor: &FloatTensor<Self>| {
            tensor.as_slice::<f32>().map(<[f32]>::len) == Some(tensor.storage::<f32>().len())
        };
        if tensor.is_unique() && whole(&tensor) {
            return tensor;
        }
        let tensor = Self::in_order(tensor);
        let mut copy = Self::blank(tensor.shape());
        Self::values_mut(&mut copy).copy_from_slice(Self::values(&tensor));
        copy
    }

    fn values(tensor: &FloatTensor<Self>) -> &[f32] {
        tensor.as_slice().unwrap_or_default()
    }

    fn values_mut(tensor: &mut FloatTensor<Self>) -> &mut [f32] {
        tensor.storage_mut()
    }

    fn blank(shape: Shape) -> FloatTensor<Self> {
        Self::float_empty(shape, &Default::default(), burn::tensor::FloatDType::F32)
    }

    fn product_with_bias(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let mut y = Self::own(Self::float_matmul(x, Self::float_swap_dims(weight, 0, 1)));
        let bias = Self::in_order(bias);
        kernels::add_rows(Self::values_mut(&mut y), Self::values(&bias));
        y
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;
    use burn::tensor::activation;

    use super::*;
    use crate::model::host_values;

    /// Devices whose tensors lie in host memory, in this build.
    fn devices() -> Vec<Device> {
        crate::model::device::available()
            .into_iter()
            .filter_map(|name| crate::model::device::open(name).ok())
            .filter(in_host_memory)
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

    /// Runs `fused` and `composed` over the same leaves of a graph; results and all gradients must agree.
    fn compare<const D: usize>(
        what: &str,
        device: &Device,
        leaves: &[Tensor<2>],
        run: [&dyn Fn(&[Tensor<2>]) -> Tensor<D>; 2],
    ) {
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
