//! Greedy decoding: the most probable word at each step; the first of equal ones.

use burn::tensor::Tensor;

use super::cache::Stepper;
use crate::model::host_values;
use crate::model::threads;

/// Captions as token ids, each up to and with its `end`; at most `steps` words. Stops when all have ended, and images
/// whose captions have ended leave the batch.
pub fn greedy(mut stepper: Stepper, steps: usize, end: u32) -> Vec<Vec<u32>> {
    let mut captions = vec![Vec::new(); stepper.rows()];
    let mut active: Vec<usize> = (0..captions.len()).collect();
    let mut last: Option<Vec<u32>> = None;
    for _ in 0..steps {
        let words = best_words(stepper.logits(last.as_deref()));
        for (image, word) in active.iter().zip(&words) {
            captions[*image].push(*word);
        }
        let going: Vec<usize> = (0..words.len()).filter(|row| words[*row] != end).collect();
        if going.is_empty() {
            break;
        }
        if going.len() < words.len() {
            stepper.keep_images(&going);
            active = going.iter().map(|row| active[*row]).collect();
        }
        last = Some(going.iter().map(|row| words[*row]).collect());
    }
    captions
}

/// The reference's form, which runs on behind the end: ids and logits (`[N, V]` per step) of exactly `steps` steps.
pub fn greedy_logits(mut stepper: Stepper, steps: usize) -> (Vec<Vec<u32>>, Vec<Tensor<2>>) {
    let mut captions = vec![Vec::with_capacity(steps); stepper.rows()];
    let mut all = Vec::with_capacity(steps);
    let mut last: Option<Vec<u32>> = None;
    for _ in 0..steps {
        let logits = stepper.logits(last.as_deref());
        let words = best_words(logits.clone());
        for (caption, word) in captions.iter_mut().zip(&words) {
            caption.push(*word);
        }
        all.push(logits);
        last = Some(words);
    }
    (captions, all)
}

/// Index of the largest logit of each row.
fn best_words(logits: Tensor<2>) -> Vec<u32> {
    let [_, vocabulary] = logits.dims();
    threads::map(host_values(logits).chunks_exact(vocabulary), best_word)
}

/// Index of the largest logit, the first of equal ones.
pub(super) fn best_word(logits: &[f32]) -> u32 {
    let start = (0, f32::NEG_INFINITY);
    logits.iter().enumerate().fold(start, |best, (i, v)| if *v > best.1 { (i, *v) } else { best }).0 as u32
}
