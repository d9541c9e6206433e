//! Attention of a text that is written word by word: few queries over the kept keys and values of an image, which its beams share, and
//! over those of their own words. Without gradients.
//!
//! The image's keys lie with their columns in order, so that a step over all of its places is a step over one row of memory.

use super::kernels::{Kept, dot, softmax};
use crate::model::threads;
use crate::model::widest::widest;

/// Sizes of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Images.
    pub images: usize,
    /// Rows of an image, its beams.
    pub beams: usize,
    /// Queries of a row, q.
    pub queries: usize,
    /// A.
    pub heads: usize,
    /// D.
    pub size: usize,
    /// Places of the image part, S.
    pub image: usize,
    /// Columns of its keys, P: S and some that are not read.
    pub padded: usize,
    /// Places of the text, t.
    pub text: usize,
}

/// What is read; N = images · beams.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// `[N, q, A · D]`, not divided by √D.
    pub queries: &'a [f32],
    /// `[images, A, D, P]`.
    pub image_keys: &'a [f32],
    /// `[images, A, S, D]`.
    pub image_values: &'a [f32],
    /// `[N, A, t, D]`.
    pub text_keys: &'a [f32],
    /// `[N, A, t, D]`.
    pub text_values: &'a [f32],
    /// `[1 or N, q, t]`, added to the scores of the text.
    pub bias: &'a [f32],
    /// Of the weights, `[N, A, q, S + t]`.
    pub kept: Option<Kept<'a>>,
}

/// Columns that are summed up in registers.
const BLOCK: usize = 32;

/// For each of two lists of factors: `out = Σ factors[i] · row i`, over `rows` of `width` values each, of which `out` takes the first.
#[inline(always)]
fn weigh([a, b]: [&[f32]; 2], rows: &[f32], width: usize, [to_a, to_b]: [&mut [f32]; 2]) {
    let length = to_a.len();
    let mut start = 0;
    while start + BLOCK <= width && start < length {
        let (mut of_a, mut of_b) = ([0f32; BLOCK], [0f32; BLOCK]);
        for ((a, b), row) in a.iter().zip(b).zip(rows.chunks_exact(width)) {
            let row = &row[start..start + BLOCK];
            for ((x, y), value) in of_a.iter_mut().zip(of_b.iter_mut()).zip(row) {
                *x += a * value;
                *y += b * value;
            }
        }
        let count = BLOCK.min(length - start);
        to_a[start..start + count].copy_from_slice(&of_a[..count]);
        to_b[start..start + count].copy_from_slice(&of_b[..count]);
        start += BLOCK;
    }
    if start < length {
        for (factors, out) in [(a, &mut to_a[start..]), (b, &mut to_b[start..])] {
            out.fill(0.0);
            for (factor, row) in factors.iter().zip(rows.chunks_exact(width)) {
                for (sum, value) in out.iter_mut().zip(&row[start..]) {
                    *sum += factor * value;
                }
            }
        }
    }
}

/// Working memory of two queries.
struct Scratch {
    /// Queries divided by √D.
    queries: [Vec<f32>; 2],
    /// Scores, then their softmax.
    scores: [Vec<f32>; 2],
    /// What dropout leaves of it.
    left: [Vec<f32>; 2],
    /// What comes of the image.
    context: [Vec<f32>; 2],
    bias: Vec<f32>,
}

impl Scratch {
    fn new(sizes: Sizes) -> Self {
        let of = |length: usize| [vec![0f32; length], vec![0f32; length]];
        let width = sizes.image + sizes.text;
        let (scores, left) = (of(width), of(width));
        Self { queries: of(sizes.size), scores, left, context: of(sizes.size), bias: vec![0f32; width] }
    }
}

widest! {
    /// All queries of the rows of an image, two at a time; the last of an odd number twice.
    fn of_image(sizes: Sizes, inputs: Inputs, image: usize, out: &mut [f32]) {
        let Sizes { beams, queries, heads, size, image: places, padded, text, .. } = sizes;
        let (hidden, width, count) = (heads * size, places + text, beams * queries);
        let factor = 1.0 / (size as f32).sqrt();
        let one_bias = inputs.bias.len() == queries * text;
        let Scratch { queries: mut scaled, mut scores, mut left, mut context, mut bias } = Scratch::new(sizes);
        for (head, first) in (0..heads).flat_map(|head| (0..count).step_by(2).map(move |first| (head, first))) {
            let of_image = image * heads + head;
            let keys = &inputs.image_keys[of_image * size * padded..][..size * padded];
            let values = &inputs.image_values[of_image * size * places..][..size * places];
            // Row and query of both.
            let both = [first, (first + 1).min(count - 1)].map(|at| (image * beams + at / queries, at % queries));
            let of_text = both.map(|(row, _)| (row * heads + head) * text * size);
            for (scaled, (row, query)) in scaled.iter_mut().zip(both) {
                let own = &inputs.queries[(row * queries + query) * hidden + head * size..][..size];
                for (scaled, q) in scaled.iter_mut().zip(own) {
                    *scaled = q * factor;
                }
            }
            weigh(
                scaled.each_ref().map(Vec::as_slice),
                keys,
                padded,
                scores.each_mut().map(|scores| &mut scores[..places]),
            );
            for (n, (row, query)) in both.into_iter().enumerate() {
                let keys = inputs.text_keys[of_text[n]..].chunks_exact(size);
                for (score, key) in scores[n][places..].iter_mut().zip(keys) {
                    *score = dot(&scaled[n], key);
                }
                let of_bias = if one_bias { query } else { row * queries + query };
                bias[places..].copy_from_slice(&inputs.bias[of_bias * text..][..text]);
                let kept = inputs.kept.map(|kept| kept.part(((row * heads + head) * queries + query) * width, width));
                softmax(width, &bias, kept, &mut scores[n], &mut left[n]);
            }
            weigh(
                left.each_ref().map(|left| &left[..places]),
                values,
                size,
                context.each_mut().map(Vec::as_mut_slice),
            );
            for (n, (row, query)) in both.into_iter().enumerate() {
                let at = (row - image * beams) * queries + query;
                let out = &mut out[at * hidden + head * size..][..size];
                out.copy_from_slice(&context[n]);
                let values = inputs.text_values[of_text[n]..][..text * size].chunks_exact(size);
                for (weight, value) in left[n][places..].iter().zip(values) {
                    for (o, v) in out.iter_mut().zip(value) {
                        *o += weight * v;
                    }
                }
            }
        }
    }
}

/// `dropout(softmax(q·kᵀ/√D + bias))·v` over image and text: `[N, q, A · D]`.
pub fn forward(sizes: Sizes, inputs: Inputs, out: &mut [f32]) {
    let of_image = sizes.beams * sizes.queries * sizes.heads * sizes.size;
    threads::each(out.chunks_mut(of_image.max(1)).enumerate(), |(image, out)| {
        self::of_image(sizes, inputs, image, out)
    });
}
