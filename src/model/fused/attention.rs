//! Attention over rows of queries, keys and values where they lie: one head of one sample at a time, whose scores stay in the processor's
//! cache between the products.
//!
//! ```text
//! P = softmax(Q·Kᵀ/√D + bias)     P′ = dropout(P)      O = P′·V
//! ∂V = P′ᵀ·∂O                     ∂P′ = ∂O·Vᵀ          ∂S = P ∘ (∂P − Σ P ∘ ∂P)
//! ∂Q = ∂S·K/√D                    ∂K = ∂Sᵀ·Q/√D
//! ```
//!
//! Each head is computed by one thread: the bits are the same for any number of threads.

use super::kernels::{Kept, drop_out_here, softmax, softmax_backward};
use super::product::{Place, product};
use crate::model::threads;

/// B, Q, K, A and D.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// B.
    pub samples: usize,
    /// Q.
    pub queries: usize,
    /// K.
    pub keys: usize,
    /// A.
    pub heads: usize,
    /// D.
    pub size: usize,
}

impl Sizes {
    /// H = A · D.
    fn hidden(self) -> usize {
        self.heads * self.size
    }

    /// Scores of a head of a sample.
    fn scores(self) -> usize {
        self.queries * self.keys
    }

    /// 1/√D.
    fn factor(self) -> f32 {
        1.0 / (self.size as f32).sqrt()
    }

    /// Where queries, keys and values lie that are side by side, `[B, T, 3 · H]`.
    pub fn together(self) -> [Layout; 3] {
        let row = 3 * self.hidden();
        [0, 1, 2].map(|part| Layout { start: part * self.hidden(), sample: self.queries * row, head: self.size, row })
    }

    /// Where queries `[B, Q, H]`, keys and values `[B, A, K, D]` lie, each in a tensor of its own.
    pub fn apart(self) -> [Layout; 3] {
        let head = self.keys * self.size;
        let keys = Layout { start: 0, sample: self.heads * head, head, row: self.size };
        [self.context(), keys, keys]
    }

    /// Where the context `[B, Q, H]` lies.
    fn context(self) -> Layout {
        Layout { start: 0, sample: self.queries * self.hidden(), head: self.size, row: self.hidden() }
    }

    /// A matrix of scores that fills its slice.
    fn square(self) -> Place {
        Place { start: 0, row: self.keys, column: 1 }
    }
}

/// Where the rows of each sample and head lie in a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    start: usize,
    /// From sample to sample.
    sample: usize,
    /// From head to head.
    head: usize,
    /// From row to row.
    row: usize,
}

impl Layout {
    fn of(self, sample: usize, head: usize) -> Place {
        Place { start: self.start + sample * self.sample + head * self.head, row: self.row, column: 1 }
    }
}

/// Queries, keys and values.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The tensors: three times the same where they lie side by side.
    pub values: [&'a [f32]; 3],
    /// Where in each.
    pub layouts: [Layout; 3],
}

impl<'a> Inputs<'a> {
    fn of(&self, sample: usize, head: usize) -> [(&'a [f32], Place); 3] {
        [0, 1, 2].map(|i| (self.values[i], self.layouts[i].of(sample, head)))
    }
}

/// Where the gradients at [`Inputs`] go.
#[derive(Debug)]
pub enum Outputs<'a> {
    /// Side by side.
    Together(&'a mut [f32]),
    /// Each to a tensor of its own.
    Apart([&'a mut [f32]; 3]),
}

impl<'a> Outputs<'a> {
    /// Those of each sample.
    fn split(self, layouts: [Layout; 3]) -> Vec<Outputs<'a>> {
        match self {
            Self::Together(all) => all.chunks_mut(layouts[0].sample.max(1)).map(Outputs::Together).collect(),
            Self::Apart([query, key, value]) => {
                let [at_query, at_key, at_value] = layouts.map(|layout| layout.sample.max(1));
                let samples = query.chunks_mut(at_query).zip(key.chunks_mut(at_key)).zip(value.chunks_mut(at_value));
                samples.map(|((query, key), value)| Outputs::Apart([query, key, value])).collect()
            }
        }
    }

    fn part(&mut self, i: usize) -> &mut [f32] {
        match self {
            Self::Together(all) => all,
            Self::Apart(parts) => parts[i],
        }
    }
}

/// `bias` `[B · Q, K]` is added to the scores; `kept` of the weights `[B, A, Q, K]`. Gives the softmax `weights` `[B, A, Q, K]` and the
/// `context` `[B, Q, H]`.
pub fn forward(
    sizes: Sizes,
    inputs: Inputs,
    bias: &[f32],
    kept: Option<Kept>,
    weights: &mut [f32],
    context: &mut [f32],
) {
    let Sizes { queries, keys, heads, size, .. } = sizes;
    let of_sample = heads * sizes.scores();
    let samples = weights.chunks_mut(of_sample.max(1)).zip(context.chunks_mut(sizes.context().sample.max(1)));
    threads::each(samples.enumerate(), |(sample, (weights, context))| {
        let bias = &bias[sample * sizes.scores()..][..sizes.scores()];
        let mut left = vec![0f32; sizes.scores()];
        for (head, weights) in weights.chunks_exact_mut(sizes.scores()).enumerate() {
            let [query, (key, at_key), value] = inputs.of(sample, head);
            let key = (key, at_key.transposed());
            product([queries, size, keys], sizes.factor(), query, key, (weights, sizes.square()));
            let kept = kept.map(|kept| kept.part(sample * of_sample + head * sizes.scores(), sizes.scores()));
            softmax(keys, bias, kept, weights, &mut left);
            let out = (&mut *context, sizes.context().of(0, head));
            product([queries, keys, size], 1.0, (&left, sizes.square()), value, out);
        }
    });
}

/// The gradients at the inputs, from that at the context and what [`forward`] gave.
pub fn backward(
    sizes: Sizes,
    inputs: Inputs,
    kept: Option<Kept>,
    weights: &[f32],
    at_context: &[f32],
    outputs: Outputs,
) {
    let Sizes { queries, keys, heads, size, .. } = sizes;
    let of_sample = heads * sizes.scores();
    let samples = weights.chunks(of_sample.max(1)).zip(outputs.split(inputs.layouts));
    threads::each(samples.enumerate(), |(sample, (weights, mut outputs))| {
        let mut scores = vec![0f32; sizes.scores()];
        let square = sizes.square();
        for (head, weights) in weights.chunks_exact(sizes.scores()).enumerate() {
            let [query, key, (value, at_value)] = inputs.of(sample, head);
            let [out_query, out_key, out_value] = inputs.layouts.map(|layout| layout.of(0, head));
            let kept = kept.map(|kept| kept.part(sample * of_sample + head * sizes.scores(), sizes.scores()));
            let at_output = (at_context, sizes.context().of(sample, head));
            let left = match kept {
                Some(kept) => {
                    drop_out_here(kept, weights, &mut scores);
                    &scores
                }
                None => weights,
            };
            let left = (left, square.transposed());
            product([keys, queries, size], 1.0, left, at_output, (outputs.part(2), out_value));
            let value = (value, at_value.transposed());
            product([queries, size, keys], 1.0, at_output, value, (&mut scores, square));
            softmax_backward(keys, kept, weights, &mut scores);
            let factor = sizes.factor();
            product([queries, keys, size], factor, (&scores, square), key, (outputs.part(0), out_query));
            let turned = (&*scores, square.transposed());
            product([keys, queries, size], factor, turned, query, (outputs.part(1), out_key));
        }
    });
}
