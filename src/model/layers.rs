//! The smallest parts of the network: linear maps, layer normalisation, and dropout whose masks come from a counter.
//!
//! Weights are stored as PyTorch stores them (`[out, in]`), so that checkpoints move in and out without transposing.
//! Dropout masks are made from (seed, call number): the same on every engine, and known again after a resume.
//! The type of the input decides in which numbers a pass computes: parameters stay f32 and are converted where a product needs them;
//! what sums or divides (normalisation, softmax) and dropout compute in f32 and give back the type they were given.

use std::borrow::Cow;
use std::cell::Cell;
use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::activation::{gelu, softmax};
use burn::tensor::{DType, Device, Tensor};

use super::device::is_gpu;
use super::fused::{self, AS_IT_IS, Mask};
use super::masks;
use super::packed::{Packed, Then};
use super::threads;
use super::transfer::{floats, integers};

pub use super::masks::mix;

/// `y = x · Wᵀ + b`.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out, in]`.
    pub weight: Param<Tensor<2>>,
    /// `[out]`.
    pub bias: Param<Tensor<1>>,
    /// Both once more, for passes without gradient ([`Linear::packed`]).
    #[module(skip)]
    pub packed: Option<Packed>,
}

impl Linear {
    /// The map of these parameters.
    pub fn new(weight: Param<Tensor<2>>, bias: Param<Tensor<1>>) -> Self {
        Self { weight, bias, packed: None }
    }

    /// The same map with its weights packed, where the engine has such products. For evaluation: what is packed does not
    /// follow when the parameters change.
    pub fn packed(self) -> Self {
        let packed = Packed::of(self.weight.val(), self.bias.val());
        Self { packed, ..self }
    }

    /// The same map with its weights in `kind` already, so that no pass in that type converts them again. For evaluation.
    pub fn converted(self, kind: DType) -> Self {
        Self {
            weight: self.weight.map(|weight| weight.cast(kind)),
            bias: self.bias.map(|bias| bias.cast(kind)),
            ..self
        }
    }

    /// x `[…, in]` → `[…, out]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        match self.packed.as_ref().and_then(|packed| packed.forward(&x, Then::Nothing)) {
            Some(y) => y,
            None => self.plain(x),
        }
    }

    /// `gelu(forward(x))`, with the erf.
    pub fn forward_gelu<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        match self.packed.as_ref().and_then(|packed| packed.forward(&x, Then::Gelu)) {
            Some(y) => y,
            None => {
                let y = self.plain(x);
                if fused::applies(&y) { fused::gelu(y) } else { gelu(y) }
            }
        }
    }

    fn plain<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        if fused::applies(&x) {
            return fused::linear(x, self.weight.val(), self.bias.val());
        }
        let kind = x.dtype();
        burn::tensor::module::linear(x, self.weight.val().cast(kind).transpose(), Some(self.bias.val().cast(kind)))
    }
}

/// `x` in f32, whatever type it has; no operation when it has it already.
pub fn exact<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    x.cast(DType::F32)
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
        if fused::applies(&x) {
            return fused::norm(x, self.weight.val(), self.bias.val(), self.eps);
        }
        let kind = x.dtype();
        burn::tensor::module::layer_norm(exact(x), self.weight.val(), Some(self.bias.val()), self.eps).cast(kind)
    }
}

impl LayerNorm {
    /// `forward(dropout(x) + residual)`, all `[…, size]`.
    pub fn forward_sum<const D: usize>(&self, x: Tensor<D>, residual: Tensor<D>, prob: f64, pass: Pass) -> Tensor<D> {
        if fused::applies(&x) && fused::applies(&residual) {
            let mask = host_mask(x.dims(), prob, pass);
            return fused::add_norm(x, residual, mask, self.weight.val(), self.bias.val(), self.eps);
        }
        self.forward(dropout(x, prob, pass) + residual)
    }
}

/// The source of one forward pass's dropout masks: the n-th mask of a pass depends on (seed, n) alone.
#[derive(Debug)]
pub struct DropoutStream {
    seed: u64,
    calls: Cell<u64>,
    replayed: bool,
}

impl DropoutStream {
    /// `seed` must differ from pass to pass: derive it from (run seed, step, rank).
    pub fn new(seed: u64) -> Self {
        Self { seed: mix(seed), calls: Cell::new(0), replayed: false }
    }

    /// A stream of which another pass draws the same masks again, perhaps a part of them or in other numbers.
    pub fn replayed(seed: u64) -> Self {
        Self { replayed: true, ..Self::new(seed) }
    }

    fn next_key(&self) -> u64 {
        let call = self.calls.get();
        self.calls.set(call + 1);
        masks::key(self.seed, call)
    }
}

/// Whether a forward pass trains (with dropout) or evaluates.
#[derive(Debug, Clone, Copy)]
pub enum Pass<'a> {
    /// No dropout.
    Evaluate,
    /// Dropout from this stream.
    Train(&'a DropoutStream),
    /// Dropout as the same positions have it in a larger pass over the same stream.
    Part(&'a DropoutStream, &'a Part),
}

/// Which positions of a larger pass a smaller one computes. A tensor `[b, q, H]` stands for rows of `[B, Q, H]`, one of
/// `[b, A, q, k]` for rows and columns of `[B, A, Q, K]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Part {
    /// `[b]`: sample of the larger batch; none for one that has no dropout.
    pub samples: Vec<Option<usize>>,
    /// `[q]`: row.
    pub rows: Vec<usize>,
    /// Q.
    pub all_rows: usize,
    /// `[k]`: column of the attention.
    pub columns: Vec<usize>,
    /// K.
    pub all_columns: usize,
}

impl Part {
    /// Places in the larger tensor, as a sum of one number for each axis of `shape`: sample, head, row, column. A tensor of 3 axes has
    /// one head, and columns of all its width.
    fn strides(&self, shape: &[usize]) -> Option<(usize, usize, Cow<'_, [usize]>)> {
        match *shape {
            [_, _, width] => Some((1, width, Cow::Owned((0..width).collect()))),
            [_, heads, _, _] => Some((heads, self.all_columns, Cow::Borrowed(&self.columns))),
            _ => None,
        }
    }

    /// What the larger tensor's mask has at the places of `shape` (3 or 4 axes), in order: `at(place)`, and `without` for
    /// samples that have no dropout.
    fn values<T: Copy + Send + Sync>(
        &self,
        shape: &[usize],
        without: T,
        at: impl Fn(usize) -> T + Send + Sync,
    ) -> Vec<T> {
        let Some((heads, width, columns)) = self.strides(shape) else {
            return (0..shape.iter().product()).map(at).collect();
        };
        let of_sample = heads * self.rows.len() * columns.len();
        let mut mask = vec![without; self.samples.len() * of_sample];
        threads::each(mask.chunks_mut(of_sample.max(1)).zip(&self.samples), |(values, sample)| {
            let Some(sample) = sample else { return };
            for (i, values) in values.chunks_exact_mut(columns.len().max(1)).enumerate() {
                let (head, row) = (i / self.rows.len(), self.rows[i % self.rows.len()]);
                let start = (sample * heads + head) * self.all_rows + row;
                for (column, value) in columns.iter().zip(values) {
                    *value = at(start * width + column);
                }
            }
        });
        mask
    }

    /// The elements of the larger tensor's mask that stand at the places of `shape`, in order.
    fn mask(&self, shape: &[usize], prob: f64, key: u64) -> Vec<f32> {
        let scale = masks::scale(prob);
        self.values(shape, 1.0, |place| f32::from(masks::is_kept(place, prob, key)) * scale)
    }

    /// [`Part::mask`], computed on `device`, flat.
    fn mask_on_device(&self, shape: &[usize], prob: f64, key: u64, device: &Device) -> Tensor<1> {
        let size = shape.iter().product();
        let Some((heads, width, columns)) = self.strides(shape) else {
            return masks::on_device(size, prob, key, device);
        };
        let axis = |values: Vec<usize>, shape: [usize; 4]| {
            let values: Vec<i64> = values.into_iter().map(|value| value as i64).collect();
            integers(values, shape, device)
        };
        let of_head = self.all_rows * width;
        let samples: Vec<usize> = self.samples.iter().map(|sample| sample.unwrap_or(0) * heads * of_head).collect();
        let rows: Vec<usize> = self.rows.iter().map(|row| row * width).collect();
        let (count, rows_count, columns_count) = (samples.len(), rows.len(), columns.len());
        let places = axis(samples, [count, 1, 1, 1])
            + axis((0..heads).map(|head| head * of_head).collect(), [1, heads, 1, 1])
            + axis(rows, [1, 1, rows_count, 1])
            + axis(columns.into_owned(), [1, 1, 1, columns_count]);
        let mask = masks::at(places.reshape([size]), prob, key);
        if self.samples.iter().all(Option::is_some) {
            return mask;
        }
        let has: Vec<f32> = self.samples.iter().map(|sample| f32::from(sample.is_some())).collect();
        let has = floats(has, [count, 1], device);
        let mask = mask.reshape([count, size / count]);
        (mask * has.clone() + has.neg().add_scalar(1.0)).reshape([size])
    }
}

/// Dropout with probability `prob`: kept values are scaled by 1/(1 − prob).
pub fn dropout<const D: usize>(x: Tensor<D>, prob: f64, pass: Pass) -> Tensor<D> {
    if fused::applies(&x) {
        return match host_mask(x.dims(), prob, pass) {
            Some(mask) => fused::drop_out(x, mask),
            None => x,
        };
    }
    let Some(key) = next_key(prob, pass) else { return x };
    let (size, device) = (x.shape().num_elements(), x.device());
    // A constant of the graph, which may have checkpoints.
    let factors = match pass {
        Pass::Part(_, part) if is_gpu(&device) => part.mask_on_device(&x.dims(), prob, key, &device),
        _ if is_gpu(&device) => masks::on_device(size, prob, key, &device),
        Pass::Part(_, part) => Tensor::from_data(part.mask(&x.dims(), prob, key).as_slice(), &device),
        _ => Tensor::from_data(masks::factors(&masks::on_host(size, prob, key), prob).as_slice(), &device),
    };
    let (kind, shape) = (x.dtype(), x.shape());
    exact(x).mul(factors.reshape(shape)).cast(kind)
}

/// Whether no other pass needs the next mask of `pass`.
pub(super) fn draws_alone(prob: f64, pass: Pass) -> bool {
    match pass {
        Pass::Evaluate => true,
        Pass::Train(stream) => prob == 0.0 || !stream.replayed,
        Pass::Part(..) => prob == 0.0,
    }
}

/// The key of the next mask of the pass; none where nothing is dropped.
pub(super) fn next_key(prob: f64, pass: Pass) -> Option<u64> {
    match pass {
        Pass::Train(stream) | Pass::Part(stream, _) if prob > 0.0 => Some(stream.next_key()),
        _ => None,
    }
}

/// `dropout(softmax(scores + bias))` over the last axis: `scores` `[B, A, Q, K]`, `bias` `[B, 1, Q, K]`; none is 0.
pub fn attention_weights(scores: Tensor<4>, bias: Option<Tensor<4>>, prob: f64, pass: Pass) -> Tensor<4> {
    let scores = exact(scores);
    let scores = match bias {
        Some(bias) => scores + bias,
        None => scores,
    };
    dropout(softmax(scores, 3), prob, pass)
}

/// Attention of queries `[B, Q, H]`, not yet divided by √D, over `keys` and `values` `[B, A, K, D]` with `bias` `[B, 1, Q, K]`, as one step:
/// `[B, Q, H]`. None where there is no such step.
pub fn attention_over(
    queries: &Tensor<3>,
    [keys, values]: [&Tensor<4>; 2],
    bias: Option<&Tensor<4>>,
    prob: f64,
    pass: Pass,
) -> Option<Tensor<3>> {
    let ([batch, heads, length, _], [_, count, _]) = (keys.dims(), queries.dims());
    let shape = [batch, 1, count, length];
    let suits = |bias: &Tensor<4>| fused::applies(bias) && bias.dims() == shape;
    if !(fused::applies(queries) && fused::applies(keys) && fused::applies(values) && bias.is_none_or(suits)) {
        return None;
    }
    let device = queries.device();
    let bias = bias.cloned().unwrap_or_else(|| Tensor::zeros(shape, &device.clone().inner()));
    let mask = host_mask([batch, heads, count, length], prob, pass);
    Some(fused::attention_over(queries.clone(), keys.clone(), values.clone(), bias, mask))
}

/// Whether [`attention_cached`] can take keys and values like `x`.
pub fn has_attention_cached(x: &Tensor<4>) -> bool {
    fused::applies(x) && !x.is_autodiff()
}

/// Keys `[B, A, S, D]` as [`attention_cached`] takes them: `[B, A, D, P]`, S columns and some more, so that all steps over them are whole.
pub fn turned(keys: Tensor<4>) -> Tensor<4> {
    const WHOLE: usize = 32;
    let [batch, heads, places, size] = keys.dims();
    let more = places.next_multiple_of(WHOLE) - places;
    let padding = Tensor::zeros([batch, heads, size, more], &keys.device());
    Tensor::cat(vec![keys.transpose(), padding], 3)
}

/// Attention of queries `[N, q, H]`, not yet divided by √D, over the [`turned`] keys and the values `[B, A, S, D]` of images and the rows' own
/// keys and values `[N, A, t, D]` with `bias` `[1 or N, 1, q, t]`: `[N, q, H]`.
pub fn attention_cached(
    queries: Tensor<3>,
    image: [Tensor<4>; 2],
    text: [Tensor<4>; 2],
    bias: Tensor<4>,
    prob: f64,
    pass: Pass,
) -> Tensor<3> {
    let [rows, count, _] = queries.dims();
    let ([_, heads, places, _], [_, _, words, _]) = (image[1].dims(), text[0].dims());
    let mask = host_mask([rows, heads, count, places + words], prob, pass);
    fused::attention_cached(queries, image, text, bias, mask)
}

/// Query, key and value maps of `x` `[B, T, H]` and their attention over all T places, with `heads` heads and `bias` `[B, 1, T, T]`, as one
/// step each: `[B, T, H]`. None where they have no such steps, or the maps are packed.
pub fn self_attention(
    maps: [&Linear; 3],
    x: &Tensor<3>,
    bias: &Tensor<4>,
    heads: usize,
    prob: f64,
    pass: Pass,
) -> Option<Tensor<3>> {
    let [batch, length, _] = x.dims();
    let plain = maps.iter().all(|map| map.packed.is_none());
    if !(plain && fused::applies(x) && fused::applies(bias) && bias.dims() == [batch, 1, length, length]) {
        return None;
    }
    let together = fused::linear_3(x.clone(), maps.map(|map| map.weight.val()), maps.map(|map| map.bias.val()));
    let mask = host_mask([batch, heads, length, length], prob, pass);
    Some(fused::attention(together, bias.clone(), heads, mask))
}

/// The next mask of the pass, for a tensor of this shape; none where nothing is dropped.
fn host_mask<const D: usize>(shape: [usize; D], prob: f64, pass: Pass) -> Option<Mask> {
    let key = next_key(prob, pass)?;
    let bytes = match pass {
        Pass::Part(_, part) => part.values(&shape, AS_IT_IS, |place| masks::is_kept(place, prob, key)),
        _ => masks::on_host(shape.iter().product(), prob, key),
    };
    Some(Mask { bytes: Arc::new(bytes), scale: masks::scale(prob) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::host_values;

    #[test]
    fn a_part_has_the_masks_of_the_whole() {
        use burn::tensor::Device;
        let stream = || DropoutStream::new(5);
        let ones = |shape: [usize; 4]| Tensor::<4>::ones(shape, &Device::flex());
        let values = |t: Tensor<4>| t.into_data().try_into_vec::<f32>().unwrap();
        let whole = values(dropout(ones([3, 2, 4, 5]), 0.5, Pass::Train(&stream())));
        let part = Part {
            samples: vec![Some(2), Some(0)],
            rows: vec![3, 1],
            all_rows: 4,
            columns: vec![0, 4],
            all_columns: 5,
        };
        let some = values(dropout(ones([2, 2, 2, 2]), 0.5, Pass::Part(&stream(), &part)));
        let mut expected = Vec::new();
        for sample in [2, 0] {
            for head in 0..2 {
                for row in [3, 1] {
                    expected.extend([0, 4].map(|column| whole[((sample * 2 + head) * 4 + row) * 5 + column]));
                }
            }
        }
        assert_eq!(some, expected);
        for name in crate::model::device::available() {
            let device = crate::model::device::open(name).unwrap();
            let some = [vec![Some(2), None, Some(0)], vec![Some(1), Some(2)]];
            for part in some.map(|samples| Part { samples, ..part.clone() }) {
                for shape in [vec![part.samples.len(), 2, 2, 2], vec![part.samples.len(), 2, 6]] {
                    let found = host_values(part.mask_on_device(&shape, 0.5, 99, &device));
                    assert_eq!(found, part.mask(&shape, 0.5, 99), "{name} {shape:?}");
                }
            }
        }
        let without = Part { samples: vec![None, Some(0)], ..part.clone() };
        let some = values(dropout(ones([2, 2, 2, 2]), 0.5, Pass::Part(&stream(), &without)));
        assert_eq!(some, [&[1.0; 8], &expected[8..]].concat());
        let whole = dropout(Tensor::<3>::ones([3, 4, 6], &Device::flex()), 0.5, Pass::Train(&stream()));
        let some = dropout(
            Tensor::<3>::ones([1, 1, 6], &Device::flex()),
            0.5,
            Pass::Part(&stream(), &Part { samples: vec![Some(1)], rows: vec![2], ..part }),
        );
        let whole: Vec<f32> = whole.into_data().try_into_vec().unwrap();
        assert_eq!(some.into_data().try_into_vec::<f32>().unwrap(), whole[(4 + 2) * 6..(4 + 3) * 6]);
    }
}
