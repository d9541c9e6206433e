//! Self-critical sequence training: the loss of sampled captions, weighted by their reward over the greedy baseline.
//!
//! The reference decodes step by step with gradient. Here one teacher-forced pass gives the same log-probabilities: the
//! sampled words stand behind the image as usual, and behind them one `[MASK]` query per step, at the position of the
//! word it predicts, which sees the image, the words before, and itself. Drawing the samples is not done here.
//!
//! Shape letters: B batch, R regions, S = R + 2, W words per caption, H hidden, V vocabulary.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor, TensorData};

use crate::decode::Prompt;
use crate::model::Vlp;
use crate::model::encoder::attention_bias;
use crate::model::layers::Pass;

/// Sampled captions and what each position may see.
#[derive(Debug, Clone)]
pub struct SampledInputs<'a> {
    /// `[B, R, F]`.
    pub features: Tensor<3>,
    /// `[B, R, 6 + C]`.
    pub positions: Tensor<3>,
    /// `[B·W]` drawn words, as they were fed back.
    pub draws: &'a [u32],
    /// `[B·(S + W)]` segment ids of the image part and of the word places.
    pub segments: &'a [i64],
    /// `[B·(S + W)²]` 0/1, row = who looks.
    pub mask: &'a [f32],
}

/// Log-probabilities `[B, W]` of the drawn words, each given the words before it.
pub fn draw_log_probs(model: &Vlp, prompt: Prompt, inputs: &SampledInputs, pass: Pass) -> Tensor<2> {
    let [batch, num_regions, _] = inputs.features.dims();
    let device = inputs.features.device();
    let (image, words) = (num_regions + 2, inputs.draws.len() / batch);
    let (plain, length) = (image + words, image + 2 * words);

    let mut ids = Vec::with_capacity(batch * (2 + 2 * words));
    let mut segments = Vec::with_capacity(batch * length);
    let mut mask = vec![0f32; batch * length * length];
    for sample in 0..batch {
        ids.extend([i64::from(prompt.cls), i64::from(prompt.sep)]);
        ids.extend(inputs.draws[sample * words..(sample + 1) * words].iter().map(|w| i64::from(*w)));
        ids.extend(std::iter::repeat_n(i64::from(prompt.mask), words));
        let row = &inputs.segments[sample * plain..(sample + 1) * plain];
        segments.extend(row.iter().chain(&row[image..]));
        let given = &inputs.mask[sample * plain * plain..(sample + 1) * plain * plain];
        let rows = &mut mask[sample * length * length..(sample + 1) * length * length];
        for looks in 0..length {
            // A query looks from the place of the word it predicts; of that place's column it sees itself, not the word.
            let place = if looks < plain { looks } else { looks - words };
            let sees = &given[place * plain..(place + 1) * plain];
            let row = &mut rows[looks * length..(looks + 1) * length];
            if looks < plain {
                row[..plain].copy_from_slice(sees);
            } else {
                row[..place].copy_from_slice(&sees[..place]);
                row[looks] = sees[place];
            }
        }
    }
    let tensor =
        |values: Vec<i64>, width: usize| Tensor::<2, Int>::from_data(TensorData::new(values, [batch, width]), &device);
    let bias = attention_bias(Tensor::from_data(TensorData::new(mask, [batch, length, length]), &device));
    let places: Vec<i64> = (image - 1..plain).chain(image..plain).map(|p| p as i64).collect();
    let regions = model.regions(inputs.features.clone(), inputs.positions.clone(), pass);
    let x =
        model.bert.embeddings.forward_at(tensor(ids, 2 + 2 * words), tensor(segments, length), &regions, &places, pass);
    let rows: Vec<i64> = (plain..length).map(|p| p as i64).collect();
    let hidden = model.bert.encoder.forward_rows(x, bias, tensor(rows.repeat(batch), words), pass);
    let log_probs = log_softmax(model.word_logits(hidden), 2); // [B, W, V]
    let index: Vec<i64> = inputs.draws.iter().map(|w| i64::from(*w)).collect();
    let index = Tensor::<3, Int>::from_data(TensorData::new(index, [batch, words, 1]), &device);
    log_probs.gather(2, index).reshape([batch, words])
}

/// −Σ log p · reward / number of places, over the places that count: the first, and those behind a word that is not
/// padding. `captions` `[B·W]` are the draws cut behind their end, padded with 0; `rewards` `[B]`.
pub fn reward_loss(log_probs: Tensor<2>, captions: &[u32], rewards: &[f64]) -> Tensor<1> {
    let [batch, words] = log_probs.dims();
    let counts = |i: usize| i.is_multiple_of(words) || captions[i - 1] != 0;
    let places = (0..batch * words).filter(|i| counts(*i)).count();
    let weights: Vec<f32> =
        (0..batch * words).map(|i| if counts(i) { -rewards[i / words] as f32 } else { 0.0 }).collect();
    let weights = Tensor::<2>::from_data(TensorData::new(weights, [batch, words]), &log_probs.device());
    (log_probs * weights).sum().div_scalar(places as f64)
}
