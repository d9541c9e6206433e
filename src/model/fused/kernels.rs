//! Passes over rows of f32 in host memory, forward and backward: GELU, softmax with dropout, sum with layer normalisation.
//!
//! Each reads and writes its values once. Rows are shared among threads in pieces of fixed size and sums are kept in sixteen
//! lanes, so that the bits are the same for any number of threads and with vectors of any width.

use crate::model::threads;
use crate::model::widest::widest;

/// Rows of a piece.
const ROWS: usize = 32;

/// Values of a piece where rows do not matter.
const PIECE: usize = 1 << 14;

/// Byte of a mask for a value that has no dropout.
pub const AS_IT_IS: u8 = 2;

/// Parallel sums of a row.
const LANES: usize = 16;

/// What dropout keeps: 1 for a value that stays, 0 for one that is dropped, [`AS_IT_IS`] for one without dropout; and the factor on what
/// stays.
#[derive(Debug, Clone, Copy)]
pub struct Kept<'a> {
    /// One byte per value.
    pub bytes: &'a [u8],
    /// 1 / (1 − probability).
    pub scale: f32,
}

impl<'a> Kept<'a> {
    /// Those of `count` values from `start` on.
    #[inline(always)]
    pub fn part(self, start: usize, count: usize) -> Self {
        Self { bytes: &self.bytes[start..start + count], ..self }
    }

    #[inline(always)]
    fn factor(self, i: usize) -> f32 {
        let byte = self.bytes[i];
        if byte == AS_IT_IS { 1.0 } else { f32::from(byte) * self.scale }
    }
}

/// `eˣ` to about one unit in the last place (Cephes, `expf`), 0 below −87.
#[inline(always)]
fn exp(x: f32) -> f32 {
    /// Adding and subtracting it rounds to an integer.
    const ROUND: f32 = 12_582_912.0;
    let n = (x * std::f32::consts::LOG2_E + ROUND) - ROUND;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + c;
    }
    let value = p * r * r + r + 1.0;
    let power = f32::from_bits((((n as i32) + 127) << 23) as u32);
    if x < -87.0 { 0.0 } else { value * power }
}

/// The error function, as a rational function of x on [−4, 4] (Eigen, `erf_float`); exact to 4 units in the last place.
#[inline(always)]
fn erf(x: f32) -> f32 {
    let x = x.clamp(-4.0, 4.0);
    let square = x * x;
    let mut p = -2.726_142_3e-10;
    for c in [2.770_681_4e-8, -2.101_024e-6, -5.692_506_5e-5, -7.349_906_3e-4, -2.954_6e-3, -1.609_603_3e-2] {
        p = p * square + c;
    }
    let mut q = -1.456_607_2e-5;
    for c in [-2.133_740_6e-4, -1.682_827e-3, -7.373_329e-3, -1.426_474e-2] {
        q = q * square + c;
    }
    (x * p / q).clamp(-1.0, 1.0)
}

/// Φ(x), the distribution function of N(0, 1).
#[inline(always)]
fn normal_cdf(x: f32) -> f32 {
    0.5 + 0.5 * erf(x * std::f32::consts::FRAC_1_SQRT_2)
}

/// The sum of all lanes, by halves.
#[inline(always)]
fn folded(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Σ a·b.
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let b = &b[..a.len()];
    sum(a, |i| a[i] * b[i])
}

#[inline(always)]
fn sum(row: &[f32], term: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let whole = row.len() / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        for (i, lane) in lanes.iter_mut().enumerate() {
            *lane += term(start + i);
        }
    }
    let mut total = folded(lanes);
    for i in whole..row.len() {
        total += term(i);
    }
    total
}

/// The largest value.
#[inline(always)]
pub fn largest(row: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = row.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane = if *v > *lane { *v } else { *lane };
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |a, b| if *b > a { *b } else { a })
}

widest! {
    fn log_sum_exp_to(values: &[f32], out: &mut f32) {
        let top = largest(values);
        *out = top + sum(values, |i| exp(values[i] - top)).ln();
    }
}

/// `ln Σ eˣ`.
pub fn log_sum_exp(values: &[f32]) -> f32 {
    let mut out = 0.0;
    log_sum_exp_to(values, &mut out);
    out
}

widest! {
    fn gelu_piece(x: &[f32], out: &mut [f32]) {
        for (x, y) in x.iter().zip(out) {
            *y = *x * normal_cdf(*x);
        }
    }
}

widest! {
    fn gelu_backward_piece(x: &[f32], grad: &mut [f32]) {
        const DENSITY_AT_0: f32 = 0.398_942_3;
        for (x, g) in x.iter().zip(grad) {
            *g *= normal_cdf(*x) + *x * DENSITY_AT_0 * exp(-0.5 * *x * *x);
        }
    }
}

/// `x·Φ(x)`.
pub fn gelu(x: &[f32], out: &mut [f32]) {
    threads::each(x.chunks(PIECE).zip(out.chunks_mut(PIECE)), |(x, out)| gelu_piece(x, out));
}

/// Makes the gradient at the result that at `x`: times `Φ(x) + x·φ(x)`.
pub fn gelu_backward(x: &[f32], grad: &mut [f32]) {
    threads::each(x.chunks(PIECE).zip(grad.chunks_mut(PIECE)), |(x, grad)| gelu_backward_piece(x, grad));
}

widest! {
    fn add_rows_piece(out: &mut [f32], bias: &[f32]) {
        for row in out.chunks_exact_mut(bias.len()) {
            for (v, b) in row.iter_mut().zip(bias) {
                *v += b;
            }
        }
    }
}

/// Adds `bias` to each row.
pub fn add_rows(out: &mut [f32], bias: &[f32]) {
    threads::each(out.chunks_mut(ROWS * bias.len().max(1)), |rows| add_rows_piece(rows, bias));
}

widest! {
    fn sum_rows_piece(values: &[f32], total: &mut [f32]) {
        for row in values.chunks_exact(total.len()) {
            for (t, v) in total.iter_mut().zip(row) {
                *t += v;
            }
        }
    }
}

/// The sum of all rows of `width` values.
pub fn sum_rows(values: &[f32], width: usize) -> Vec<f32> {
    let parts = threads::map(values.chunks(ROWS * width.max(1)), |rows| {
        let mut total = vec![0f32; width];
        sum_rows_piece(rows, &mut total);
        total
    });
    added(parts, width)
}

/// The sum of `parts`, in their order.
fn added(parts: Vec<Vec<f32>>, width: usize) -> Vec<f32> {
    let mut total = vec![0f32; width];
    for part in parts {
        sum_rows_piece(&part, &mut total);
    }
    total
}

widest! {
    /// `values` holds scores, in rows of `keys`, and becomes the softmax of their sum with `bias`; `out` is that with dropout. By this thread.
    pub fn softmax(keys: usize, bias: &[f32], kept: Option<Kept>, values: &mut [f32], out: &mut [f32]) {
        let rows = values.chunks_exact_mut(keys).zip(out.chunks_exact_mut(keys)).zip(bias.chunks_exact(keys));
        for (i, ((row, out), bias)) in rows.enumerate() {
            for (v, b) in row.iter_mut().zip(bias) {
                *v += b;
            }
            let top = largest(row);
            for v in row.iter_mut() {
                *v = exp(*v - top);
            }
            let inverse = 1.0 / sum(row, |i| row[i]);
            for v in row.iter_mut() {
                *v *= inverse;
            }
            match kept {
                None => out.copy_from_slice(row),
                Some(kept) => {
                    let kept = kept.part(i * keys, keys);
                    for (j, (o, v)) in out.iter_mut().zip(row.iter()).enumerate() {
                        *o = *v * kept.factor(j);
                    }
                }
            }
        }
    }
}

widest! {
    /// Makes the gradient at the result of [`softmax`] that at the scores; `weights` is the softmax. By this thread.
    pub fn softmax_backward(keys: usize, kept: Option<Kept>, weights: &[f32], grad: &mut [f32]) {
        for (i, (p, g)) in weights.chunks_exact(keys).zip(grad.chunks_exact_mut(keys)).enumerate() {
            if let Some(kept) = kept {
                let kept = kept.part(i * keys, keys);
                for (j, g) in g.iter_mut().enumerate() {
                    *g *= kept.factor(j);
                }
            }
            let mean = sum(p, |j| p[j] * g[j]);
            for (g, p) in g.iter_mut().zip(p) {
                *g = *p * (*g - mean);
            }
        }
    }
}

/// Parameters of a layer normalisation.
#[derive(Debug, Clone, Copy)]
pub struct Norm<'a> {
    /// `[width]`.
    pub weight: &'a [f32],
    /// `[width]`.
    pub bias: &'a [f32],
    /// ε.
    pub eps: f32,
}

widest! {
    fn add_norm_piece(
        norm: Norm,
        kept: Option<Kept>,
        residual: Option<&[f32]>,
        normal: &mut [f32],
        inverse: &mut [f32],
        out: &mut [f32],
    ) {
        let width = norm.weight.len();
        let rows = normal.chunks_exact_mut(width).zip(out.chunks_exact_mut(width)).zip(inverse);
        for (i, ((row, out), inverse)) in rows.enumerate() {
            if let Some(kept) = kept {
                let kept = kept.part(i * width, width);
                for (j, v) in row.iter_mut().enumerate() {
                    *v *= kept.factor(j);
                }
            }
            if let Some(residual) = residual {
                for (v, r) in row.iter_mut().zip(&residual[i * width..][..width]) {
                    *v += r;
                }
            }
            let mean = sum(row, |j| row[j]) / width as f32;
            let variance = sum(row, |j| (row[j] - mean) * (row[j] - mean)) / width as f32;
            *inverse = 1.0 / (variance + norm.eps).sqrt();
            for (((v, o), w), b) in row.iter_mut().zip(out).zip(norm.weight).zip(norm.bias) {
                *v = (*v - mean) * *inverse;
                *o = *v * w + b;
            }
        }
    }
}

/// `normal` holds x and becomes the normalised rows of `dropout(x) + residual`; `inverse` their 1/√(variance + ε); `out` the
/// normalised rows with weight and bias.
pub fn add_norm(
    norm: Norm,
    kept: Option<Kept>,
    residual: Option<&[f32]>,
    normal: &mut [f32],
    inverse: &mut [f32],
    out: &mut [f32],
) {
    let piece = ROWS * norm.weight.len().max(1);
    let rows = normal.chunks_mut(piece).zip(out.chunks_mut(piece)).zip(inverse.chunks_mut(ROWS));
    threads::each(rows.enumerate(), |(i, ((normal, out), inverse))| {
        let kept = kept.map(|kept| kept.part(i * piece, normal.len()));
        let residual = residual.map(|residual| &residual[i * piece..][..normal.len()]);
        add_norm_piece(norm, kept, residual, normal, inverse, out);
    });
}

/// Gradients at the parameters of [`add_norm`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NormGradients {
    /// `[width]`.
    pub weight: Vec<f32>,
    /// `[width]`.
    pub bias: Vec<f32>,
}

widest! {
    fn add_norm_backward_piece(
        weight: &[f32],
        normal: &[f32],
        inverse: &[f32],
        grad: &mut [f32],
        at_weight: &mut [f32],
        at_bias: &mut [f32],
    ) {
        let width = weight.len();
        for ((n, g), inverse) in normal.chunks_exact(width).zip(grad.chunks_exact_mut(width)).zip(inverse) {
            for (((w, b), n), g) in at_weight.iter_mut().zip(at_bias.iter_mut()).zip(n).zip(g.iter()) {
                *w += g * n;
                *b += g;
            }
            for (g, w) in g.iter_mut().zip(weight) {
                *g *= w;
            }
            let mean = sum(g, |j| g[j]) / width as f32;
            let slope = sum(g, |j| g[j] * n[j]) / width as f32;
            for (g, n) in g.iter_mut().zip(n) {
                *g = *inverse * (*g - mean - *n * slope);
            }
        }
    }
}

/// Makes the gradient at the result of [`add_norm`] that at the sum, which is also that at the residual.
pub fn add_norm_backward(weight: &[f32], normal: &[f32], inverse: &[f32], grad: &mut [f32]) -> NormGradients {
    let width = weight.len();
    let piece = ROWS * width.max(1);
    let rows = normal.chunks(piece).zip(inverse.chunks(ROWS)).zip(grad.chunks_mut(piece));
    let parts = threads::map(rows, |((normal, inverse), grad)| {
        let (mut at_weight, mut at_bias) = (vec![0f32; width], vec![0f32; width]);
        add_norm_backward_piece(weight, normal, inverse, grad, &mut at_weight, &mut at_bias);
        (at_weight, at_bias)
    });
    let (weights, biases): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
    NormGradients { weight: added(weights, width), bias: added(biases, width) }
}

widest! {
    /// [`drop_out`] by this thread.
    pub fn drop_out_here(kept: Kept, values: &[f32], out: &mut [f32]) {
        for (i, (o, v)) in out.iter_mut().zip(values).enumerate() {
            *o = *v * kept.factor(i);
        }
    }
}

/// Dropout: what is kept times its scale, 0 for what is not.
pub fn drop_out(kept: Kept, values: &[f32], out: &mut [f32]) {
    threads::each(out.chunks_mut(PIECE).zip(values.chunks(PIECE)).enumerate(), |(i, (out, values))| {
        drop_out_here(kept.part(i * PIECE, values.len()), values, out);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Integrates `e^(−t²)` from 0 to x by Simpson's rule.
    fn exact_erf(x: f64) -> f64 {
        let steps = 2000;
        let h = x / f64::from(steps);
        let f = |i: i32| (-(f64::from(i) * h).powi(2)).exp();
        let inner: f64 = (1..steps).map(|i| f(i) * if i % 2 == 1 { 4.0 } else { 2.0 }).sum();
        2.0 / std::f64::consts::PI.sqrt() * h / 3.0 * (f(0) + inner + f(steps))
    }

    #[test]
    fn functions_are_exact_to_a_few_units() {
        for i in -870..=880 {
            let x = i as f32 / 10.0;
            let (found, expected) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((found - expected).abs() <= 1.5e-7 * expected, "exp({x}) = {found}, not {expected}");
        }
        assert_eq!([exp(-87.5), exp(-10_000.0), exp(0.0)], [0.0, 0.0, 1.0]);
        for i in -600..=600 {
            let x = i as f32 / 100.0;
            let (found, expected) = (f64::from(erf(x)), exact_erf(f64::from(x)));
            assert!((found - expected).abs() <= 3e-7, "erf({x}) = {found}, not {expected}");
        }
    }

    #[test]
    fn the_logarithm_of_a_sum_is_exact_to_a_few_units() {
        for length in [1, 15, 16, 100, 28_996] {
            let values: Vec<f32> = (0..length).map(|i| ((i * 7919) % 1000) as f32 / 50.0 - 30.0).collect();
            let expected = values.iter().map(|v| f64::from(*v).exp()).sum::<f64>().ln();
            let found = f64::from(log_sum_exp(&values));
            assert!((found - expected).abs() <= 2e-6 * expected.abs().max(1.0), "{length}: {found} for {expected}");
        }
    }

    #[test]
    fn sums_take_every_value_whatever_the_length() {
        for length in [0, 1, 15, 16, 17, 48, 100] {
            let row: Vec<f32> = (0..length).map(|i| i as f32).collect();
            assert_eq!(sum(&row, |i| row[i]), row.iter().sum::<f32>(), "{length}");
            assert_eq!(largest(&row), row.iter().copied().fold(f32::NEG_INFINITY, f32::max), "{length}");
        }
        let values: Vec<f32> = (0..3 * 70).map(|i| (i % 7) as f32).collect();
        let expected: Vec<f32> = (0..3).map(|c| values.iter().skip(c).step_by(3).sum()).collect();
        assert_eq!(sum_rows(&values, 3), expected);
    }
}
