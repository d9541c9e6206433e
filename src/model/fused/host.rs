//! The operations without gradient, over engines whose tensors lie in host memory.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::Shape;

use super::Mask;
use super::attention::{self, Inputs, Sizes};
use super::cached;
use super::kernels::{self, Norm};

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

    /// `a · b` for matrices with their axes in any order.
    fn product(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::float_matmul(a, b)
    }

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

/// [`super::gelu`] of a tensor in order.
pub fn gelu<B: Host>(x: &FloatTensor<B>) -> FloatTensor<B> {
    let mut out = B::blank(x.shape());
    kernels::gelu(B::values(x), B::values_mut(&mut out));
    out
}

/// [`super::drop_out`].
pub fn drop_out<B: Host>(x: FloatTensor<B>, mask: &Mask) -> FloatTensor<B> {
    let x = B::in_order(x);
    let mut out = B::blank(x.shape());
    kernels::drop_out(mask.kept(), B::values(&x), B::values_mut(&mut out));
    out
}

/// Sizes of self-attention over queries, keys and values side by side, `[B, T, 3 · A · D]`.
pub fn sizes_together<B: Host>(together: &FloatTensor<B>, heads: usize) -> Sizes {
    let shape = together.shape();
    Sizes { samples: shape[0], queries: shape[1], keys: shape[1], heads, size: shape[2] / 3 / heads.max(1) }
}

/// Sizes of attention of queries `[B, Q, A · D]` over keys `[B, A, K, D]`.
pub fn sizes_apart<B: Host>(queries: &FloatTensor<B>, keys: &FloatTensor<B>) -> Sizes {
    let shape = keys.shape();
    Sizes { samples: shape[0], queries: queries.shape()[1], keys: shape[2], heads: shape[1], size: shape[3] }
}

/// The softmax `[B, A, Q, K]` and the context `[B, Q, H]` of attention.
pub fn attention<B: Host>(
    sizes: Sizes,
    inputs: Inputs,
    bias: FloatTensor<B>,
    mask: Option<&Mask>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let bias = B::in_order(bias);
    let Sizes { samples, queries, keys, heads, size } = sizes;
    let mut weights = B::blank(Shape::new([samples, heads, queries, keys]));
    let mut context = B::blank(Shape::new([samples, queries, heads * size]));
    let kept = mask.map(Mask::kept);
    let (of_weights, of_context) = (B::values_mut(&mut weights), B::values_mut(&mut context));
    attention::forward(sizes, inputs, B::values(&bias), kept, of_weights, of_context);
    (weights, context)
}

/// Queries, keys and values side by side, in order.
pub fn inputs_together<B: Host>(sizes: Sizes, together: &FloatTensor<B>) -> Inputs<'_> {
    Inputs { values: [B::values(together); 3], layouts: sizes.together() }
}

/// Queries, keys and values in tensors of their own, in order.
pub fn inputs_apart<B: Host>(sizes: Sizes, parts: &[FloatTensor<B>; 3]) -> Inputs<'_> {
    Inputs { values: parts.each_ref().map(B::values), layouts: sizes.apart() }
}

/// [`super::attention_cached`] of tensors in order.
pub fn attention_cached<B: Host>(
    queries: &FloatTensor<B>,
    [image_keys, image_values]: &[FloatTensor<B>; 2],
    [text_keys, text_values]: &[FloatTensor<B>; 2],
    bias: &FloatTensor<B>,
    mask: Option<&Mask>,
) -> FloatTensor<B> {
    let (image, text, shape) = (image_values.shape(), text_keys.shape(), queries.shape());
    let sizes = cached::Sizes {
        images: image[0],
        beams: text[0] / image[0].max(1),
        queries: shape[1],
        heads: image[1],
        size: image[3],
        image: image[2],
        padded: image_keys.shape()[3],
        text: text[2],
    };
    let inputs = cached::Inputs {
        queries: B::values(queries),
        image_keys: B::values(image_keys),
        image_values: B::values(image_values),
        text_keys: B::values(text_keys),
        text_values: B::values(text_values),
        bias: B::values(bias),
        kept: mask.map(Mask::kept),
    };
    let mut out = B::blank(shape);
    cached::forward(sizes, inputs, B::values_mut(&mut out));
    out
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
    kernels::add_norm(norm, mask.map(Mask::kept), residual, rows, &mut inverse, B::values_mut(&mut out));
    Normalised { normal, inverse, out }
}
