//! Masked-word prediction (pre-training and captioning), with label smoothing, drop-worst and the region pretext loss.
//!
//! Shape letters: B batch, R regions, T sequence, H hidden, V vocabulary, P masked words, M masked regions.
//! Formulas: section 3 of the paper; the details (denominators, smoothing, which samples are dropped) follow the
//! reference's behaviour.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor};

use crate::model::Vlp;
use crate::model::embeddings::RegionStates;
use crate::model::layers::{Pass, exact};
use crate::model::transfer::{floats, integers};

/// Added to the number of masked words in the denominator.
const EPSILON: f64 = 1e-5;

/// One batch on the device, and on the host what decides how it is computed.
#[derive(Debug, Clone)]
pub struct MaskedInputs {
    /// `[B, R, F]`.
    pub features: Tensor<3>,
    /// `[B, R, 6 + C]`.
    pub positions: Tensor<3>,
    /// `[B, T − R]`: `[CLS]`, `[SEP]`, text.
    pub ids: Tensor<2, Int>,
    /// `[B, T]`.
    pub segments: Tensor<2, Int>,
    /// `[B, 1, T, T]`, additive.
    pub bias: Tensor<4>,
    /// `[B·P]` positions in the sequence, padded with 0.
    pub masked_positions: Vec<i64>,
    /// `[B·P]` labels, padded with 0.
    pub masked_ids: Vec<i64>,
    /// `[B·P]` 1 for a masked word, 0 for padding.
    pub masked_weights: Vec<f32>,
    /// `[B·M]` sequence positions 1..=R; empty without the region loss.
    pub masked_regions: Vec<i64>,
}

/// Variants of the loss.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct MaskedOptions {
    /// Mass moved from the label to the other words.
    pub label_smoothing: f64,
    /// Share of the samples, those of highest loss, that are left out.
    pub drop_worst: f64,
}

/// The loss and its parts.
#[derive(Debug, Clone)]
pub struct LossParts {
    /// What is minimised, `[1]`.
    pub total: Tensor<1>,
    /// Masked words, `[1]`.
    pub words: Tensor<1>,
    /// Masked regions, `[1]`, where asked for.
    pub regions: Option<Tensor<1>>,
    /// Logits `[B, P, V]` at the masked positions.
    pub logits: Option<Tensor<3>>,
}

/// Loss of a batch. The last block is computed at the positions that are read only.
pub fn masked_loss(model: &Vlp, inputs: &MaskedInputs, options: MaskedOptions, pass: Pass) -> LossParts {
    let [batch, _, _] = inputs.features.dims();
    let device = inputs.features.device();
    let words_per_sample = inputs.masked_positions.len() / batch;
    let regions_per_sample = inputs.masked_regions.len() / batch;
    let embedded = model.regions(inputs.features.clone(), inputs.positions.clone(), pass);
    let seen = if regions_per_sample == 0 { embedded.clone() } else { embedded.hide(&inputs.masked_regions) };
    let x = model.bert.embeddings.forward(inputs.ids.clone(), inputs.segments.clone(), &seen, pass);

    // Rows that are read: the masked words, and [CLS] for the pooled vector.
    let pooled_rows = usize::from(regions_per_sample > 0);
    let count = words_per_sample + pooled_rows;
    let none = Tensor::zeros([1], &device);
    if count == 0 {
        return LossParts { total: none.clone(), words: none, regions: None, logits: None };
    }
    let mut rows = Vec::with_capacity(batch * count);
    for sample in 0..batch {
        rows.extend(&inputs.masked_positions[sample * words_per_sample..(sample + 1) * words_per_sample]);
        rows.extend(std::iter::repeat_n(0i64, pooled_rows));
    }
    let rows = integers(rows, [batch, count], &device);
    let hidden = model.bert.encoder.forward_rows(x, inputs.bias.clone(), rows, pass);
    let size = hidden.dims()[2];

    let (words, logits) = if words_per_sample == 0 {
        (none, None)
    } else {
        let logits = model.word_logits(hidden.clone().slice([0..batch, 0..words_per_sample, 0..size]));
        let losses = token_losses(logits.clone(), &inputs.masked_ids, options.label_smoothing);
        (masked_mean(losses, &inputs.masked_weights, options.drop_worst), Some(logits))
    };
    let regions = (regions_per_sample > 0).then(|| {
        let first = hidden.slice([0..batch, words_per_sample..count, 0..size]).reshape([batch, size]);
        region_loss(&embedded, model.bert.pooler.forward(first), &inputs.masked_regions)
    });
    let total = match &regions {
        None => words.clone(),
        Some(regions) => words.clone() + regions.clone(),
    };
    LossParts { total, words, regions, logits }
}

/// Loss of each masked word, `[B, P]`: cross entropy, or the divergence KL(smoothed ‖ model) when `smoothing` > 0.
///
/// The smoothed label gives `smoothing / (V − 2)` to every word but itself and id 0; a label of 0 costs nothing.
fn token_losses(logits: Tensor<3>, labels: &[i64], smoothing: f64) -> Tensor<2> {
    let [batch, count, vocabulary] = logits.dims();
    let device = logits.device();
    let log_probs = log_softmax(logits, 2);
    let index = integers(labels, [batch, count, 1], &device);
    let of_label = log_probs.clone().gather(2, index).reshape([batch, count]);
    if smoothing == 0.0 {
        return of_label.neg();
    }
    let other = smoothing / (vocabulary as f64 - 2.0);
    let entropy = (1.0 - smoothing) * (1.0 - smoothing).ln() + smoothing * other.ln();
    let of_all = log_probs.clone().sum_dim(2).reshape([batch, count]);
    let of_zero = log_probs.slice([0..batch, 0..count, 0..1]).reshape([batch, count]);
    let cross = of_label.clone().mul_scalar(1.0 - smoothing) + (of_all - of_zero - of_label).mul_scalar(other);
    let real: Vec<f32> = labels.iter().map(|l| f32::from(*l != 0)).collect();
    let real = floats(real, [batch, count], &device);
    cross.neg().add_scalar(entropy) * real
}

/// Mean over the masked words of the kept samples: the `⌊B·(1 − drop_worst)⌋` of least summed loss.
fn masked_mean(losses: Tensor<2>, weights: &[f32], drop_worst: f64) -> Tensor<1> {
    let [batch, count] = losses.dims();
    let words: f64 = weights.iter().map(|w| f64::from(*w)).sum();
    let weights = floats(weights, [batch, count], &losses.device());
    if drop_worst == 0.0 {
        return (losses * weights).sum().div_scalar(words + EPSILON);
    }
    // On the device, so that nobody waits for it.
    let sums = (losses.clone().detach() * weights.clone()).sum_dim(1).reshape([batch]);
    let kept = (batch as f64 * (1.0 - drop_worst)) as i64;
    let ranks = sums.argsort(0).argsort(0);
    let weights = weights * ranks.lower_elem(kept).float().reshape([batch, 1]);
    let words = weights.clone().sum().add_scalar(EPSILON);
    (losses * weights).sum() / words
}

/// Matches each masked region's place (its position embedding plus the pooled vector) with the features of the masked
/// regions of the same image: mean cross entropy of the diagonal.
pub(super) fn region_loss(regions: &RegionStates, pooled: Tensor<2>, masked: &[i64]) -> Tensor<1> {
    let [batch, num_regions, hidden] = regions.words.dims();
    let count = masked.len() / batch;
    let rows: Vec<i64> =
        masked.iter().enumerate().map(|(i, place)| (i / count * num_regions) as i64 + place - 1).collect();
    let rows = integers(rows.as_slice(), [rows.len()], &pooled.device());
    let pick = |t: &Tensor<3>| {
        exact(t.clone()).reshape([batch * num_regions, hidden]).select(0, rows.clone()).reshape([batch, count, hidden])
    };
    let scores = (pick(&regions.places) + exact(pooled).unsqueeze_dim(1)).matmul(pick(&regions.words).transpose());
    let log_probs = log_softmax(scores, 2); // [B, M, M]
    let diagonal: Vec<i64> = (0..batch * count).map(|i| (i % count) as i64).collect();
    let device = log_probs.device();
    let diagonal = integers(diagonal, [batch, count, 1], &device);
    log_probs.gather(2, diagonal).mean().neg()
}
