//! Batches: examples of one length, with the regions of their images.
//!
//! Everything is a flat row-major vector; no tensor is made here. Texts are padded to the longest of the batch, not to the
//! fixed length of the original: padding is masked, so the results are the same.
//!
//! Shape letters: B batch, R regions, F feature size, C classes, X longest text with its `[SEP]`, T = R + 2 + X sequence,
//! P most masked words, M hidden regions.

use std::sync::Arc;

use super::error::DataError;
use super::karpathy::CaptionData;
use super::region_store::RegionStore;
use super::sample::{Choices, Example, MaskMode, Sampler};

/// A batch of training examples.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// B.
    pub size: usize,
    /// R.
    pub num_regions: usize,
    /// X: word pieces of the longest text, and its `[SEP]`.
    pub text_slots: usize,
    /// P.
    pub max_pred: usize,
    /// M.
    pub num_masked_regions: usize,
    /// Region features `[B, R, F]`.
    pub features: Vec<f32>,
    /// Region position vectors `[B, R, 6 + C]`.
    pub positions: Vec<f32>,
    /// `[B, T]`, padded with `[PAD]`.
    pub input_ids: Vec<i64>,
    /// `[B, T]`, padded with 0.
    pub segment_ids: Vec<i64>,
    /// `[B]`: word pieces and the closing `[SEP]`.
    pub text_lengths: Vec<usize>,
    /// `[B]`: what sees what.
    pub modes: Vec<MaskMode>,
    /// `[B, P]`: positions to be predicted, padded with 0.
    pub masked_positions: Vec<i64>,
    /// `[B, P]`: the ids that stood there, padded with 0.
    pub masked_ids: Vec<i64>,
    /// `[B, P]`: 1 where there is a prediction, 0 for padding.
    pub masked_weights: Vec<f32>,
    /// `[B, M]`: positions of hidden regions, 1 to R; empty when none are hidden.
    pub masked_regions: Vec<i64>,
    /// `[B]`: indices of the samples in the data.
    pub samples: Vec<usize>,
}

impl Batch {
    /// T: length of the sequences.
    pub fn sequence_length(&self) -> usize {
        self.num_regions + 2 + self.text_slots
    }

    /// `[B, T, T]`, row = who looks, column = who is seen: 1 where a position is seen, else 0.
    ///
    /// Sequence-to-sequence: every row, padding too, sees `[CLS] regions [SEP]`; a text row sees the text up to itself.
    /// Bidirectional: every row sees all but padding.
    pub fn attention_mask(&self) -> Vec<f32> {
        let (length, prefix) = (self.sequence_length(), self.num_regions + 2);
        let mut mask = vec![0.0; self.size * length * length];
        let examples = mask.chunks_exact_mut((length * length).max(1));
        for (example, (mode, text)) in examples.zip(self.modes.iter().zip(&self.text_lengths)) {
            let end = prefix + text;
            for (row, seen) in example.chunks_exact_mut(length).enumerate() {
                let visible = match mode {
                    MaskMode::Bidirectional => end,
                    MaskMode::SequenceToSequence if (prefix..end).contains(&row) => row + 1,
                    MaskMode::SequenceToSequence => prefix,
                };
                seen[..visible].fill(1.0);
            }
        }
        mask
    }

    /// Puts examples together; the region tables are left empty.
    ///
    /// `examples` have the same number of regions and hidden regions; `max_pred` is P, `pad` the id of `[PAD]`.
    pub fn from_examples(examples: &[Example], num_regions: usize, max_pred: usize, pad: u32) -> Self {
        let text_slots = examples.iter().map(|e| e.text_length).max().unwrap_or(0);
        let length = num_regions + 2 + text_slots;
        let mut batch = Self {
            size: examples.len(),
            num_regions,
            text_slots,
            max_pred,
            num_masked_regions: examples.first().map_or(0, |e| e.masked_regions.len()),
            features: Vec::new(),
            positions: Vec::new(),
            input_ids: Vec::with_capacity(examples.len() * length),
            segment_ids: Vec::with_capacity(examples.len() * length),
            text_lengths: examples.iter().map(|e| e.text_length).collect(),
            modes: examples.iter().map(|e| e.mode).collect(),
            masked_positions: Vec::with_capacity(examples.len() * max_pred),
            masked_ids: Vec::with_capacity(examples.len() * max_pred),
            masked_weights: Vec::with_capacity(examples.len() * max_pred),
            masked_regions: Vec::new(),
            samples: Vec::new(),
        };
        for example in examples {
            padded(&mut batch.input_ids, &example.input_ids, length, i64::from(pad));
            padded(&mut batch.segment_ids, &example.segment_ids, length, 0);
            padded(&mut batch.masked_positions, &example.masked_positions, max_pred, 0);
            padded(&mut batch.masked_ids, &example.masked_ids, max_pred, 0);
            padded(&mut batch.masked_weights, &vec![1.0; example.masked_positions.len()], max_pred, 0.0);
            batch.masked_regions.extend(&example.masked_regions);
        }
        batch
    }
}

/// Appends `values` and fills up with `fill` to `length` elements.
fn padded<T: Copy>(to: &mut Vec<T>, values: &[T], length: usize, fill: T) {
    to.extend(values);
    to.extend(std::iter::repeat_n(fill, length.saturating_sub(values.len())));
}

/// The regions of some images, for decoding.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageBatch {
    /// B.
    pub size: usize,
    /// R.
    pub num_regions: usize,
    /// Region features `[B, R, F]`.
    pub features: Vec<f32>,
    /// Region position vectors `[B, R, 6 + C]`.
    pub positions: Vec<f32>,
    /// `[B]`: indices of the images in [`CaptionData::images`].
    pub images: Vec<usize>,
}

impl ImageBatch {
    /// Reads the regions of these images.
    pub fn read(data: &CaptionData, store: &RegionStore, images: &[usize]) -> Result<Self, DataError> {
        let (features, positions) = read_regions(data, store, images.iter().copied())?;
        Ok(Self { size: images.len(), num_regions: store.regions(), features, positions, images: images.to_vec() })
    }
}

/// What training batches are made of; cheap to clone, so that loader threads can share it.
#[derive(Debug, Clone)]
pub struct BatchSource {
    /// Images and captions.
    pub data: Arc<CaptionData>,
    /// Their regions.
    pub store: Arc<RegionStore>,
    /// The random choices.
    pub sampler: Sampler,
}

impl BatchSource {
    /// The batch of these samples in `epoch`; depends on nothing else.
    pub fn batch(&self, epoch: u64, samples: &[usize]) -> Result<Batch, DataError> {
        self.batch_of(samples, |index, pieces| self.sampler.example(epoch, index, pieces))
    }

    /// The batch of these samples with nothing masked and everything visible, as questions are answered.
    pub fn unmasked(&self, samples: &[usize]) -> Result<Batch, DataError> {
        let choices = Choices::none(MaskMode::Bidirectional);
        self.batch_of(samples, |_, pieces| self.sampler.layout().build(pieces, &choices))
    }

    fn batch_of(&self, samples: &[usize], example: impl Fn(usize, &[u32]) -> Example) -> Result<Batch, DataError> {
        let examples: Vec<Example> = samples.iter().map(|i| example(*i, &self.data.samples[*i].pieces)).collect();
        let layout = self.sampler.layout();
        let mut batch = Batch::from_examples(&examples, layout.num_regions, self.sampler.max_pred(), layout.pad);
        let images = samples.iter().map(|index| self.data.samples[*index].image);
        (batch.features, batch.positions) = read_regions(&self.data, &self.store, images)?;
        batch.samples = samples.to_vec();
        Ok(batch)
    }
}

fn read_regions(
    data: &CaptionData,
    store: &RegionStore,
    images: impl ExactSizeIterator<Item = usize>,
) -> Result<(Vec<f32>, Vec<f32>), DataError> {
    let (per_features, per_positions) =
        (store.regions() * store.feature_size(), store.regions() * store.position_size());
    let mut features = Vec::with_capacity(images.len() * per_features);
    let mut positions = Vec::with_capacity(images.len() * per_positions);
    for image in images {
        store.read(&data.images[image].stem, &mut features, &mut positions)?;
    }
    Ok((features, positions))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, proptest};

    use super::Batch;
    use crate::data::sample::{Choices, Example, Layout, MaskMode};

    const LAYOUT: Layout = Layout { num_regions: 2, max_text_length: 4, pad: 0, unk: 1, cls: 2, sep: 3, mask: 4 };

    fn example(mode: MaskMode, pieces: &[u32]) -> Example {
        let choices = Choices {
            mode,
            drop_front: 0,
            masked_positions: vec![4],
            replacements: vec![LAYOUT.mask],
            masked_regions: vec![2],
        };
        LAYOUT.build(pieces, &choices)
    }

    #[test]
    fn two_examples_by_hand() {
        let examples = [example(MaskMode::SequenceToSequence, &[10, 11]), example(MaskMode::Bidirectional, &[])];
        let batch = Batch::from_examples(&examples, 2, 2, 9);
        assert_eq!(batch.sequence_length(), 7);
        assert_eq!(batch.input_ids, [2, 1, 1, 3, 4, 11, 3, 2, 1, 1, 3, 4, 9, 9]);
        assert_eq!(batch.segment_ids, [4, 4, 4, 4, 5, 5, 5, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(batch.text_lengths, [3, 1]);
        assert_eq!(batch.masked_positions, [4, 0, 4, 0]);
        assert_eq!(batch.masked_ids, [10, 0, 3, 0]);
        assert_eq!(batch.masked_weights, [1.0, 0.0, 1.0, 0.0]);
        assert_eq!(batch.masked_regions, [2, 2]);
        let rows: Vec<String> = batch
            .attention_mask()
            .chunks_exact(7)
            .map(|row| row.iter().map(|seen| if *seen == 1.0 { '1' } else { '.' }).collect())
            .collect();
        assert_eq!(rows[..7], ["1111...", "1111...", "1111...", "1111...", "11111..", "111111.", "1111111"]);
        assert_eq!(rows[7..], ["11111.."; 7]);
    }

    proptest! {
        #[test]
        fn nobody_sees_padding_and_text_never_sees_ahead(
            lengths in prop::collection::vec((0usize..5, any::<bool>()), 1..5)
        ) {
            let examples: Vec<Example> = lengths.iter().map(|(n, s2s)| {
                let mode = if *s2s { MaskMode::SequenceToSequence } else { MaskMode::Bidirectional };
                example(mode, &[10, 11, 12, 13][..*n])
            }).collect();
            let batch = Batch::from_examples(&examples, 2, 1, 0);
            let (t, mask) = (batch.sequence_length(), batch.attention_mask());
            for (b, (n, s2s)) in lengths.iter().enumerate() {
                for row in 0..t {
                    let seen = &mask[(b * t + row) * t..][..t];
                    proptest::prop_assert!(seen[..4].iter().all(|x| *x == 1.0));
                    proptest::prop_assert!(seen[4 + n + 1..].iter().all(|x| *x == 0.0));
                    for (column, seen) in seen.iter().enumerate().skip(4).take(n + 1) {
                        let expected = !s2s || (column <= row && row < 4 + n + 1);
                        proptest::prop_assert_eq!(*seen == 1.0, expected);
                    }
                }
            }
        }
    }
}
