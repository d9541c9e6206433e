//! From a caption to a training example: truncation, masking, segment ids.
//!
//! [`Sampler::draw`] makes all random choices of an example, [`Layout::build`] applies given choices and is a pure function.
//! Padding and attention masks belong to a batch (`batch`), region features to `region_store`.
//!
//! A sequence is `[CLS] region × R [SEP] word pieces [SEP]`; the ids at the places of regions are `[UNK]`.

use crate::config::{DataSettings, ObjectiveSettings, Truncate};

use super::random::Draw;
use super::tokenizer::Tokenizer;

/// Which positions a position sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MaskMode {
    /// Text sees the image and the text up to itself; the image sees the image only.
    SequenceToSequence,
    /// Everything sees everything but padding.
    Bidirectional,
}

impl MaskMode {
    /// Segment ids of `[CLS] regions [SEP]` and of the text.
    pub fn segments(self) -> [i64; 2] {
        match self {
            Self::SequenceToSequence => [4, 5],
            Self::Bidirectional => [0, 1],
        }
    }
}

/// Sizes and control tokens that the places of a sequence follow from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Regions per image.
    pub num_regions: usize,
    /// Word pieces per caption, the closing `[SEP]` not counted.
    pub max_text_length: usize,
    /// Id of `[PAD]`.
    pub pad: u32,
    /// Id of `[UNK]`.
    pub unk: u32,
    /// Id of `[CLS]`.
    pub cls: u32,
    /// Id of `[SEP]`.
    pub sep: u32,
    /// Id of `[MASK]`.
    pub mask: u32,
}

/// All that is random about an example.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choices {
    /// Attention and segment ids.
    pub mode: MaskMode,
    /// Of the pieces beyond the longest text, how many go from the front (at most all of them); the others go from the tail.
    pub drop_front: usize,
    /// Positions in the sequence to be predicted, in the order in which they were drawn.
    pub masked_positions: Vec<usize>,
    /// The id that stands at each of them.
    pub replacements: Vec<u32>,
    /// Regions whose embeddings are hidden: different positions in the sequence, 1 to R.
    pub masked_regions: Vec<usize>,
}

impl Choices {
    /// Nothing masked, and a text that is too long cut at its tail.
    pub fn none(mode: MaskMode) -> Self {
        let (masked_positions, replacements, masked_regions) = (Vec::new(), Vec::new(), Vec::new());
        Self { mode, drop_front: 0, masked_positions, replacements, masked_regions }
    }
}

/// A training example of its own length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// Ids of the whole sequence, R + 2 + text.
    pub input_ids: Vec<i64>,
    /// Segment ids, as many.
    pub segment_ids: Vec<i64>,
    /// Word pieces after truncation, and the closing `[SEP]`.
    pub text_length: usize,
    /// What sees what.
    pub mode: MaskMode,
    /// Positions to be predicted.
    pub masked_positions: Vec<i64>,
    /// The ids that stood there.
    pub masked_ids: Vec<i64>,
    /// Regions that are hidden, 1 to R.
    pub masked_regions: Vec<i64>,
}

impl Layout {
    /// Sizes of the data and control tokens of the vocabulary.
    pub fn new(data: &DataSettings, tokenizer: &Tokenizer) -> Self {
        Self {
            num_regions: data.num_regions,
            max_text_length: data.max_text_length,
            pad: tokenizer.pad_id(),
            unk: tokenizer.unk_id(),
            cls: tokenizer.cls_id(),
            sep: tokenizer.sep_id(),
            mask: tokenizer.mask_id(),
        }
    }

    /// Position of the first word piece: R + 2.
    pub fn text_start(&self) -> usize {
        self.num_regions + 2
    }

    /// The pieces that stay when the text is cut to `max_text_length`.
    pub fn truncate<'a>(&self, pieces: &'a [u32], drop_front: usize) -> &'a [u32] {
        let surplus = pieces.len().saturating_sub(self.max_text_length);
        let kept = &pieces[drop_front.min(surplus)..];
        &kept[..kept.len().min(self.max_text_length)]
    }

    /// The sequence of ids without any choice applied.
    fn sequence(&self, text: &[u32]) -> Vec<i64> {
        let regions = std::iter::repeat_n(self.unk, self.num_regions);
        let ids = std::iter::once(self.cls).chain(regions).chain([self.sep]);
        ids.chain(text.iter().copied()).chain([self.sep]).map(i64::from).collect()
    }

    /// The example that `choices` make of a caption's untruncated pieces.
    ///
    /// # Panics
    /// When a masked position lies outside the sequence; [`Sampler::draw`] never gives one.
    pub fn build(&self, pieces: &[u32], choices: &Choices) -> Example {
        let text = self.truncate(pieces, choices.drop_front);
        let mut input_ids = self.sequence(text);
        let masked_ids = choices.masked_positions.iter().map(|at| input_ids[*at]).collect();
        for (at, id) in choices.masked_positions.iter().zip(&choices.replacements) {
            input_ids[*at] = i64::from(*id);
        }
        let [image, words] = choices.mode.segments();
        let mut segment_ids = vec![image; self.text_start()];
        segment_ids.resize(input_ids.len(), words);
        let positions = |places: &[usize]| places.iter().map(|at| *at as i64).collect();
        Example {
            input_ids,
            segment_ids,
            text_length: text.len() + 1,
            mode: choices.mode,
            masked_positions: positions(&choices.masked_positions),
            masked_ids,
            masked_regions: positions(&choices.masked_regions),
        }
    }
}

/// Draws the choices of examples; the same for the same seed, epoch and sample on every machine and thread.
#[derive(Debug, Clone)]
pub struct Sampler {
    layout: Layout,
    truncate: Truncate,
    vocab_size: usize,
    s2s_prob: f64,
    mask_prob: f64,
    max_pred: usize,
    masked_regions: usize,
    seed: u64,
}

impl Sampler {
    /// The sampler of an experiment.
    pub fn new(data: &DataSettings, objective: &ObjectiveSettings, seed: u64, tokenizer: &Tokenizer) -> Self {
        Self {
            layout: Layout::new(data, tokenizer),
            truncate: data.truncate,
            vocab_size: tokenizer.vocab_size(),
            s2s_prob: objective.s2s_prob,
            mask_prob: objective.mask_prob,
            max_pred: objective.max_pred,
            masked_regions: masked_region_count(data.num_regions, objective.vis_mask_prob),
            seed,
        }
    }

    /// Sizes and control tokens.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Most masked words per example.
    pub fn max_pred(&self) -> usize {
        self.max_pred
    }

    /// Hidden regions per example.
    pub fn masked_regions(&self) -> usize {
        self.masked_regions
    }

    /// The choices for a caption of `pieces` word pieces, the `sample`-th of the data, in `epoch`.
    ///
    /// Candidates are the truncated text and its closing `[SEP]`; a chosen one becomes `[MASK]` in 80 %, any word of the
    /// vocabulary (control tokens included) in 10 % and stays in 10 % of the cases.
    pub fn draw(&self, epoch: u64, sample: usize, pieces: &[u32]) -> Choices {
        let mut draw = Draw::new("sample", &[self.seed, epoch, sample as u64]);
        let mode = if draw.chance(self.s2s_prob) { MaskMode::SequenceToSequence } else { MaskMode::Bidirectional };
        let surplus = pieces.len().saturating_sub(self.layout.max_text_length);
        let drop_front = match self.truncate {
            Truncate::Tail => 0,
            Truncate::Random => (0..surplus).filter(|_| draw.chance(0.5)).count(),
        };
        let text = self.layout.truncate(pieces, drop_front);
        let start = self.layout.text_start();
        let count = prediction_count(text.len(), self.mask_prob, self.max_pred);
        let masked_positions = draw.choose((start..=start + text.len()).collect(), count);
        let replacements = masked_positions
            .iter()
            .map(|at| {
                let own = text.get(at - start).copied().unwrap_or(self.layout.sep);
                self.replacement(&mut draw, own)
            })
            .collect();
        let masked_regions = draw.choose((1..=self.layout.num_regions).collect(), self.masked_regions);
        Choices { mode, drop_front, masked_positions, replacements, masked_regions }
    }

    fn replacement(&self, draw: &mut Draw, own: u32) -> u32 {
        if draw.chance(0.8) {
            self.layout.mask
        } else if draw.chance(0.5) {
            draw.below(self.vocab_size) as u32
        } else {
            own
        }
    }

    /// The example of a caption, as [`Sampler::draw`] and [`Layout::build`] make it.
    pub fn example(&self, epoch: u64, sample: usize, pieces: &[u32]) -> Example {
        self.layout.build(pieces, &self.draw(epoch, sample, pieces))
    }
}

/// How many of a caption's words are predicted: min(max_pred, max(1, round(words · mask_prob))), halves to the even number.
pub fn prediction_count(words: usize, mask_prob: f64, max_pred: usize) -> usize {
    let share = (words as f64 * mask_prob).round_ties_even() as usize;
    share.max(1).min(max_pred)
}

/// How many regions are hidden: the whole part of num_regions · vis_mask_prob.
pub fn masked_region_count(num_regions: usize, vis_mask_prob: f64) -> usize {
    (num_regions as f64 * vis_mask_prob) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::{Just, Strategy, prop, prop_oneof, proptest};

    use super::{Layout, MaskMode, Sampler};
    use crate::config::Truncate;

    fn sampler(max_text_length: usize, truncate: Truncate, s2s_prob: f64) -> Sampler {
        let layout = Layout { num_regions: 10, max_text_length, pad: 0, unk: 1, cls: 2, sep: 3, mask: 4 };
        Sampler { layout, truncate, vocab_size: 50, s2s_prob, mask_prob: 0.15, max_pred: 3, masked_regions: 4, seed: 9 }
    }

    #[test]
    fn shares_of_modes_replacements_and_positions() {
        let sampler = sampler(20, Truncate::Tail, 0.75);
        let pieces = [10, 11, 12, 13];
        let (mut s2s, mut masks, mut own, mut random) = (0, 0, 0, 0);
        let mut places = [0; 5];
        for index in 0..50_000 {
            let choices = sampler.draw(1, index, &pieces);
            s2s += i32::from(choices.mode == MaskMode::SequenceToSequence);
            let at = choices.masked_positions[0];
            places[at - 12] += 1;
            match choices.replacements[0] {
                4 => masks += 1,
                id if id == *pieces.get(at - 12).unwrap_or(&3) => own += 1,
                _ => random += 1,
            }
        }
        // Expected: 37500 s2s; 10000 per place; 40100 masks, 5100 own, 4800 others (a random word may be either).
        assert_eq!((s2s, masks, own, random), (37506, 39962, 5179, 4859));
        assert_eq!(places, [9982, 10037, 10064, 9917, 10000]);
    }

    #[test]
    fn random_words_come_from_the_whole_vocabulary() {
        let sampler = sampler(20, Truncate::Tail, 1.0);
        let seen: BTreeSet<u32> = (0..20_000).flat_map(|i| sampler.draw(0, i, &[10]).replacements).collect();
        assert_eq!(seen, (0..50).collect());
    }

    #[test]
    fn a_random_cut_takes_each_piece_from_either_end() {
        let sampler = sampler(3, Truncate::Random, 1.0);
        let mut counts = [0; 3];
        for index in 0..10_000 {
            counts[sampler.draw(0, index, &[10, 11, 12, 13, 14]).drop_front] += 1;
        }
        // Binomial: 2500, 5000, 2500.
        assert_eq!(counts, [2547, 4932, 2521]);
        assert_eq!(sampler.layout().truncate(&[10, 11, 12, 13, 14], 1), [11, 12, 13]);
    }

    #[test]
    fn choices_depend_on_seed_epoch_and_sample() {
        let one = sampler(20, Truncate::Tail, 0.5);
        let other = Sampler { seed: 10, ..one.clone() };
        let pieces: Vec<u32> = (10..30).collect();
        assert_eq!(one.draw(1, 7, &pieces), one.draw(1, 7, &pieces));
        assert_ne!(one.draw(1, 7, &pieces), one.draw(2, 7, &pieces));
        assert_ne!(one.draw(1, 7, &pieces), one.draw(1, 8, &pieces));
        assert_ne!(one.draw(1, 7, &pieces), other.draw(1, 7, &pieces));
    }

    proptest! {
        #[test]
        fn every_draw_is_well_formed(
            pieces in prop::collection::vec(5u32..50, 0..40), max_text_length in 1usize..25, index in 0usize..1000,
            truncate in prop_oneof![Just(Truncate::Tail), Just(Truncate::Random)].boxed()
        ) {
            let sampler = sampler(max_text_length, truncate, 0.5);
            let choices = sampler.draw(3, index, &pieces);
            let example = sampler.layout().build(&pieces, &choices);
            let text = pieces.len().min(max_text_length);
            proptest::prop_assert_eq!(example.text_length, text + 1);
            proptest::prop_assert_eq!(example.input_ids.len(), 12 + text + 1);
            let different: BTreeSet<_> = choices.masked_positions.iter().collect();
            proptest::prop_assert_eq!(different.len(), super::prediction_count(text, 0.15, 3));
            proptest::prop_assert!(different.iter().all(|at| (12..=12 + text).contains(*at)));
            let hidden: BTreeSet<_> = choices.masked_regions.iter().collect();
            proptest::prop_assert_eq!(hidden.len(), 4);
            proptest::prop_assert!(hidden.iter().all(|at| (1..=10).contains(*at)));
            // Undoing the replacements gives a stretch of the caption between [SEP] and [SEP].
            let mut ids = example.input_ids.clone();
            for (at, id) in example.masked_positions.iter().zip(&example.masked_ids) { ids[*at as usize] = *id; }
            let all: Vec<i64> = pieces.iter().map(|id| i64::from(*id)).collect();
            proptest::prop_assert_eq!(ids[11], 3);
            proptest::prop_assert_eq!(ids[12 + text], 3);
            proptest::prop_assert!(text == 0 || all.windows(text).any(|w| w == &ids[12..12 + text]));
        }
    }
}
