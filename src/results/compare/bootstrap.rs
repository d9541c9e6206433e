//! The paired bootstrap: is a mean difference between two systems more than the choice of the images, or questions, explains?
//!
//! Efron and Tibshirani, *An Introduction to the Bootstrap* (1993), chapters 13 and 16. Images (or questions) are drawn with replacement,
//! both systems are scored on the same draw, and the differences of the means are counted. Nothing is known here of runs.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Draws of a test.
pub const RESAMPLES: usize = 10_000;

/// Seed of the draws: the same numbers for the same scores, on every machine.
pub const SEED: u64 = 0;

/// What the draws say about a mean difference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bootstrap {
    /// Mean of the differences, in their unit.
    pub mean: f64,
    /// Lower end of the 95 % interval: the 2.5th percentile of the means of the draws (nearest rank).
    pub low: f64,
    /// Upper end: the 97.5th percentile.
    pub high: f64,
    /// Two-sided p: twice the share of draws on the smaller side of zero, where a draw of exactly zero counts on both sides, and
    /// the data themselves count as one more draw. Between 2 / (draws + 1) and 1.
    pub p: f64,
}

/// Tests whether the mean of paired `differences` (finite) is zero. None for fewer than two pairs.
pub fn bootstrap(differences: &[f64], resamples: usize, seed: u64) -> Option<Bootstrap> {
    let count = u32::try_from(differences.len()).ok().filter(|count| *count >= 2)?;
    let mean_of = |sum: f64| sum / f64::from(count);
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut means: Vec<f64> = (0..resamples.max(1))
        .map(|_| mean_of((0..count).map(|_| differences[random.random_range(0..count) as usize]).sum()))
        .collect();
    means.sort_by(f64::total_cmp);
    let below = means.iter().filter(|mean| **mean <= 0.0).count();
    let above = means.iter().filter(|mean| **mean >= 0.0).count();
    let p = 2.0 * (below.min(above) + 1) as f64 / (means.len() + 1) as f64;
    Some(Bootstrap {
        mean: mean_of(differences.iter().sum()),
        low: quantile(&means, 25),
        high: quantile(&means, 975),
        p: p.min(1.0),
    })
}

/// The nearest-rank quantile of sorted values; `per_mille` of 1,000.
fn quantile(sorted: &[f64], per_mille: usize) -> f64 {
    let rank = (sorted.len() * per_mille).div_ceil(1000).max(1);
    sorted[rank - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_systems_do_not_differ() {
        let same = Bootstrap { mean: 0.0, low: 0.0, high: 0.0, p: 1.0 };
        assert_eq!(bootstrap(&[0.0; 7], RESAMPLES, SEED), Some(same));
    }

    #[test]
    fn one_that_is_better_by_the_same_on_every_image_has_the_smallest_p() {
        let better = Bootstrap { mean: 0.25, low: 0.25, high: 0.25, p: 2.0 / 10_001.0 };
        assert_eq!(bootstrap(&[0.25; 8], RESAMPLES, SEED), Some(better));
        let worse = Bootstrap { mean: -0.25, low: -0.25, high: -0.25, p: 2.0 / 10_001.0 };
        assert_eq!(bootstrap(&[-0.25; 8], RESAMPLES, SEED), Some(worse));
    }

    /// Of two images with differences -1 and 3, a quarter of all draws is (-1, -1), a half has mean 1, a quarter is (3, 3):
    /// p is 2 · 1/4, and the interval is the whole range.
    #[test]
    fn two_images_by_hand() {
        let found = bootstrap(&[-1.0, 3.0], RESAMPLES, SEED).unwrap();
        assert_eq!((found.mean, found.low, found.high), (1.0, -1.0, 3.0));
        // Ten thousand draws of probability 1/4: a standard deviation of 0.0087 in p.
        assert!((found.p - 0.5).abs() < 4.0 * 0.0087, "{found:?}");
    }

    /// Of three images with differences 0, 0 and 3, the mean is zero in (2/3)³ = 8/27 of the draws, and never below: p is
    /// 16/27.
    #[test]
    fn draws_of_exactly_zero_count_on_both_sides() {
        let found = bootstrap(&[0.0, 0.0, 3.0], RESAMPLES, SEED).unwrap();
        assert_eq!((found.mean, found.low, found.high), (1.0, 0.0, 3.0));
        assert!((found.p - 16.0 / 27.0).abs() < 4.0 * 0.0092, "{found:?}");
    }

    /// For many images the interval is that of the normal distribution: mean ± 1.96 σ/√n.
    #[test]
    fn many_images_approach_the_normal_interval() {
        let differences: Vec<f64> = (0..400).map(|i| if i % 2 == 0 { 1.0 } else { -0.8 }).collect();
        let found = bootstrap(&differences, RESAMPLES, SEED).unwrap();
        let half = 1.96 * 0.9 / 20.0;
        assert!((found.mean - 0.1).abs() < 1e-12);
        assert!((found.low - (0.1 - half)).abs() < 0.006, "{found:?}");
        assert!((found.high - (0.1 + half)).abs() < 0.006, "{found:?}");
        // P(|Z| > 0.1 / 0.045) = 0.026.
        assert!((found.p - 0.026).abs() < 0.008, "{found:?}");
    }

    #[test]
    fn the_same_scores_give_the_same_numbers_and_one_pair_none() {
        let differences = [0.3, -0.1, 0.2, 0.05];
        assert_eq!(bootstrap(&differences, RESAMPLES, SEED), bootstrap(&differences, RESAMPLES, SEED));
        assert_eq!(bootstrap(&[0.3], RESAMPLES, SEED), None);
        assert_eq!(bootstrap(&[], RESAMPLES, SEED), None);
    }
}
