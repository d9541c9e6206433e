//! Beam search as the reference does it: per beam the K best words, then the K best of all K·K sums.
//!
//! An ended beam gets −10,000 on every continuation, so it stays in the list of frames but never wins again. The result
//! is the best entry that ended in any frame up to the first in which all K ended (else any entry of the last frame).

use rayon::prelude::*;

use super::cache::Stepper;
use crate::model::host_values;

/// Added to the log-probability of a word that must not come.
const BLOCKED: f32 = -10_000.0;

/// Options of the search.
#[derive(Debug, Clone, PartialEq)]
pub struct BeamSettings {
    /// K.
    pub beam_size: usize,
    /// Steps at most.
    pub max_length: usize,
    /// No caption ends before it has this many words.
    pub min_length: usize,
    /// Added to the score per word.
    pub length_penalty: f32,
    /// No n-gram of this size occurs twice; 0 allows all, 1 means no word twice.
    pub no_repeat_ngram: usize,
    /// Words that n-gram blocking leaves alone.
    pub ignored: Vec<u32>,
    /// `[SEP]`.
    pub end: u32,
}

/// One step of one image's search.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// Sum of log-probabilities per beam, best first.
    pub scores: Vec<f32>,
    /// Word chosen per beam.
    pub words: Vec<u32>,
    /// Beam of the previous frame that each continues.
    pub pointers: Vec<usize>,
}

/// What was found for one image.
#[derive(Debug, Clone, PartialEq)]
pub struct BeamResult {
    /// Token ids, the end included if it was reached.
    pub words: Vec<u32>,
    /// Its score, length penalty included.
    pub score: f32,
    /// All frames up to the one in which every beam had ended, or the last step.
    pub frames: Vec<Frame>,
}

/// Searches all images of `stepper`; images whose beams have all ended leave the batch.
pub fn beam_search(mut stepper: Stepper, settings: &BeamSettings) -> Vec<BeamResult> {
    let images = stepper.rows();
    let beams = settings.beam_size;
    let mut frames: Vec<Vec<Frame>> = vec![Vec::new(); images];
    let mut texts: Vec<Vec<Vec<u32>>> = vec![Vec::new(); images]; // per image and beam
    let mut active: Vec<usize> = (0..images).collect();
    let mut last: Option<Vec<u32>> = None;
    for step in 0..settings.max_length {
        let logits = stepper.logits(last.as_deref());
        let [rows, vocabulary] = logits.dims();
        let per_image = rows / active.len();
        let values = host_values(logits);
        let found: Vec<Frame> = active
            .par_iter()
            .enumerate()
            .map(|(slot, image)| {
                let tops: Vec<Vec<(f32, u32)>> = (0..per_image)
                    .map(|beam| {
                        let row = slot * per_image + beam;
                        let text = texts[*image].get(beam).map_or(&[][..], Vec::as_slice);
                        let banned = banned_words(text, settings.no_repeat_ngram, &settings.ignored);
                        let end = (step < settings.min_length).then_some(settings.end);
                        top_words(&values[row * vocabulary..(row + 1) * vocabulary], beams, &banned, end)
                    })
                    .collect();
                next_frame(&tops, frames[*image].last(), beams, settings.end)
            })
            .collect();

        let mut from = Vec::with_capacity(active.len() * beams);
        for (slot, (image, frame)) in active.iter().zip(found).enumerate() {
            from.extend(frame.pointers.iter().map(|p| slot * per_image + p));
            let old = &texts[*image];
            texts[*image] = frame
                .pointers
                .iter()
                .zip(&frame.words)
                .map(|(p, w)| old.get(*p).into_iter().flatten().chain([w]).copied().collect())
                .collect();
            frames[*image].push(frame);
        }
        stepper.reorder(&from);
        let going: Vec<usize> = (0..active.len())
            .filter(|slot| frames[active[*slot]].last().is_some_and(|f| f.words.iter().any(|w| *w != settings.end)))
            .collect();
        if going.is_empty() {
            break;
        }
        if going.len() < active.len() {
            stepper.keep_images(&going);
            active = going.iter().map(|slot| active[*slot]).collect();
        }
        last = Some(active.iter().flat_map(|image| frames[*image].last().map(|f| f.words.clone())).flatten().collect());
    }
    frames.into_iter().map(|frames| best_of(frames, settings)).collect()
}

/// The `count` most probable words with their log-probabilities, best first; of equal ones the smaller id first.
fn top_words(logits: &[f32], count: usize, banned: &[u32], no_end: Option<u32>) -> Vec<(f32, u32)> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|v| f64::from((v - max).exp())).sum();
    let shift = max + sum.ln() as f32;
    let mut top: Vec<(f32, u32)> = Vec::with_capacity(count + 1);
    for (word, logit) in logits.iter().enumerate() {
        let mut value = logit - shift;
        let word = word as u32;
        if top.len() == count && value <= top[count - 1].0 && no_end.is_none() {
            continue;
        }
        if banned.contains(&word) {
            value += BLOCKED;
        }
        if no_end == Some(word) {
            value = BLOCKED;
        }
        let place = top.partition_point(|(other, _)| *other >= value);
        if place < count {
            top.insert(place, (value, word));
            top.truncate(count);
        }
    }
    top
}

/// The K best continuations of the previous frame's beams.
fn next_frame(tops: &[Vec<(f32, u32)>], previous: Option<&Frame>, beams: usize, end: u32) -> Frame {
    let mut all: Vec<(f32, usize, u32)> = Vec::with_capacity(tops.len() * beams);
    for (beam, top) in tops.iter().enumerate() {
        let base = previous.map_or(0.0, |f| if f.words[beam] == end { BLOCKED } else { 0.0 } + f.scores[beam]);
        all.extend(top.iter().map(|(value, word)| (value + base, beam, *word)));
    }
    all.sort_by(|a, b| b.0.total_cmp(&a.0)); // stable: of equal sums the first wins
    all.truncate(beams);
    Frame {
        scores: all.iter().map(|a| a.0).collect(),
        words: all.iter().map(|a| a.2).collect(),
        pointers: all.iter().map(|a| a.1).collect(),
    }
}

/// Words that would complete an n-gram already in `text`.
fn banned_words(text: &[u32], size: usize, ignored: &[u32]) -> Vec<u32> {
    if size == 0 || text.len() < size {
        return Vec::new();
    }
    // With n = 1 the reference compares the whole text's tail of no words, but skips texts that hold an ignored word.
    let tail = if size > 1 { &text[text.len() + 1 - size..] } else { text };
    if tail.iter().any(|w| ignored.contains(w)) {
        return Vec::new();
    }
    text.windows(size)
        .filter(|gram| gram[..size - 1] == tail[..size - 1])
        .map(|gram| gram[size - 1])
        .filter(|w| !ignored.contains(w))
        .collect()
}

/// The best ended entry, or any entry of the last frame; the first of equal ones.
fn best_of(frames: Vec<Frame>, settings: &BeamSettings) -> BeamResult {
    let last = frames.len().saturating_sub(1);
    let mut best = (f32::NEG_INFINITY, 0, 0);
    for (f, frame) in frames.iter().enumerate() {
        for (k, (word, score)) in frame.words.iter().zip(&frame.scores).enumerate() {
            let value = score + settings.length_penalty * (f + 1) as f32;
            if (*word == settings.end || f == last) && value > best.0 {
                best = (value, f, k);
            }
        }
    }
    let (score, mut frame, mut beam) = best;
    let mut words = Vec::with_capacity(frame + 1);
    while let Some(f) = frames.get(frame) {
        words.push(f.words[beam]);
        beam = f.pointers[beam];
        if frame == 0 {
            break;
        }
        frame -= 1;
    }
    words.reverse();
    BeamResult { words, score, frames }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equal_words_the_smaller_id_comes_first_and_bans_push_down() {
        let logits = [1.0, 3.0, 3.0, 2.0];
        let words = |banned: &[u32], end| top_words(&logits, 3, banned, end).iter().map(|t| t.1).collect::<Vec<_>>();
        assert_eq!(words(&[], None), [1, 2, 3]);
        assert_eq!(words(&[1], None), [2, 3, 0]);
        assert_eq!(words(&[], Some(2)), [1, 3, 0]);
        let total: f32 = top_words(&logits, 4, &[], None).iter().map(|t| t.0.exp()).sum();
        assert!((total - 1.0).abs() < 1e-6);
    }

    #[test]
    fn a_repeated_bigram_is_banned_but_not_after_an_ignored_word() {
        assert_eq!(banned_words(&[5, 6, 7, 5], 2, &[]), [6]);
        assert_eq!(banned_words(&[5, 6, 7, 5], 2, &[5]), [] as [u32; 0]);
        assert_eq!(banned_words(&[5, 6, 7, 5], 3, &[]), [] as [u32; 0]);
        assert_eq!(banned_words(&[5, 6], 1, &[]), [5, 6]);
        assert_eq!(banned_words(&[5], 2, &[]), [] as [u32; 0]);
    }

    #[test]
    fn an_ended_entry_of_an_early_frame_can_win() {
        let end = 9;
        let frame = |scores: [f32; 2], words: [u32; 2], pointers: [usize; 2]| Frame {
            scores: scores.into(),
            words: words.into(),
            pointers: pointers.into(),
        };
        let frames = vec![frame([-0.1, -0.5], [3, 9], [0, 0]), frame([-0.9, -1.0], [9, 9], [0, 0])];
        let settings = BeamSettings {
            beam_size: 2,
            max_length: 5,
            min_length: 0,
            length_penalty: 0.0,
            no_repeat_ngram: 0,
            ignored: vec![],
            end,
        };
        assert_eq!(best_of(frames.clone(), &settings).words, [9]);
        let longer = BeamSettings { length_penalty: 1.0, ..settings };
        let best = best_of(frames, &longer);
        assert_eq!((best.words, best.score), (vec![3, 9], -0.9 + 2.0));
    }
}
