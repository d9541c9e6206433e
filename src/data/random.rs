//! Random numbers that depend on what they are for, and on nothing else.
//!
//! A [`Draw`] is seeded from a purpose and some integers, so that neither the number of threads nor the order of work can
//! change a result. Dropout and initial weights are not drawn here.

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

/// A stream of random numbers: ChaCha8, seeded with SHA-256 of `vlp/<purpose>` and the numbers (8 bytes each, little-endian).
///
/// The distributions are written out below instead of taken from a crate, so that an update cannot change an experiment.
#[derive(Debug, Clone)]
pub struct Draw(ChaCha8Rng);

impl Draw {
    /// The stream of `purpose` at the place given by `numbers`, e.g. seed, epoch and sample index.
    pub fn new(purpose: &str, numbers: &[u64]) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"vlp/");
        hash.update(purpose.as_bytes());
        hash.update([0]);
        for number in numbers {
            hash.update(number.to_le_bytes());
        }
        Self(ChaCha8Rng::from_seed(hash.finalize().into()))
    }

    /// An integer of `0..bound`, each equally likely (multiply and reject, Lemire 2019). `bound` 0 gives 0.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = bound as u64;
        let reject = bound.wrapping_neg().checked_rem(bound).unwrap_or(0);
        loop {
            let product = u128::from(self.0.next_u64()) * u128::from(bound);
            if product as u64 >= reject {
                return (product >> 64) as usize;
            }
        }
    }

    /// True with the given probability (resolution 2⁻⁵³): never for 0, always for 1.
    pub fn chance(&mut self, probability: f64) -> bool {
        let unit = (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64; // 0 ≤ unit < 1
        unit < probability
    }

    /// `count` different elements in random order, every ordered choice equally likely; all of them when there are fewer.
    pub fn choose(&mut self, mut from: Vec<usize>, count: usize) -> Vec<usize> {
        let count = count.min(from.len());
        for place in 0..count {
            let other = place + self.below(from.len() - place);
            from.swap(place, other);
        }
        from.truncate(count);
        from
    }
}

#[cfg(test)]
mod tests {
    use super::Draw;

    #[test]
    fn streams_differ_by_purpose_and_by_number_and_repeat() {
        let first = |purpose, numbers: &[u64]| Draw::new(purpose, numbers).below(usize::MAX);
        assert_eq!(first("mask", &[1, 2, 3]), first("mask", &[1, 2, 3]));
        assert_ne!(first("mask", &[1, 2, 3]), first("order", &[1, 2, 3]));
        assert_ne!(first("mask", &[1, 2, 3]), first("mask", &[1, 3, 2]));
    }

    #[test]
    fn the_stream_is_frozen() {
        let mut draw = Draw::new("test", &[0, 1]);
        let numbers: Vec<usize> = (0..8).map(|_| draw.below(1000)).collect();
        assert_eq!(numbers, [172, 607, 797, 134, 954, 755, 713, 247]);
    }

    #[test]
    fn every_ordered_choice_is_equally_likely() {
        let mut counts = std::collections::BTreeMap::new();
        let mut draw = Draw::new("choose", &[7]);
        for _ in 0..60_000 {
            *counts.entry(draw.choose(vec![4, 5, 6], 2)).or_insert(0u32) += 1;
        }
        // 6 ordered pairs, 10000 expected each, standard deviation 91.
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|n| n.abs_diff(10_000) < 400), "{counts:?}");
    }

    #[test]
    fn the_extremes_of_chance_are_certain() {
        let mut draw = Draw::new("chance", &[]);
        assert!((0..10_000).all(|_| !draw.chance(0.0) && draw.chance(1.0)));
        assert_eq!(draw.below(0), 0);
        assert_eq!(draw.below(1), 0);
    }
}
