//! Region position vectors: where a region lies and what the detector takes it for (`vlp.md` of the reference: box part, class part).
//!
//! Reading boxes and class scores is `region_store`'s work. The image's own size plays no part, as in the original.

/// Numbers per box in the box files: x1 y1 x2 y2 class confidence.
pub const BOX_COLUMNS: usize = 6;

/// Partial sums.
const LANES: usize = 32;

/// Added to the variance under the root, and (a coincidence of the original) to the largest coordinate.
const EPSILON: f32 = 1e-5;

/// Position vectors of one image's regions.
///
/// * `boxes` `[regions, 6]`: x1 y1 x2 y2 class confidence, in pixels;
/// * `classes` `[regions, n]`: class scores;
/// * `out` `[regions, 6 + n]`.
///
/// x and y are divided by the largest x and y of the image's boxes (+ 1e-5); the area of the divided box, at least 0, takes the
/// place of the class; then a layer norm without weights over the 6 numbers, and another over the class scores.
pub fn region_positions(boxes: &[f32], classes: &[f32], out: &mut [f32]) {
    let regions = boxes.len() / BOX_COLUMNS;
    if regions == 0 {
        return;
    }
    let class_columns = classes.len() / regions;
    class_parts(classes, class_columns, out);
    box_parts(boxes, BOX_COLUMNS + class_columns, out);
}

/// The first 6 numbers of each row of `out` `[regions, width]`, from `boxes` `[regions, 6]`.
pub fn box_parts(boxes: &[f32], width: usize, out: &mut [f32]) {
    let largest = |columns: [usize; 2]| {
        let corners = boxes.chunks_exact(BOX_COLUMNS).flat_map(|b| columns.map(|c| b[c]));
        corners.fold(f32::NEG_INFINITY, f32::max) + EPSILON
    };
    let (most_x, most_y) = (largest([0, 2]), largest([1, 3]));
    for (corners, row) in boxes.chunks_exact(BOX_COLUMNS).zip(out.chunks_exact_mut(width)) {
        let (x1, y1, x2, y2) = (corners[0] / most_x, corners[1] / most_y, corners[2] / most_x, corners[3] / most_y);
        let area = ((y2 - y1) * (x2 - x1)).max(0.0);
        layer_norm(&[x1, y1, x2, y2, area, corners[5]], &mut row[..BOX_COLUMNS]);
    }
}

/// The numbers behind the first 6 of each row of `out` `[regions, 6 + columns]`, from class scores `[regions, columns]`.
///
/// The same bits with and without wide vector instructions, which are looked for when the program runs.
pub fn class_parts(scores: &[f32], columns: usize, out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f")]
        fn avx512(scores: &[f32], columns: usize, out: &mut [f32]) {
            plain(scores, columns, out);
        }
        #[target_feature(enable = "avx2")]
        fn avx2(scores: &[f32], columns: usize, out: &mut [f32]) {
            plain(scores, columns, out);
        }
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has the instructions.
            return unsafe { avx512(scores, columns, out) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has the instructions.
            return unsafe { avx2(scores, columns, out) };
        }
    }
    plain(scores, columns, out);
}

/// [`class_parts`] with the instructions of whatever it is compiled into.
#[inline(always)]
fn plain(scores: &[f32], columns: usize, out: &mut [f32]) {
    for (scores, row) in scores.chunks_exact(columns.max(1)).zip(out.chunks_exact_mut(BOX_COLUMNS + columns)) {
        layer_norm(scores, &mut row[BOX_COLUMNS..]);
    }
}

/// (x − mean) / √(variance + 1e-5), the variance being the biased one; rounded once, at the end.
#[inline(always)]
fn layer_norm(input: &[f32], output: &mut [f32]) {
    let count = input.len() as f64;
    let mean = sum(input, |x| x) / count;
    let variance = sum(input, |x| (x - mean) * (x - mean)) / count;
    let scale = 1.0 / (variance + f64::from(EPSILON)).sqrt();
    for (to, from) in output.iter_mut().zip(input) {
        *to = ((f64::from(*from) - mean) * scale) as f32;
    }
}

/// Sum in double precision over lanes that the compiler can keep in vector registers: four of the widest, so that one addition need not wait
/// for the one before.
#[inline(always)]
fn sum(values: &[f32], term: impl Fn(f64) -> f64) -> f64 {
    let mut lanes = [0.0; LANES];
    let groups = values.chunks_exact(LANES);
    let rest: f64 = groups.remainder().iter().map(|x| term(f64::from(*x))).sum();
    for group in groups {
        for (lane, x) in lanes.iter_mut().zip(group) {
            *lane += term(f64::from(*x));
        }
    }
    lanes.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, proptest};

    use super::{class_parts, plain, region_positions};

    #[test]
    fn one_box_by_hand() {
        let mut out = [0.0; 8];
        region_positions(&[0.0, 0.0, 10.0, 20.0, 3.0, 1.0], &[0.25, 0.75], &mut out);
        // Divided by 10.00001 and 20.00001: 0 0 ~1 ~1, area ~1, confidence 1: mean 2/3, variance 2/9.
        let (low, high) = (-(2f32.sqrt()), 0.5f32.sqrt());
        for (value, expected) in out[..6].iter().zip([low, low, high, high, high, high]) {
            assert!((value - expected).abs() < 1e-4, "{value} against {expected}");
        }
        assert!((out[6] + 1.0).abs() < 1e-3 && (out[7] - 1.0).abs() < 1e-3, "{:?}", &out[6..]);
    }

    #[test]
    fn a_box_of_negative_extent_has_no_area() {
        let (mut turned, mut flat) = ([0.0; 7], [0.0; 7]);
        region_positions(&[8.0, 2.0, 4.0, 9.0, 0.0, 0.5], &[1.0], &mut turned);
        region_positions(&[8.0, 2.0, 4.0, 9.0, 77.0, 0.5], &[1.0], &mut flat);
        assert_eq!(turned, flat, "the class column must not count");
        assert!(turned.iter().all(|x| x.is_finite()));
    }

    proptest! {
        #[test]
        fn both_parts_have_mean_zero_and_at_most_unit_variance(
            boxes in prop::collection::vec(0.0f32..600.0, 6 * 5), scores in prop::collection::vec(0.0f32..1.0, 5 * 11), confidence in any::<bool>()
        ) {
            let mut boxes = boxes;
            boxes[5] = f32::from(u8::from(confidence));
            let mut out = vec![0.0; 5 * 17];
            region_positions(&boxes, &scores, &mut out);
            for row in out.chunks_exact(17) {
                for part in [&row[..6], &row[6..]] {
                    let mean = part.iter().sum::<f32>() / part.len() as f32;
                    let square = part.iter().map(|x| x * x).sum::<f32>() / part.len() as f32;
                    proptest::prop_assert!(mean.abs() < 1e-4, "mean {mean}");
                    proptest::prop_assert!(square < 1.0 + 1e-4, "mean square {square}");
                }
            }
        }

        #[test]
        fn vector_instructions_change_no_bit(
            scores in prop::collection::vec(any::<f32>(), 3 * 77)
        ) {
            let (mut wide, mut narrow) = (vec![0.0; 3 * 83], vec![0.0; 3 * 83]);
            class_parts(&scores, 77, &mut wide);
            plain(&scores, 77, &mut narrow);
            let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            proptest::prop_assert_eq!(bits(&wide), bits(&narrow));
        }

        #[test]
        fn scaling_all_boxes_changes_little(scale in 1.0f32..8.0) {
            let boxes = [10.0, 20.0, 110.0, 220.0, 1.0, 0.7, 5.0, 6.0, 300.0, 200.0, 2.0, 0.4];
            let mut scaled = boxes;
            for b in scaled.chunks_exact_mut(6) { b[..4].iter_mut().for_each(|x| *x *= scale); }
            let (mut one, mut other) = ([0.0; 14], [0.0; 14]);
            region_positions(&boxes, &[0.5; 2], &mut one);
            region_positions(&scaled, &[0.5; 2], &mut other);
            proptest::prop_assert!(one.iter().zip(&other).all(|(a, b)| (a - b).abs() < 1e-4));
        }
    }
}
