//! The operations without gradient, over engines whose tensors lie in host memory.

use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Flex, TensorMetadata};
use burn::tensor::Shape;

use super::Mask;
use super::attention::{self, Sizes};
use super::kernels::{self, Norm, Scores};
use crate::model::threads::Pool;

/// An engine whose tensors lie in the memory of this process. All tensors are f32.
pub trait Host: Backend {
    /// The threads of its products.
    const POOL: Pool;

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

/// `tensor` `[…, n]` as `[rows, n]`.
pub fn as_rows<B: Host>(tensor: FloatTensor<B>) -> FloatTensor<B> {
    let tensor = B::in_order(tensor);
    let shape = tensor.shape();
    let width = shape[shape.num_dims() - 1];
    let rows = shape.num_elements() / width.max(1);
    B::float_reshape(tensor, Shape::new([rows, width]))
}

/// `shape` with another last axis.
pub fn with_last(shape: &Shape, last: usize) -> Shape {
    let count = shape.num_dims();
    Shape::from((0..count).map(|i| if i + 1 == count { last } else { shape[i] }).collect::<Vec<_>>())
}

/// [`super::linear`].
pub fn linear<B: Host>(x: FloatTensor<B>, weight: FloatTensor<B>, bias: FloatTensor<B>) -> FloatTensor<B> {
    let shape = with_last(&x.shape(), weight.shape()[0]);
    B::float_reshape(B::product_with_bias(as_rows::<B>(x), weight, bias), shape)
}

/// Three tensors, one behind the other along the first axis.
pub fn stacked<B: Host>(parts: [FloatTensor<B>; 3]) -> FloatTensor<B> {
    B::float_cat(parts.into(), 0)
}

/// [`super::gelu`] of a tensor in order.
pub fn gelu<B: Host>(x: &FloatTensor<B>) -> FloatTensor<B> {
    let mut out = B::blank(x.shape());
    kernels::gelu(B::POOL, B::values(x), B::values_mut(&mut out));
    out
}

/// [`super::drop_out`].
pub fn drop_out<B: Host>(x: FloatTensor<B>, mask: &Mask) -> FloatTensor<B> {
    let x = B::in_order(x);
    let mut out = B::blank(x.shape());
    kernels::drop_out(B::POOL, mask.kept(), B::values(&x), B::values_mut(&mut out));
    out
}

/// The softmax, and what dropout leaves of it.
pub fn softmax<B: Host>(
    scores: FloatTensor<B>,
    bias: FloatTensor<B>,
    mask: Option<&Mask>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let (mut weights, bias) = (B::own(scores), B::in_order(bias));
    let shape = weights.shape();
    let [heads, queries, keys] = [1, 2, 3].map(|axis| shape[axis]);
    let mut out = B::blank(shape);
    let scores = Scores { bias: B::values(&bias), heads, queries, keys };
    kernels::softmax(B::POOL, scores, mask.map(Mask::kept), B::values_mut(&mut weights), B::values_mut(&mut out));
    (weights, out)
}

/// B, T, A and D of queries, keys and values side by side, `[B, T, 3 · A · D]`.
pub fn attention_sizes<B: Host>(together: &FloatTensor<B>, heads: usize) -> Sizes {
    let shape = together.shape();
    Sizes { samples: shape[0], length: shape[1], heads, size: shape[2] / 3 / heads.max(1) }
}

/// The softmax `[B, A, T, T]` and the result of [`super::attention`]; `together` is in order.
pub fn attention<B: Host>(
    together: &FloatTensor<B>,
    bias: FloatTensor<B>,
    heads: usize,
    mask: Option<&Mask>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let (sizes, bias) = (attention_sizes::<B>(together, heads), B::in_order(bias));
    let Sizes { samples, length, size, .. } = sizes;
    let mut weights = B::blank(Shape::new([samples, heads, length, length]));
    let mut context = B::blank(Shape::new([samples, length, heads * size]));
    let outputs = (B::values_mut(&mut weights), B::values_mut(&mut context));
    attention::forward(
        B::POOL,
        sizes,
        B::values(together),
        B::values(&bias),
        mask.map(Mask::kept),
        outputs.0,
        outputs.1,
    );
    (weights, context)
}

/// What a normalisation computes.
pub struct Normalised<B: Backend> {
    /// Rows before weight and bias.
    pub normal: FloatTensor<B>,
    /// 1/√(variance + ε) of each row.
    pub inverse: Vec<f32>,
    /// Rows with weight and bias.
    pub out: FloatTensor<B>,
}

/// [`super::norm`] and [`super::add_norm`].
pub fn norm<B: Host>(
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
    kernels::add_norm(B::POOL, norm, mask.map(Mask::kept), residual, rows, &mut inverse, B::values_mut(&mut out));
    Normalised { normal, inverse, out }
}

impl Host for Flex {
    const POOL: Pool = Pool::Rayon;

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
        kernels::add_rows(Self::POOL, Self::values_mut(&mut y), Self::values(&bias));
        y
    }
}
