//! BLEU-1 to BLEU-4 (Papineni et al., ACL 2002) as the COCO caption tools compute them (`pycocoevalcap` 1.2, `bleu_scorer.py`, option `closest`).
//!
//! Works on counted n-grams. It does not tokenise, and it has no smoothing but the tools' tiny constants.
//!
//! ```
//! use vlp::metrics::{bleu::BleuStatistics, ngram::NgramCounts};
//! let (candidate, reference) = (NgramCounts::new(&[1, 2, 3]), NgramCounts::new(&[1, 2, 4]));
//! let [bleu_1, ..] = BleuStatistics::new(&candidate, &[reference]).scores();
//! assert!((bleu_1 - 2.0 / 3.0).abs() < 1e-9);
//! ```

use super::ngram::{Counts, Key, MAX_ORDER, for_each_common};

/// Added to a numerator, so that a zero count gives a tiny score and not zero.
const TINY: f64 = 1e-15;
/// Added to a denominator; because of it a perfect caption scores 0.99999999975 in BLEU-4, not 1.
const SMALL: f64 = 1e-9;

/// The integers from which BLEU follows; those of a corpus are the sums over its images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BleuStatistics {
    /// Words of the candidate.
    pub candidate_length: u64,
    /// Words of the reference whose length is closest to the candidate's, the shorter of two equally close ones.
    pub reference_length: u64,
    /// n-grams of the candidate, orders 1 to 4.
    pub guessed: [u64; MAX_ORDER],
    /// Those among them that occur in a reference, each counted at most as often as in the reference that has it most often.
    pub correct: [u64; MAX_ORDER],
}

impl BleuStatistics {
    /// Statistics of one candidate. With no reference at all, the reference length and the correct counts are 0.
    pub fn new<K: Key>(candidate: &Counts<K>, references: &[Counts<K>]) -> Self {
        let length = candidate.len();
        let closest = references.iter().map(|r| (r.len().abs_diff(length), r.len())).min().map_or(0, |(_, len)| len);
        let mut clipped: Vec<u32> = Vec::new();
        let correct = std::array::from_fn(|index| {
            let order = index + 1;
            let own = candidate.of_order(order);
            clipped.clear();
            clipped.resize(own.len(), 0);
            for reference in references {
                let theirs = reference.of_order(order);
                for_each_common(own, theirs, |i, j| clipped[i] = clipped[i].max(theirs[j].1.min(own[i].1)));
            }
            clipped.iter().map(|&count| u64::from(count)).sum()
        });
        Self {
            candidate_length: length as u64,
            reference_length: closest as u64,
            guessed: std::array::from_fn(|index| candidate.total(index + 1) as u64),
            correct,
        }
    }

    /// Adds the statistics of another candidate.
    pub fn add(&mut self, other: &Self) {
        self.candidate_length += other.candidate_length;
        self.reference_length += other.reference_length;
        for index in 0..MAX_ORDER {
            self.guessed[index] += other.guessed[index];
            self.correct[index] += other.correct[index];
        }
    }

    /// BLEU-1 to BLEU-4, each in 0 to 1:
    ///
    /// `BLEU-k = BP · (Π_{n ≤ k} (correct_n + 1e-15) / (guessed_n + 1e-9))^(1/k)`, `BP = exp(1 - 1/ratio)` where
    /// `ratio = (candidate length + 1e-15) / (reference length + 1e-9)` is below 1, else 1.
    pub fn scores(&self) -> [f64; MAX_ORDER] {
        let ratio = (self.candidate_length as f64 + TINY) / (self.reference_length as f64 + SMALL);
        let brevity = if ratio < 1.0 { (1.0 - 1.0 / ratio).exp() } else { 1.0 };
        let mut product = 1.0;
        std::array::from_fn(|index| {
            product *= (self.correct[index] as f64 + TINY) / (self.guessed[index] as f64 + SMALL);
            product.powf(1.0 / (index + 1) as f64) * brevity
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::ngram::NgramCounts;
    use super::*;

    fn statistics(candidate: &[u32], references: &[&[u32]]) -> BleuStatistics {
        let references: Vec<_> = references.iter().map(|r| NgramCounts::new(r)).collect();
        BleuStatistics::new(&NgramCounts::new(candidate), &references)
    }

    #[test]
    fn clips_by_the_best_reference() {
        // "the the the the the the the" against "the cat is on the mat" and "there is a cat on the mat" (Papineni et al., example 2).
        let s = statistics(&[0; 7], &[&[0, 1, 2, 3, 0, 4], &[5, 2, 6, 1, 3, 0, 4]]);
        assert_eq!(s.correct, [2, 0, 0, 0]);
        assert_eq!(s.guessed, [7, 6, 5, 4]);
        assert_eq!(s.reference_length, 7);
        assert!((s.scores()[0] - 2.0 / 7.0).abs() < 1e-9);
    }

    #[test]
    fn closest_reference_length_prefers_the_shorter() {
        assert_eq!(statistics(&[1, 2, 3], &[&[1, 2, 3, 4], &[1, 2]]).reference_length, 2);
        assert_eq!(statistics(&[1, 2, 3], &[&[1, 2, 3, 4], &[1]]).reference_length, 4);
    }

    #[test]
    fn brevity_penalty() {
        // Two of four words: precision 1, penalty exp(1 - 4/2).
        let score = statistics(&[1, 2], &[&[1, 2, 3, 4]]).scores()[0];
        assert!((score - (-1.0_f64).exp()).abs() < 2e-9, "{score}");
    }

    #[test]
    fn perfect_is_just_below_one() {
        let score = statistics(&[1, 2, 3, 4, 5], &[&[1, 2, 3, 4, 5]]).scores()[3];
        assert!(score < 1.0 && score > 1.0 - 1e-9, "{score}");
    }

    #[test]
    fn empty_sentences_are_finite() {
        assert!(statistics(&[], &[&[1, 2]]).scores().iter().all(|&s| s == 0.0));
        assert!(statistics(&[1], &[&[]]).scores().iter().all(|s| s.is_finite()));
        assert!(statistics(&[], &[]).scores().iter().all(|s| s.is_finite()));
    }
}
