//! Sampling: each word is drawn from the distribution that the network gives it; self-critical training compares what is
//! drawn with the greedy caption.
//!
//! Drawing is decided by (seed, image, step) alone, so that a resumed training draws what an uninterrupted one would have.

use super::cache::Stepper;
use super::greedy::best_word;
use crate::model::host_values;
use crate::model::layers::mix;
use crate::model::threads;

/// How far a caption of self-critical training is decoded: to W words, to its end, or to its padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// W, words at most.
    pub words: usize,
    /// `[SEP]`.
    pub end: u32,
    /// `[PAD]`; drawn, it ends a caption too.
    pub padding: u32,
}

impl Extent {
    /// Up to and with the first end, or up to and without the first padding, then padding; W ids.
    pub fn cut(&self, drawn: &[u32]) -> Vec<u32> {
        let stops = |word: &u32| *word == self.end || *word == self.padding;
        let length = drawn.iter().position(stops).map_or(drawn.len(), |at| at + 1);
        let mut caption = drawn[..length].to_vec();
        caption.resize(self.words, self.padding);
        caption
    }

    /// Whether the words drawn so far are all that counts: the place behind the end still does, the one behind padding not.
    fn complete(&self, drawn: &[u32]) -> bool {
        let before = &drawn[..drawn.len().saturating_sub(1)];
        drawn.len() >= self.words || drawn.last() == Some(&self.padding) || before.contains(&self.end)
    }
}

/// Greedy and drawn captions for the same images: the first half of `stepper`'s images is written greedily, the second half
/// with words drawn from their distributions. One of W ids per image, as they were written: the word behind the end too, which
/// counts in the loss, then padding. Images whose captions are complete leave the batch.
pub fn greedy_and_sample(mut stepper: Stepper, extent: Extent, seed: u64) -> (Vec<Vec<u32>>, Vec<Vec<u32>>) {
    let half = stepper.rows() / 2;
    let mut captions: Vec<Vec<u32>> = vec![Vec::with_capacity(extent.words); stepper.rows()];
    let mut active: Vec<usize> = (0..captions.len()).collect();
    let mut last: Option<Vec<u32>> = None;
    for step in 0..extent.words {
        let logits = stepper.logits(last.as_deref());
        let [_, vocabulary] = logits.dims();
        let values = host_values(logits);
        let word = |(row, image): (&[f32], &usize)| match image.checked_sub(half) {
            None => best_word(row),
            Some(image) => draw_word(row, point(seed, image, step)),
        };
        let words: Vec<u32> = threads::map(values.chunks_exact(vocabulary).zip(&active), word);
        for (image, word) in active.iter().zip(&words) {
            captions[*image].push(*word);
        }
        let going: Vec<usize> = (0..active.len()).filter(|row| !extent.complete(&captions[active[*row]])).collect();
        if going.is_empty() {
            break;
        }
        if going.len() < active.len() {
            stepper.keep_images(&going);
            active = going.iter().map(|row| active[*row]).collect();
        }
        last = Some(going.iter().map(|row| words[*row]).collect());
    }
    captions.iter_mut().for_each(|caption| caption.resize(extent.words, extent.padding));
    let drawn = captions.split_off(half);
    (captions, drawn)
}

/// The number, from 0 to 1, that decides the word of an image at a step.
fn point(seed: u64, image: usize, step: usize) -> f64 {
    let bits = mix(seed ^ mix(((image as u64) << 20) ^ step as u64));
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// The word at `point` (0 to 1) of the distribution that `logits` give.
fn draw_word(logits: &[f32], point: f64) -> u32 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |logit: &f32| f64::from((logit - max).exp());
    let goal = point * logits.iter().map(weight).sum::<f64>();
    let mut sum = 0.0;
    for (word, logit) in logits.iter().enumerate() {
        sum += weight(logit);
        if sum > goal {
            return word as u32;
        }
    }
    logits.len().saturating_sub(1) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_drawn_as_often_as_they_are_probable() {
        let logits = [0.1f32.ln(), 0.6f32.ln(), f32::NEG_INFINITY, 0.3f32.ln()];
        let mut counts = [0; 4];
        for i in 0..10_000 {
            counts[draw_word(&logits, (f64::from(i) + 0.5) / 10_000.0) as usize] += 1;
        }
        assert_eq!(counts, [1000, 6000, 0, 3000]);
    }

    #[test]
    fn captions_are_cut_as_the_reference_cuts_them() {
        let extent = Extent { words: 5, end: 9, padding: 0 };
        assert_eq!(extent.cut(&[3, 9, 4, 0, 0]), [3, 9, 0, 0, 0]);
        assert_eq!(extent.cut(&[3, 0, 4, 9, 0]), [3, 0, 0, 0, 0]);
        assert_eq!(extent.cut(&[3, 4, 5, 6, 7]), [3, 4, 5, 6, 7]);
        assert!(!extent.complete(&[3, 9]));
        assert!(extent.complete(&[3, 9, 4]));
        assert!(extent.complete(&[3, 0]));
        assert!(extent.complete(&[3, 4, 5, 6, 7]));
    }
}
