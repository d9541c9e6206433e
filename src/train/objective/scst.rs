//! Self-critical sequence training (Rennie et al., CVPR 2017; section 4.1 of the paper): sampled captions, weighted by how
//! much better their CIDEr is than that of the greedy ones.
//!
//! The reference decodes step by step with gradient. Here the image part is computed once, with gradient; the words are
//! drawn behind its detached keys and values; then one pass over the finished text gives the log-probabilities with
//! gradient: the drawn words, and behind them one `[MASK]` query per step, at the position of the word it predicts, which
//! sees the image, the words before, and itself. Both use the same dropout masks, so the log-probabilities are exactly those
//! with which the words were drawn. In a low type both compute in it: words are drawn from the distribution whose
//! log-probabilities get the gradient, but for the rounding of sums in another order. Logits, log-probabilities, rewards and loss are f32.
//!
//! Shape letters: B batch, R regions, S = R + 2, W words per caption, H hidden, V vocabulary.

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::activation::log_softmax;

use crate::config::ScstMask;
use crate::decode::cache::{PADDING_SEGMENT, SEGMENTS};
use crate::decode::{Extent, Prompt, Stepper, TextDropout, encode_image, greedy_and_sample};
use crate::metrics::cider::{DocumentFrequencies, SelfCritical, self_critical, self_critical_over, until_padding};
use crate::metrics::ngram::NgramCounts;
use crate::model::Vlp;
use crate::model::encoder::{HIDDEN, KeysValues};
use crate::model::layers::{DropoutStream, Part, Pass, dropout, mix};
use crate::model::transfer::{floats, integers};

/// Sampled captions and what their words see of each other.
#[derive(Debug, Clone)]
pub struct SampledInputs<'a> {
    /// `[B·W]` drawn words, as they were fed back.
    pub draws: &'a [u32],
    /// `[B·W]` segment ids of the word places.
    pub segments: &'a [i64],
    /// `[B·W·W]` 0/1, row = who looks; the image is visible to all.
    pub visible: &'a [f32],
}

/// Log-probabilities `[B, W]` of the drawn words, each given the words before it, behind `image` ([`encode_image`]). Dropout is
/// that of the drawing from a stream of masks that are replayed.
pub fn text_log_probs(
    model: &Vlp,
    prompt: Prompt,
    image: &[KeysValues],
    inputs: &SampledInputs,
    pass: Pass,
) -> Tensor<2> {
    let [batch, _, image_length, _] = image[0].keys.dims();
    let words = inputs.draws.len() / batch;
    let device = image[0].keys.device();
    let int = |values: Vec<i64>| integers(values.as_slice(), [values.len()], &device);

    let mut ids = Vec::with_capacity(batch * 2 * words);
    let mut segments = Vec::with_capacity(batch * 2 * words);
    let mut bias = vec![0f32; batch * 2 * words * (image_length + 2 * words)];
    for sample in 0..batch {
        ids.extend(inputs.draws[sample * words..(sample + 1) * words].iter().map(|w| i64::from(*w)));
        ids.extend(std::iter::repeat_n(i64::from(prompt.mask), words));
        let row = &inputs.segments[sample * words..(sample + 1) * words];
        segments.extend(row.iter().chain(row));
        for looks in 0..2 * words {
            // A query looks from the place of the word it predicts; of that place's column it sees itself, not the word.
            let (place, query) = (looks % words, looks >= words);
            let sees = &inputs.visible[(sample * words + place) * words..][..words];
            let row =
                &mut bias[(sample * 2 * words + looks) * (image_length + 2 * words)..][..image_length + 2 * words];
            let text = &mut row[image_length..];
            text.fill(HIDDEN);
            for (column, seen) in sees.iter().enumerate().filter(|(_, seen)| **seen != 0.0).map(|(c, s)| (c, *s)) {
                let column = if query && column == place { words + place } else { column };
                text[column] = (1.0 - seen) * HIDDEN;
            }
        }
    }
    let rows = 2 * words;
    let places = (0..rows).map(|row| (image_length + row % words) as i64).collect::<Vec<_>>().repeat(batch);
    let x = model.bert.embeddings.tokens(int(ids), int(places), int(segments));
    let hidden = x.dims()[1];
    let x = dropout(x.reshape([batch, rows, hidden]), model.bert.embeddings.dropout_prob, pass);
    let mut x = x.cast(image[0].keys.dtype());
    let mut bias = floats(bias, [batch, 1, rows, image_length + rows], &device);
    let queries = Part {
        samples: (0..batch).map(Some).collect(),
        rows: (words..rows).collect(),
        all_rows: rows,
        columns: (0..image_length + rows).collect(),
        all_columns: image_length + rows,
    };
    let encoder = &model.bert.encoder;
    for (i, image) in image.iter().enumerate() {
        let layer;
        (layer, x) = encoder.block(i, x);
        let text = layer.keys_values(x.clone());
        let keys = KeysValues {
            keys: Tensor::cat(vec![image.keys.clone(), text.keys], 2),
            values: Tensor::cat(vec![image.values.clone(), text.values], 2),
        };
        let mut pass = pass;
        if i + 1 == encoder.layer.len() {
            // The last block is computed at the queries only.
            x = x.slice([0..batch, words..rows, 0..hidden]);
            bias = bias.slice([0..batch, 0..1, words..rows, 0..image_length + rows]);
            if let Pass::Train(stream) = pass {
                pass = Pass::Part(stream, &queries);
            }
        }
        let context = layer.attend(x.clone(), &keys, Some(bias.clone()), pass);
        x = layer.complete(context, x, pass);
    }
    let log_probs = log_softmax(model.word_logits(x), 2); // [B, W, V]
    let index: Vec<i64> = inputs.draws.iter().map(|w| i64::from(*w)).collect();
    let index = integers(index, [batch, words, 1], &device);
    log_probs.gather(2, index).reshape([batch, words])
}

/// −Σ log p · reward / number of places, over the places that count: the first, and those behind a word that is not
/// `padding`. `captions` `[B·W]` are the draws cut behind their end, padded; `rewards` `[B]`.
pub fn reward_loss(log_probs: Tensor<2>, captions: &[u32], rewards: &[f64], padding: u32) -> Tensor<1> {
    let [batch, words] = log_probs.dims();
    let counts = |i: usize| i.is_multiple_of(words) || captions[i - 1] != padding;
    let places = (0..batch * words).filter(|i| counts(*i)).count();
    let weights: Vec<f32> =
        (0..batch * words).map(|i| if counts(i) { -rewards[i / words] as f32 } else { 0.0 }).collect();
    let weights = floats(weights, [batch, words], &log_probs.device());
    (log_probs * weights).sum().div_scalar(places as f64)
}

/// The objective of an experiment.
#[derive(Debug, Clone)]
pub struct SelfCriticalObjective {
    /// Control tokens.
    pub prompt: Prompt,
    /// W, end and padding.
    pub extent: Extent,
    /// What text places see.
    pub mask: ScstMask,
    /// Document frequencies of the training captions; none counts those of each batch.
    pub corpus: Option<DocumentFrequencies>,
}

/// The loss of a batch and what it was computed from.
#[derive(Debug, Clone)]
pub struct ScstLoss {
    /// What is minimised, `[1]`.
    pub total: Tensor<1>,
    /// As they were drawn, W ids each.
    pub draws: Vec<Vec<u32>>,
    /// `[B, W]` of the drawn words.
    pub log_probs: Tensor<2>,
    /// CIDEr of both and their differences.
    pub rewards: SelfCritical,
}

impl SelfCriticalObjective {
    /// Document frequencies over all captions of a data set: one document per image, each caption as the rewards see it.
    pub fn document_frequencies(&self, images: &[Vec<Vec<u32>>]) -> DocumentFrequencies {
        let count = |caption: &Vec<u32>| {
            let mut row = caption.clone();
            row.resize(row.len().max(self.extent.words), self.extent.padding);
            NgramCounts::new(until_padding(&row, self.extent.padding))
        };
        let documents: Vec<Vec<NgramCounts>> =
            images.iter().map(|captions| captions.iter().map(count).collect()).collect();
        DocumentFrequencies::new(&documents)
    }

    /// The loss of a batch. `model` trains; `features` `[B, R, F]`, `positions` `[B, R, 6 + C]`, in the type that all passes
    /// compute in; `captions` are the paired captions with their end, at most W ids each; what is random follows from `seed`.
    pub fn loss(
        &self,
        model: &Vlp,
        features: Tensor<3>,
        positions: Tensor<3>,
        captions: &[Vec<u32>],
        seed: u64,
    ) -> ScstLoss {
        let [image_seed, text_seed, draw_seed] = [1, 2, 3].map(|part| mix(seed ^ part));
        let (words, extent) = (self.extent.words, self.extent);
        let frozen = model.clone().valid().prepared(features.dtype());
        let horizons: Option<Vec<usize>> = match self.mask {
            ScstMask::Reference => Some(captions.iter().map(Vec::len).collect()),
            ScstMask::Causal => None,
        };
        // The greedy captions and the drawn ones are written side by side: each step reads all weights, for 2·B rows as for B.
        let (plain_features, plain_positions) = (features.clone().inner(), positions.clone().inner());
        let plain = encode_image(&frozen, self.prompt, plain_features, plain_positions, Pass::Evaluate);
        let stream = DropoutStream::new(image_seed);
        let image = encode_image(model, self.prompt, features, positions, Pass::Train(&stream));
        let beside = |plain: Tensor<4>, image: &Tensor<4>| Tensor::cat(vec![plain, image.clone().inner()], 0);
        let both = plain.into_iter().zip(&image).map(|(plain, image)| KeysValues {
            keys: beside(plain.keys, &image.keys),
            values: beside(plain.values, &image.values),
        });
        let stepper = Stepper::behind(&frozen, self.prompt, both.collect());
        let stepper = stepper.with_horizons(horizons.as_ref().map(|horizons| horizons.repeat(2)));
        let dropout = TextDropout { seed: text_seed, words, first: captions.len() };
        let (greedy, draws) = greedy_and_sample(stepper.with_dropout(dropout), extent, draw_seed);
        // The second copy of the weights goes before the text's activations come.
        drop(frozen);

        let cut = |rows: &[Vec<u32>]| rows.iter().map(|row| extent.cut(row)).collect::<Vec<_>>();
        let (sampled, greedy, paired) = (cut(&draws), cut(&greedy), cut(captions));
        let rewards = match &self.corpus {
            None => self_critical(&sampled, &greedy, &paired, extent.padding),
            Some(corpus) => self_critical_over(corpus, &sampled, &greedy, &paired, extent.padding),
        };

        let (segments, visible) = text_places(captions.len(), words, horizons.as_deref());
        let inputs = SampledInputs { draws: &draws.concat(), segments: &segments, visible: &visible };
        let stream = DropoutStream::replayed(text_seed);
        let log_probs = text_log_probs(model, self.prompt, &image, &inputs, Pass::Train(&stream));
        let total = reward_loss(log_probs.clone(), &sampled.concat(), &rewards.reward, extent.padding);
        ScstLoss { total, draws, log_probs, rewards }
    }
}

/// Segment ids `[B·W]` of text places, and what they see of each other `[B·W·W]`: the words up to themselves, or nothing
/// beyond the horizon.
pub fn text_places(batch: usize, words: usize, horizons: Option<&[usize]>) -> (Vec<i64>, Vec<f32>) {
    let beyond = |sample: usize, place: usize| horizons.is_some_and(|horizons| place >= horizons[sample]);
    let mut segments = Vec::with_capacity(batch * words);
    let mut visible = vec![0.0; batch * words * words];
    for sample in 0..batch {
        for place in 0..words {
            segments.push(if beyond(sample, place) { PADDING_SEGMENT } else { SEGMENTS.1 });
            if !beyond(sample, place) {
                visible[(sample * words + place) * words..][..=place].fill(1.0);
            }
        }
    }
    (segments, visible)
}
