//! The numbers of dropout masks: 0 with some probability, else 1/(1 − probability), from counters.
//!
//! Element `place` of the mask of `key` depends on these two alone. They are computed on the host, or, for GPUs, on the device by
//! operations on 64-bit integers, to the same bits, so that no mask goes over the bus. Which mask is drawn where is for `layers` to say.

use burn::tensor::{Bool, Device, Int, IntDType, Tensor};
use rayon::prelude::*;

use super::threads;
use super::widest::widest;

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
const MIX: [u64; 2] = [0xBF58_476D_1CE4_E5B9, 0x94D0_49BB_1331_11EB];
const HALF: i64 = 0xFFFF_FFFF;

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection whose outputs for a counter pass as random bits.
#[inline]
pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(MIX[0]);
    z = (z ^ (z >> 27)).wrapping_mul(MIX[1]);
    z ^ (z >> 31)
}

/// The key of the n-th mask of a pass with this seed.
pub(super) fn key(seed: u64, call: u64) -> u64 {
    mix(seed ^ mix(call.wrapping_mul(GOLDEN)))
}

/// A half of 64 bits below this number is a 0 of the mask.
fn threshold(prob: f64) -> u32 {
    (prob * 4_294_967_296.0) as u32
}

/// What is kept is multiplied by it.
pub(super) fn scale(prob: f64) -> f32 {
    (1.0 / (1.0 - prob)) as f32
}

/// Of the first `size` elements: 1 for one that is kept, 0 for one that is dropped.
pub(super) fn on_host(size: usize, prob: f64, key: u64) -> Vec<u8> {
    const CHUNK: usize = 1 << 14;
    let threshold = threshold(prob);
    let mut kept = vec![0u8; size];
    threads::each(kept.chunks_mut(CHUNK).enumerate(), |(chunk, values)| {
        let base = key.wrapping_add(((chunk * CHUNK / 2) as u64).wrapping_mul(GOLDEN));
        piece(base, threshold, values);
    });
    kept
}

widest! {
    /// Elements from that of the counter `base` on.
    fn piece(base: u64, threshold: u32, values: &mut [u8]) {
        let pairs = values.len() / 2;
        let (whole, rest) = values.split_at_mut(2 * pairs);
        for (i, pair) in whole.chunks_exact_mut(2).enumerate() {
            let bits = mix(base.wrapping_add((i as u64).wrapping_mul(GOLDEN)));
            pair[0] = u8::from(bits as u32 >= threshold);
            pair[1] = u8::from((bits >> 32) as u32 >= threshold);
        }
        for value in rest {
            *value = u8::from(mix(base.wrapping_add((pairs as u64).wrapping_mul(GOLDEN))) as u32 >= threshold);
        }
    }
}

/// Whether element `place` is kept, as [`on_host`] says it.
pub(super) fn is_kept(place: usize, prob: f64, key: u64) -> u8 {
    let bits = mix(key.wrapping_add((place as u64 / 2).wrapping_mul(GOLDEN)));
    let half = if place.is_multiple_of(2) { bits as u32 } else { (bits >> 32) as u32 };
    u8::from(half >= threshold(prob))
}

/// The elements themselves.
pub(super) fn factors(kept: &[u8], prob: f64) -> Vec<f32> {
    let scale = scale(prob);
    kept.par_iter().map(|kept| f32::from(*kept) * scale).collect()
}

/// [`factors`] of [`on_host`], computed on `device`: `[size]`.
pub(super) fn on_device(size: usize, prob: f64, key: u64, device: &Device) -> Tensor<1> {
    let pairs = Tensor::<1, Int>::arange(0..size.div_ceil(2) as i64, device).cast(IntDType::I64);
    let bits = bits(pairs, key);
    let halves = Tensor::stack::<2>(vec![bits.clone().bitwise_and_scalar(HALF), shifted(bits, 32)], 1);
    let count = halves.shape().num_elements();
    masked(halves.reshape([count]).slice(0..size).lower_elem(i64::from(threshold(prob))), prob)
}

/// The elements at `places`, computed on their device.
pub(super) fn at(places: Tensor<1, Int>, prob: f64, key: u64) -> Tensor<1> {
    let places = places.cast(IntDType::I64);
    let odd = places.clone().bitwise_and_scalar(1i64);
    let bits = bits(places.bitwise_right_shift_scalar(1i64), key);
    let (low, high) = (bits.clone().bitwise_and_scalar(HALF), shifted(bits, 32));
    let half = low.clone() + (high - low) * odd;
    masked(half.lower_elem(i64::from(threshold(prob))), prob)
}

/// The random bits of pairs of elements. Products and sums of 64-bit integers wrap around.
fn bits(pairs: Tensor<1, Int>, key: u64) -> Tensor<1, Int> {
    let z = pairs.mul_scalar(GOLDEN as i64).add_scalar(key as i64);
    let z = z.clone().bitwise_xor(shifted(z, 30)).mul_scalar(MIX[0] as i64);
    let z = z.clone().bitwise_xor(shifted(z, 27)).mul_scalar(MIX[1] as i64);
    z.clone().bitwise_xor(shifted(z, 31))
}

/// `z >> by` of the bits as an unsigned number: what is shifted in by the sign is cut off.
fn shifted(z: Tensor<1, Int>, by: u32) -> Tensor<1, Int> {
    z.bitwise_right_shift_scalar(i64::from(by)).bitwise_and_scalar((1i64 << (64 - by)) - 1)
}

fn masked(dropped: Tensor<1, Bool>, prob: f64) -> Tensor<1> {
    dropped.bool_not().float().mul_scalar(scale(prob))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::host_values;

    #[test]
    fn a_mask_depends_on_its_key_alone_and_keeps_the_mean() {
        let a = on_host(100_000, 0.1, 7);
        assert_eq!(a, on_host(100_000, 0.1, 7));
        assert_ne!(a, on_host(100_000, 0.1, 8));
        assert_eq!(a[..1001], on_host(1001, 0.1, 7)[..]);
        assert!((0..100_000).all(|place| a[place] == is_kept(place, 0.1, 7)));
        let dropped = a.iter().filter(|kept| **kept == 0).count();
        assert_eq!(dropped, 9992);
        let factors = factors(&a, 0.1);
        assert!(factors.iter().zip(&a).all(|(v, kept)| *v == if *kept == 1 { 1.0 / 0.9 } else { 0.0 }));
    }

    /// The form for GPUs, on the engines of this build.
    #[test]
    fn a_device_computes_the_bits_of_the_host() {
        for name in crate::model::device::available() {
            let device = crate::model::device::open(name).unwrap();
            // Keys with all sorts of signs, an odd number of elements.
            for key in [0, 7, mix(7), u64::MAX, 1 << 63, key(mix(3), 5)] {
                for prob in [0.1, 0.5] {
                    let expected = factors(&on_host(9_999, prob, key), prob);
                    assert_eq!(host_values(on_device(9_999, prob, key, &device)), expected, "{name} {key:x} {prob}");
                    let places: Vec<i64> = (0..9_999).rev().step_by(7).collect();
                    let some: Vec<f32> = places.iter().map(|place| expected[*place as usize]).collect();
                    let places = Tensor::<1, Int>::from_data(places.as_slice(), &device);
                    assert_eq!(host_values(at(places, prob, key)), some, "{name} {key:x} {prob}");
                }
            }
        }
    }
}
