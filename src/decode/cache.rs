//! Keys and values kept between decoding steps: the image part once per image, shared by its beams; the text part per beam.
//!
//! The reference re-projects the whole history in every layer at each step; here each position is projected once. The
//! image part never sees the text (sequence-to-sequence mask), so it is computed once and never changes. The type of its keys decides
//! in which numbers the text is computed.

use burn::tensor::activation::softmax;
use burn::tensor::{Int, Tensor};

use crate::model::Vlp;
use crate::model::encoder::{HIDDEN, KeysValues, Layer};
use crate::model::layers::{DropoutStream, Part, Pass, attention_cached, dropout, exact, has_attention_cached, turned};
use crate::model::transfer::{floats, integers};

/// Token ids and segments of the sequence-to-sequence layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prompt {
    /// `[CLS]`.
    pub cls: u32,
    /// `[SEP]`, which ends the image part and the caption.
    pub sep: u32,
    /// `[MASK]`.
    pub mask: u32,
    /// `[PAD]`.
    pub pad: u32,
}

/// Segment ids of the image part and of the text (new style).
pub const SEGMENTS: (i64, i64) = (4, 5);

/// Segment id of padding.
pub const PADDING_SEGMENT: i64 = 0;

/// Keys and values of `[CLS] regions [SEP]` in every layer, each `[B, A, S, D]`. The image never sees the text, so these
/// hold for whatever is written behind it. `features` `[B, R, F]`, `positions` `[B, R, 6 + C]`.
pub fn encode_image(
    model: &Vlp,
    prompt: Prompt,
    features: Tensor<3>,
    positions: Tensor<3>,
    pass: Pass,
) -> Vec<KeysValues> {
    let [images, regions, _] = features.dims();
    let device = features.device();
    let length = regions + 2;
    let ids = [prompt.cls, prompt.sep].map(i64::from).repeat(images);
    let ids = integers(ids, [images, 2], &device);
    let segments = Tensor::<2, Int>::full([images, length], SEGMENTS.0, &device);
    let regions = model.regions(features, positions, pass);
    let mut x = model.bert.embeddings.forward(ids, segments, &regions, pass);
    let encoder = &model.bert.encoder;
    let layers = encoder.layer.len();
    let mut image = Vec::with_capacity(layers);
    for i in 0..layers {
        let layer;
        (layer, x) = encoder.block(i, x);
        let keys = layer.keys_values(x.clone()).packed();
        if i + 1 < layers {
            let context = layer.attend(x.clone(), &keys, None, pass);
            x = layer.complete(context, x, pass);
        }
        image.push(keys);
    }
    image
}

/// Dropout of a text that is written word by word, as the pass over the finished text has it
/// (`train::objective::text_log_probs`): W words, behind them W `[MASK]` queries.
#[derive(Debug, Clone)]
pub struct TextDropout {
    /// Seed of the text's masks.
    pub seed: u64,
    /// W.
    pub words: usize,
    /// The first image with dropout; those before are written without.
    pub first: usize,
}

/// The state of incremental decoding for a batch of images.
#[derive(Debug)]
pub struct Stepper<'a> {
    model: &'a Vlp,
    prompt: Prompt,
    /// Per layer, `[B, A, S, D]`; the keys as [`turned`] has them where attention is computed `at_once`.
    image: Vec<KeysValues>,
    /// Whether attention is one step ([`attention_cached`]).
    at_once: bool,
    /// Per layer, `[N, A, t, D]`; empty before the second step.
    text: Vec<KeysValues>,
    images: usize,
    rows: usize,
    image_length: usize,
    text_length: usize,
    /// `[N]`: text places from this on see the image only, not even themselves; none when every place sees what is before it.
    horizons: Option<Vec<usize>>,
    dropout: Option<TextDropout>,
    /// `[N]`: row of the first step that each row continues.
    origins: Vec<usize>,
}

impl<'a> Stepper<'a> {
    /// Encodes the images: `features` `[B, R, F]`, `positions` `[B, R, 6 + C]`. `model` must be in evaluation form.
    pub fn new(model: &'a Vlp, prompt: Prompt, features: Tensor<3>, positions: Tensor<3>) -> Self {
        Self::behind(model, prompt, encode_image(model, prompt, features, positions, Pass::Evaluate))
    }

    /// Writes behind images that are encoded already ([`encode_image`]); there is at least one layer.
    pub fn behind(model: &'a Vlp, prompt: Prompt, image: Vec<KeysValues>) -> Self {
        let [images, _, image_length, _] = image[0].keys.dims();
        let at_once = has_attention_cached(&image[0].keys);
        let turn = |layer: KeysValues| KeysValues { keys: turned(layer.keys), ..layer };
        Self {
            model,
            prompt,
            image: if at_once { image.into_iter().map(turn).collect() } else { image },
            at_once,
            text: Vec::new(),
            images,
            rows: images,
            image_length,
            text_length: 0,
            horizons: None,
            dropout: None,
            origins: (0..images).collect(),
        }
    }

    /// As in training on a caption of `horizons[b]` words (its end included): places from there on have the segment of
    /// padding and see the image only. One number per image, before the first step; none for no such limit.
    pub fn with_horizons(self, horizons: Option<Vec<usize>>) -> Self {
        Self { horizons, ..self }
    }

    /// With dropout on the text. The image part brings its own.
    pub fn with_dropout(self, dropout: TextDropout) -> Self {
        Self { dropout: Some(dropout), ..self }
    }

    /// Rows of the last prediction: images, or images × beams.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Logits `[N, V]` of the next word. `last` holds the previous words, one per row (`None` in the first step).
    pub fn logits(&mut self, last: Option<&[u32]>) -> Tensor<2> {
        let device = self.image[0].keys.device();
        let tokens: Vec<i64> = match last {
            None => vec![i64::from(self.prompt.mask); self.rows],
            Some(last) => last.iter().flat_map(|w| [i64::from(*w), i64::from(self.prompt.mask)]).collect(),
        };
        let count = tokens.len() / self.rows;
        let start = (self.image_length + self.text_length) as i64;
        let places: Vec<i64> = (0..tokens.len()).map(|i| start + (i % count) as i64).collect();
        let int = |values: Vec<i64>| integers(values.as_slice(), [values.len()], &device);
        let segments = self.segments(count);
        let stream = self.dropout.as_ref().map(|dropout| DropoutStream::replayed(dropout.seed));
        let part = self.dropout.as_ref().map(|dropout| self.part(dropout, count)).unwrap_or_default();
        let pass = stream.as_ref().map_or(Pass::Evaluate, |stream| Pass::Part(stream, &part));
        let x = self.model.bert.embeddings.tokens(int(tokens), int(places), int(segments));
        let hidden = x.dims()[1];
        let x = dropout(x.reshape([self.rows, count, hidden]), self.model.bert.embeddings.dropout_prob, pass);
        // The text is computed in the numbers of the image part.
        let mut x = x.cast(self.image[0].keys.dtype());
        let bias = self.bias(count);
        let bias_rows = bias.dims()[0];

        let layers = &self.model.bert.encoder.layer;
        // The last block computes the prediction only.
        let mut last_part = part.clone();
        last_part.rows = part.rows.last().copied().into_iter().collect();
        for (i, layer) in layers.iter().enumerate() {
            let fresh = layer.keys_values(x.clone());
            let keys = match self.text.get(i) {
                None => fresh,
                Some(kept) => KeysValues {
                    keys: Tensor::cat(vec![kept.keys.clone(), fresh.keys], 2),
                    values: Tensor::cat(vec![kept.values.clone(), fresh.values], 2),
                },
            };
            let (mut bias, mut pass) = (bias.clone(), pass);
            if i + 1 == layers.len() {
                x = x.slice([0..self.rows, count - 1..count, 0..hidden]);
                bias = bias.slice([0..bias_rows, 0..1, count - 1..count, 0..self.text_length + count]);
                if let Pass::Part(stream, _) = pass {
                    pass = Pass::Part(stream, &last_part);
                }
            }
            let context = self.attend(layer, &self.image[i], &keys, x.clone(), bias, pass);
            x = layer.complete(context, x, pass);
            if count == 2 {
                let kept = self.text_length + 1;
                let keep = |t: Tensor<4>| {
                    let [rows, heads, _, size] = t.dims();
                    t.slice([0..rows, 0..heads, 0..kept, 0..size])
                };
                let keys = KeysValues { keys: keep(keys.keys), values: keep(keys.values) };
                if i < self.text.len() { self.text[i] = keys } else { self.text.push(keys) }
            }
        }
        if count == 2 {
            self.text_length += 1;
        }
        self.model.word_logits(x.reshape([self.rows, hidden]))
    }

    /// Segment ids of the next `count` tokens of each row.
    fn segments(&self, count: usize) -> Vec<i64> {
        let segment = |row: usize, place: usize| match &self.horizons {
            Some(horizons) if place >= horizons[row] => PADDING_SEGMENT,
            _ => SEGMENTS.1,
        };
        (0..self.rows * count).map(|i| segment(i / count, self.text_length + i % count)).collect()
    }

    /// Attention bias of the next `count` tokens over the text, `[1 or N, 1, count, t + count]`: the last word does not see
    /// `[MASK]`, places beyond the horizon see no text.
    fn bias(&self, count: usize) -> Tensor<4> {
        let width = self.text_length + count;
        let rows = if self.horizons.is_some() { self.rows } else { 1 };
        let mut bias = vec![0f32; rows * count * width];
        for (i, values) in bias.chunks_exact_mut(width).enumerate() {
            let (row, token) = (i / count, i % count);
            if token + 1 < count {
                values[width - 1] = HIDDEN;
            }
            if self.horizons.as_ref().is_some_and(|horizons| self.text_length + token >= horizons[row]) {
                values.fill(HIDDEN);
            }
        }
        floats(bias, [rows, 1, count, width], &self.image[0].keys.device())
    }

    /// Where the next `count` tokens, and what they see, stand in the pass over the finished text.
    fn part(&self, dropout: &TextDropout, count: usize) -> Part {
        let (image, words) = (self.image_length, dropout.words);
        let written = self.text_length + count - 1;
        let query = words + written;
        Part {
            samples: self.origins.iter().map(|origin| origin.checked_sub(dropout.first)).collect(),
            rows: (self.text_length..written).chain([query]).collect(),
            all_rows: 2 * words,
            columns: (0..image + written).chain([image + query]).collect(),
            all_columns: image + 2 * words,
        }
    }

    /// Attention of `x` `[N, q, H]` over the image's keys, read by all beams of an image at once, and the row's own text.
    fn attend(
        &self,
        layer: &Layer,
        image: &KeysValues,
        text: &KeysValues,
        x: Tensor<3>,
        bias: Tensor<4>,
        pass: Pass,
    ) -> Tensor<3> {
        let [rows, count, hidden] = x.dims();
        if self.at_once {
            let queries = layer.attention.self_attention.query.forward(x);
            let [image, text] = [image, text].map(|kept| [kept.keys.clone(), kept.values.clone()]);
            return attention_cached(queries, image, text, bias, layer.attention_dropout_prob, pass);
        }
        let queries = layer.queries(x); // [N, A, q, D]
        let [_, heads, _, size] = queries.dims();
        let (images, beams) = (self.images, rows / self.images);
        let length = self.image_length;
        let gather_beams = |t: Tensor<4>, width: usize| -> Tensor<4> {
            if beams == 1 {
                return t;
            }
            let t = t.reshape([images, beams, heads, count, width]).swap_dims(1, 2);
            t.reshape([images, heads, beams * count, width])
        };
        let spread_beams = |t: Tensor<4>, width: usize| -> Tensor<4> {
            if beams == 1 {
                return t;
            }
            let t = t.reshape([images, heads, beams, count, width]).swap_dims(1, 2);
            t.reshape([rows, heads, count, width])
        };
        let over_image = gather_beams(queries.clone(), size).matmul(image.keys.clone().transpose());
        let over_image = spread_beams(over_image, length); // [N, A, q, S]
        let over_text = exact(queries.matmul(text.keys.clone().transpose())) + bias; // [N, A, q, t + q]
        let texts = over_text.dims()[3];
        let weights = softmax(Tensor::cat(vec![exact(over_image), over_text], 3), 3);
        let weights = dropout(weights, layer.attention_dropout_prob, pass).cast(image.keys.dtype());
        let all = [0..rows, 0..heads, 0..count];
        let [r, a, q] = all;
        let on_image = weights.clone().slice([r.clone(), a.clone(), q.clone(), 0..length]);
        let on_text = weights.slice([r, a, q, length..length + texts]);
        let from_image = spread_beams(gather_beams(on_image, length).matmul(image.values.clone()), size);
        let context = from_image + on_text.matmul(text.values.clone()); // [N, A, q, D]
        context.swap_dims(1, 2).reshape([rows, count, hidden])
    }

    /// Goes on with `beams` rows per image: row r of the new state continues row `from[r]` of the old one.
    pub fn reorder(&mut self, from: &[usize]) {
        self.rows = from.len();
        self.origins = from.iter().map(|row| self.origins[*row]).collect();
        if let Some(horizons) = &mut self.horizons {
            *horizons = from.iter().map(|row| horizons[*row]).collect();
        }
        if self.text.is_empty() {
            return;
        }
        let index = index_tensor(from, &self.image[0].keys.device());
        for layer in &mut self.text {
            *layer = KeysValues {
                keys: layer.keys.clone().select(0, index.clone()),
                values: layer.values.clone().select(0, index.clone()),
            };
        }
    }

    /// Keeps only these images (ascending), with all of their rows.
    pub fn keep_images(&mut self, kept: &[usize]) {
        let beams = self.rows / self.images;
        let index = index_tensor(kept, &self.image[0].keys.device());
        for layer in &mut self.image {
            *layer = KeysValues {
                keys: layer.keys.clone().select(0, index.clone()),
                values: layer.values.clone().select(0, index.clone()),
            };
        }
        let rows: Vec<usize> = kept.iter().flat_map(|i| i * beams..(i + 1) * beams).collect();
        self.images = kept.len();
        self.reorder(&rows);
    }
}

fn index_tensor(index: &[usize], device: &burn::tensor::Device) -> Tensor<1, Int> {
    let index: Vec<i64> = index.iter().map(|i| *i as i64).collect();
    integers(index.as_slice(), [index.len()], device)
}
