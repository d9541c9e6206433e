//! Self-attention over rows that hold queries, keys and values side by side: one head of one sample at a time, whose scores stay
//! in the processor's cache between the products.
//!
//! ```text
//! P = softmax(Q·Kᵀ/√D + bias)     P′ = dropout(P)      O = P′·V
//! ∂V = P′ᵀ·∂O                     ∂P′ = ∂O·Vᵀ          ∂S = P ∘ (∂P − Σ P ∘ ∂P)
//! ∂Q = ∂S·K/√D                    ∂K = ∂Sᵀ·Q/√D
//! ```
//!
//! Each head is computed by one thread: the bits are the same for any number of threads.

use gemm::Parallelism;

use super::kernels::{Kept, Scores, drop_out_here, softmax_backward_here, softmax_here};
use crate::model::threads::Pool;

/// B, T, A and D.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// B.
    pub samples: usize,
    /// T.
    pub length: usize,
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
        self.length * self.length
    }

    /// 1/√D.
    fn factor(self) -> f32 {
        1.0 / (self.size as f32).sqrt()
    }

    /// Query, key and value of a head, in a sample's rows of 3·H values.
    fn parts(self, head: usize) -> [Place; 3] {
        [0, 1, 2].map(|part| Place {
            start: part * self.hidden() + head * self.size,
            row: 3 * self.hidden(),
            column: 1,
        })
    }

    /// What a head sees, in a sample's rows of H values.
    fn context(self, head: usize) -> Place {
        Place { start: head * self.size, row: self.hidden(), column: 1 }
    }

    /// A matrix of scores that fills its slice.
    fn square(self) -> Place {
        Place { start: 0, row: self.length, column: 1 }
    }
}

/// Where a matrix lies in a slice.
#[derive(Debug, Clone, Copy)]
struct Place {
    start: usize,
    /// From row to row.
    row: usize,
    /// From column to column.
    column: usize,
}

impl Place {
    fn transposed(self) -> Self {
        Self { row: self.column, column: self.row, ..self }
    }

    /// Whether so many rows and columns lie in `length` values.
    fn fits(self, rows: usize, columns: usize, length: usize) -> bool {
        rows == 0 || columns == 0 || self.start + (rows - 1) * self.row + (columns - 1) * self.column < length
    }
}

/// `out = factor · a · b` for `a` `[rows, inner]`, `b` `[inner, columns]`.
fn product(
    [rows, inner, columns]: [usize; 3],
    factor: f32,
    (a, at_a): (&[f32], Place),
    (b, at_b): (&[f32], Place),
    (out, at_out): (&mut [f32], Place),
) {
    assert!(at_a.fits(rows, inner, a.len()) && at_b.fits(inner, columns, b.len()));
    assert!(at_out.fits(rows, columns, out.len()));
    let step = |n: usize| n as isize;
    // SAFETY: as asserted, all elements of the three matrices lie in their slices; `out` is borrowed by nobody else.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            inner,
            out.as_mut_ptr().add(at_out.start),
            step(at_out.column),
            step(at_out.row),
            false,
            a.as_ptr().add(at_a.start),
            step(at_a.column),
            step(at_a.row),
            b.as_ptr().add(at_b.start),
            step(at_b.column),
            step(at_b.row),
            0.0,
            factor,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// `together`: queries, keys and values `[B·T, 3·H]`; `bias` `[B·T, T]`; `kept` of the weights `[B, A, T, T]`. Gives the softmax `weights`
/// `[B, A, T, T]` and the `context` `[B·T, H]`.
pub fn forward(
    pool: Pool,
    sizes: Sizes,
    together: &[f32],
    bias: &[f32],
    kept: Option<Kept>,
    weights: &mut [f32],
    context: &mut [f32],
) {
    let Sizes { length, heads, size, .. } = sizes;
    let (rows, of_sample) = (length * sizes.hidden(), heads * sizes.scores());
    let samples = together.chunks(3 * rows).zip(weights.chunks_mut(of_sample)).zip(context.chunks_mut(rows));
    pool.each(samples.enumerate(), |(sample, ((together, weights), context))| {
        let mut left = vec![0f32; sizes.scores()];
        for (head, weights) in weights.chunks_exact_mut(sizes.scores()).enumerate() {
            let [query, key, value] = sizes.parts(head);
            let (query, key) = ((together, query), (together, key.transposed()));
            product([length, size, length], sizes.factor(), query, key, (weights, sizes.square()));
            let kept = kept.map(|kept| kept.part(sample * of_sample + head * sizes.scores(), sizes.scores()));
            let bias = &bias[sample * sizes.scores()..][..sizes.scores()];
            softmax_here(0, Scores { bias, heads: 1, queries: length, keys: length }, kept, weights, &mut left);
            let value = (together, value);
            product([length, length, size], 1.0, (&left, sizes.square()), value, (context, sizes.context(head)));
        }
    });
}

/// The gradient at `together`, from that at the context and what [`forward`] gave.
pub fn backward(
    pool: Pool,
    sizes: Sizes,
    together: &[f32],
    kept: Option<Kept>,
    weights: &[f32],
    at_context: &[f32],
    at_together: &mut [f32],
) {
    let Sizes { length, heads, size, .. } = sizes;
    let (rows, of_sample) = (length * sizes.hidden(), heads * sizes.scores());
    let inputs = together.chunks(3 * rows).zip(weights.chunks(of_sample)).zip(at_context.chunks(rows));
    pool.each(inputs.zip(at_together.chunks_mut(3 * rows)).enumerate(), |(sample, (inputs, at_together))| {
        let ((together, weights), at_context) = inputs;
        let mut scores = vec![0f32; sizes.scores()];
        for (head, weights) in weights.chunks_exact(sizes.scores()).enumerate() {
            let [query, key, value] = sizes.parts(head);
            let kept = kept.map(|kept| kept.part(sample * of_sample + head * sizes.scores(), sizes.scores()));
            let (at_output, square) = ((at_context, sizes.context(head)), sizes.square());
            let left = match kept {
                Some(kept) => {
                    drop_out_here(kept, weights, &mut scores);
                    &scores
                }
                None => weights,
            };
            let out = (&mut *at_together, value);
            product([length, length, size], 1.0, (left, square.transposed()), at_output, out);
            let turned = (together, value.transposed());
            product([length, size, length], 1.0, at_output, turned, (&mut scores, square));
            softmax_backward_here(length, kept, weights, &mut scores);
            let out = (&mut *at_together, query);
            product([length, length, size], sizes.factor(), (&scores, square), (together, key), out);
            let out = (&mut *at_together, key);
            product([length, length, size], sizes.factor(), (&scores, square.transposed()), (together, query), out);
        }
    });
}
