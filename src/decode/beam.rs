//! Beam search as the reference does it: per beam the K best words, then the K best of all K·K sums.
//!
//! An ended beam gets −10,000 on every continuation, so it stays in the list of frames but never wins again. The result
//! is the best entry that ended in any frame up to the first in which all K ended (else any entry of the last frame).
//! Scores only fall, so the result is known as soon as an ended entry is at least as good as all that can still come: the search
//! of an image stops there, where the reference goes on to its last step.

use super::cache::Stepper;
use crate::model::fused::{largest, log_sum_exp};
use crate::model::host_values;
use crate::model::threads;

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
    /// All frames up to the one with which the search stopped, or the last step.
    pub frames: Vec<Frame>,
}

/// Searches all images of `stepper`; an image leaves the batch when no later step can change what is found for it.
pub fn beam_search(stepper: Stepper, settings: &BeamSettings) -> Vec<BeamResult> {
    search(stepper, settings, |frames| all_ended(frames, settings) || settled(frames, settings))
}

/// The reference's form, with all frames up to the one in which every beam of the image had ended; finds the same.
pub fn beam_frames(stepper: Stepper, settings: &BeamSettings) -> Vec<BeamResult> {
    search(stepper, settings, |frames| all_ended(frames, settings))
}

fn search(mut stepper: Stepper, settings: &BeamSettings, stops: impl Fn(&[Frame]) -> bool) -> Vec<BeamResult> {
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
        let found: Vec<Frame> = threads::map(active.iter().enumerate(), |(slot, image)| {
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
        });

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
        let going: Vec<usize> = (0..active.len()).filter(|slot| !stops(&frames[active[*slot]])).collect();
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

/// Whether every beam ended in the last frame.
fn all_ended(frames: &[Frame], settings: &BeamSettings) -> bool {
    frames.last().is_some_and(|frame| frame.words.iter().all(|word| *word == settings.end))
}

/// Whether no entry of a later frame can be better than the best that has ended: an entry's score is at most that of the beam
/// it continues, in the rounded arithmetic too, and the length penalty grows or falls with the frame.
fn settled(frames: &[Frame], settings: &BeamSettings) -> bool {
    let ended = frames.iter().enumerate().flat_map(|(f, frame)| {
        let entries = frame.words.iter().zip(&frame.scores).filter(|(word, _)| **word == settings.end);
        entries.map(move |(_, score)| value(*score, f, settings))
    });
    let best = ended.fold(f32::NEG_INFINITY, f32::max);
    let Some(frame) = frames.last() else { return false };
    let bases = (0..frame.words.len()).map(|beam| base(frame, beam, settings.end));
    let base = bases.fold(f32::NEG_INFINITY, f32::max);
    // The value after the next step, and after the last one.
    let later = value(base, frames.len(), settings).max(value(base, settings.max_length.saturating_sub(1), settings));
    best >= later
}

/// What an entry of frame `f` counts: its score and the length penalty.
fn value(score: f32, f: usize, settings: &BeamSettings) -> f32 {
    score + settings.length_penalty * (f + 1) as f32
}

/// What the continuations of a beam start from.
fn base(frame: &Frame, beam: usize, end: u32) -> f32 {
    if frame.words[beam] == end { BLOCKED + frame.scores[beam] } else { frame.scores[beam] }
}

/// The `count` most probable words with their log-probabilities, best first; of equal ones the smaller id first.
fn top_words(logits: &[f32], count: usize, banned: &[u32], no_end: Option<u32>) -> Vec<(f32, u32)> {
    /// Words that are passed over together.
    const CHUNK: usize = 64;
    let shift = log_sum_exp(logits);
    let mut top: Vec<(f32, u32)> = Vec::with_capacity(count + 1);
    for (chunk, logits) in logits.chunks(CHUNK).enumerate() {
        // What is banned or no end only falls.
        if top.len() == count && largest(logits) - shift <= top[count - 1].0 {
            continue;
        }
        for (i, logit) in logits.iter().enumerate() {
            let mut value = logit - shift;
            let word = (chunk * CHUNK + i) as u32;
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
    }
    top
}

/// The K best continuations of the previous frame's beams.
fn next_frame(tops: &[Vec<(f32, u32)>], previous: Option<&Frame>, beams: usize, end: u32) -> Frame {
    let mut all: Vec<(f32, usize, u32)> = Vec::with_capacity(tops.len() * beams);
    for (beam, top) in tops.iter().enumerate() {
        let base = previous.map_or(0.0, |frame| base(frame, beam, end));
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

/// The best ended entry, or any entry of the last step; the first of equal ones.
fn best_of(frames: Vec<Frame>, settings: &BeamSettings) -> BeamResult {
    let mut best = (f32::NEG_INFINITY, 0, 0);
    for (f, frame) in frames.iter().enumerate() {
        for (k, (word, score)) in frame.words.iter().zip(&frame.scores).enumerate() {
            let value = value(*score, f, settings);
            if (*word == settings.end || f + 1 == settings.max_length) && value > best.0 {
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
    use proptest::prelude::{Strategy, prop, proptest};

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

    /// All frames of a search over these logits, row after row.
    fn all_frames(logits: &[Vec<f32>], settings: &BeamSettings) -> Vec<Frame> {
        let mut frames: Vec<Frame> = Vec::new();
        let mut rows = logits.iter().cycle();
        while frames.len() < settings.max_length && !all_ended(&frames, settings) {
            let beams = if frames.is_empty() { 1 } else { settings.beam_size };
            let no_end = (frames.len() < settings.min_length).then_some(settings.end);
            let tops: Vec<_> =
                rows.by_ref().take(beams).map(|row| top_words(row, settings.beam_size, &[], no_end)).collect();
            frames.push(next_frame(&tops, frames.last(), settings.beam_size, settings.end));
        }
        frames
    }

    proptest! {
        /// Few words and large steps, so that sums are often equal.
        #[test]
        fn stopping_early_finds_the_same(
            logits in prop::collection::vec(prop::collection::vec((-8i8..8).prop_map(f32::from), 6), 7..40),
            beam_size in 1usize..5, max_length in 1usize..9, min_length in 0usize..3, penalty in -4i8..5
        ) {
            let settings = BeamSettings {
                beam_size, max_length, min_length, length_penalty: f32::from(penalty) / 2.0, no_repeat_ngram: 0, ignored: vec![], end: 5
            };
            let frames = all_frames(&logits, &settings);
            let expected = best_of(frames.clone(), &settings);
            for stop in (1..=frames.len()).filter(|stop| settled(&frames[..*stop], &settings)) {
                let found = best_of(frames[..stop].to_vec(), &settings);
                proptest::prop_assert_eq!((&found.words, found.score), (&expected.words, expected.score), "after {}", stop);
            }
        }
    }

    #[test]
    fn a_search_goes_on_while_a_better_end_can_come() {
        let frame = |scores: [f32; 2], words: [u32; 2]| Frame {
            scores: scores.into(),
            words: words.into(),
            pointers: vec![0, 1],
        };
        let settings = |length_penalty| BeamSettings {
            beam_size: 2,
            max_length: 5,
            min_length: 0,
            length_penalty,
            no_repeat_ngram: 0,
            ignored: vec![],
            end: 9,
        };
        let stops = |frames: &[&Frame], penalty| {
            settled(&frames.iter().map(|frame| (*frame).clone()).collect::<Vec<_>>(), &settings(penalty))
        };
        let (ahead, behind) = (frame([-0.5, -0.7], [9, 3]), frame([-0.5, -0.7], [3, 9]));
        assert!(stops(&[&ahead], 0.0) && !stops(&[&behind], 0.0));
        // 0.2 behind, and four words more at most.
        assert!(stops(&[&ahead], 0.04) && !stops(&[&ahead], 0.06));
        // 0.2 ahead, and one word more at least.
        assert!(!stops(&[&behind], -0.1) && stops(&[&behind], -0.3));
        // An end of an earlier frame counts.
        assert!(stops(&[&behind, &frame([-0.8, -0.9], [3, 4])], 0.0) && !stops(&[], 0.0));
    }
}
