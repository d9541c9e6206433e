//! Curves from journals: points by step or epoch, smoothed, and thinned to what a screen can show.

use std::collections::{BTreeMap, BTreeSet};

use crate::track::{Entry, What};

/// The moving average reaches over about this share of a curve.
const REACH: f64 = 0.01;

/// Intervals of the horizontal axis of which the lowest and the highest value are kept.
const INTERVALS: usize = 250;

/// Points of a curve, by ascending step or epoch.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Curve {
    /// Horizontal and vertical values, finite.
    pub points: Vec<(f64, f64)>,
    /// Values that were not finite, and are left out.
    pub not_finite: usize,
}

/// All curves of a journal.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Curves {
    /// `train/…` by optimiser step.
    pub training: BTreeMap<String, Curve>,
    /// `<split>/<metric>` by epoch.
    pub validation: BTreeMap<String, Curve>,
}

impl Curves {
    /// The curves in `entries`. Where a resumed run wrote a step or an epoch again, the later value counts. What is scored once,
    /// after the training (`test/best/cider`), is no curve.
    pub fn of(entries: &[Entry]) -> Self {
        let mut points: BTreeMap<&str, BTreeMap<u64, f64>> = BTreeMap::new();
        for entry in entries {
            if let What::Metric { name, value, step, epoch } = &entry.what
                && name.matches('/').count() == 1
            {
                let at = if name.starts_with("train/") { *step } else { *epoch };
                points.entry(name).or_default().insert(at, *value);
            }
        }
        let mut out = Self::default();
        for (name, points) in points {
            let finite: Vec<(f64, f64)> =
                points.iter().filter(|(_, v)| v.is_finite()).map(|(at, v)| (*at as f64, *v)).collect();
            let curve = Curve { not_finite: points.len() - finite.len(), points: finite };
            let group = if name.starts_with("train/") { &mut out.training } else { &mut out.validation };
            group.insert(name.to_string(), curve);
        }
        out
    }
}

/// Weight of the smoothed value before each new one, for a curve of this many points: none for short curves, at most 0.98.
pub fn smoothing(points: usize) -> f64 {
    (1.0 - 1.0 / (points as f64 * REACH).max(1.0)).min(0.98)
}

/// Exponential moving average, without a bias towards zero at its beginning (Kingma and Ba 2015, section 3).
pub fn smooth(points: &[(f64, f64)], weight: f64) -> Vec<(f64, f64)> {
    let (mut sum, mut total) = (0.0, 0.0);
    let average = |(x, y): &(f64, f64)| {
        sum = weight * sum + (1.0 - weight) * y;
        total = weight * total + (1.0 - weight);
        (*x, sum / total)
    };
    points.iter().map(average).collect()
}

/// At most four points of each interval: the first, the lowest, the highest and the last. Few points are all kept.
pub fn thin(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return Vec::new() };
    if points.len() <= 2 * INTERVALS {
        return points.to_vec();
    }
    let width = (last.0 - first.0) / INTERVALS as f64;
    let interval = |x: f64| (((x - first.0) / width) as usize).min(INTERVALS - 1);
    let mut kept = BTreeSet::new();
    for part in points.iter().enumerate().collect::<Vec<_>>().chunk_by(|a, b| interval(a.1.0) == interval(b.1.0)) {
        let by_height = |a: &&(usize, &(f64, f64)), b: &&(usize, &(f64, f64))| a.1.1.total_cmp(&b.1.1);
        let ends = [part.first(), part.last(), part.iter().min_by(by_height), part.iter().max_by(by_height)];
        kept.extend(ends.into_iter().flatten().map(|(index, _)| *index));
    }
    kept.into_iter().map(|index| points[index]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_value_of_a_step_counts_and_what_is_not_finite_is_counted() {
        let entries = [
            Entry::metric("train/loss", 4.0, 10, 1),
            Entry::metric("train/loss", 3.0, 20, 1),
            Entry::metric("val/cider", 0.5, 20, 1),
            Entry::metric("train/loss", f64::NAN, 30, 2),
            Entry::metric("train/loss", 2.5, 20, 1),
            Entry::metric("test/best/cider", 0.7, 0, 2),
        ];
        let curves = Curves::of(&entries);
        let loss = Curve { points: vec![(10.0, 4.0), (20.0, 2.5)], not_finite: 1 };
        assert_eq!(curves.training, BTreeMap::from([("train/loss".to_string(), loss)]));
        let cider = Curve { points: vec![(1.0, 0.5)], not_finite: 0 };
        assert_eq!(curves.validation, BTreeMap::from([("val/cider".to_string(), cider)]));
    }

    #[test]
    fn smoothing_by_hand() {
        // Weights 1; 1/3 and 2/3; 1/7, 2/7 and 4/7.
        let smoothed = smooth(&[(0.0, 3.0), (1.0, 6.0), (2.0, 10.0)], 0.5);
        assert_eq!(smoothed, [(0.0, 3.0), (1.0, 5.0), (2.0, (3.0 + 12.0 + 40.0) / 7.0)]);
        assert_eq!(smooth(&[(0.0, 3.0), (1.0, 6.0)], 0.0), [(0.0, 3.0), (1.0, 6.0)]);
        assert_eq!([50, 100, 400, 1_000_000].map(smoothing), [0.0, 0.0, 0.75, 0.98]);
    }

    #[test]
    fn thinning_keeps_ends_and_extremes() {
        let mut points: Vec<(f64, f64)> = (0..100_000).map(|i| (f64::from(i), f64::from(i % 7))).collect();
        points[54_321].1 = 99.0;
        points[77_777].1 = -99.0;
        let thinned = thin(&points);
        assert!(thinned.len() <= 4 * INTERVALS, "{}", thinned.len());
        assert_eq!((thinned.first(), thinned.last()), (points.first(), points.last()));
        assert!(thinned.contains(&(54_321.0, 99.0)) && thinned.contains(&(77_777.0, -99.0)));
        assert!(thinned.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert_eq!(thin(&points[..500]), points[..500]);
    }
}
