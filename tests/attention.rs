//! Attention in one call of LibTorch against composed operations, on LibTorch's CPU: values, gradients, dropout.
#![cfg(feature = "tch")]

use std::slice::from_ref;

use burn::tensor::activation::softmax;
use burn::tensor::{DType, Device, Tensor};
use vlp::model::attention::{Dropout, scaled_dot_product};
use vlp::model::host_values;
use vlp::model::layers::mix;
use vlp::model::transfer::floats;

const BATCH: usize = 2;
const HEADS: usize = 3;
const QUERIES: usize = 5;
const KEYS: usize = 7;
const SIZE: usize = 8;
const HIDDEN: f32 = -10_000.0;

fn graph() -> Device {
    vlp::model::device::open("tch-cpu").unwrap().autodiff()
}

/// Made-up numbers in [−2, 2).
fn random<const N: usize>(shape: [usize; N], salt: u64) -> Tensor<N> {
    let value = |i: usize| (mix(i as u64 ^ (salt << 32)) >> 40) as f32 / (1u64 << 22) as f32 - 2.0;
    floats((0..shape.iter().product()).map(value).collect::<Vec<_>>(), shape, &graph())
}

/// Queries, keys and values, as they come from a linear map: `[batch, place, head, D]` in memory.
fn leaves() -> [Tensor<4>; 3] {
    [(QUERIES, 1), (KEYS, 2), (KEYS, 3)].map(|(places, salt)| random([BATCH, places, HEADS, SIZE], salt).require_grad())
}

fn heads(leaves: &[Tensor<4>; 3]) -> [Tensor<4>; 3] {
    leaves.each_ref().map(|leaf| leaf.clone().swap_dims(1, 2))
}

/// The formula; `factors` are those of dropout.
fn composed(inputs: [Tensor<4>; 3], bias: Option<Tensor<4>>, factors: Option<Tensor<4>>) -> Tensor<4> {
    let [queries, keys, values] = inputs;
    let size = queries.dims()[3] as f64;
    let scores = queries.matmul(keys.transpose()).div_scalar(size.sqrt());
    let scores = match bias {
        Some(bias) => scores + bias,
        None => scores,
    };
    let weights = softmax(scores, 3);
    let weights = match factors {
        Some(factors) => weights * factors,
        None => weights,
    };
    weights.matmul(values)
}

/// In which of [`biases`] a query sees no key.
const ALL_HIDDEN: usize = 2;

/// 0 for seen and −10,000 for hidden keys: by query, by key, some and all of a row.
fn biases() -> Vec<Option<Tensor<4>>> {
    let hides = |shape: [usize; 4], hides: fn(usize) -> bool| {
        let values = (0..shape.iter().product()).map(|i| if hides(i) { HIDDEN } else { 0.0 });
        Some(floats(values.collect::<Vec<_>>(), shape, &graph()))
    };
    vec![
        None,
        hides([BATCH, 1, QUERIES, KEYS], |i| i % 3 == 1),
        hides([BATCH, 1, QUERIES, KEYS], |i| i / KEYS == 2 || i % KEYS == 6),
        hides([1, 1, QUERIES, KEYS], |i| i % KEYS > i / KEYS),
        hides([BATCH, 1, 1, KEYS], |i| i % KEYS == 4),
        hides([BATCH, 1, 1, 1], |_| false),
    ]
}

/// Values of `out`, and gradients at the leaves of a sum of `out` with weights that differ from place to place.
fn results(out: Tensor<4>, leaves: &[Tensor<4>]) -> Vec<Option<Vec<f32>>> {
    let gradients = (out.clone().cast(DType::F32) * random(out.dims(), 9)).sum().backward();
    let of_leaves = leaves.iter().map(|leaf| leaf.grad(&gradients).map(host_values));
    [Some(host_values(out))].into_iter().chain(of_leaves).collect()
}

fn assert_near(what: &str, found: &[Option<Vec<f32>>], expected: &[Option<Vec<f32>>], allowed: f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (at, pair) in found.iter().zip(expected).enumerate() {
        let (Some(found), Some(expected)) = pair else { panic!("{what}: no result {at}") };
        assert_eq!(found.len(), expected.len(), "{what}");
        for (i, (a, b)) in found.iter().zip(expected).enumerate() {
            assert!((a - b).abs() <= allowed * (1.0 + b.abs()), "{what}: result {at} has {a} at {i}, not {b}");
        }
    }
}

#[test]
fn without_dropout_it_is_the_composed_formula() {
    for (case, bias) in biases().into_iter().enumerate() {
        let [ours, theirs] = [leaves(), leaves()];
        // The scalar may be multiplied into the result's memory, which the backward pass reads as it was.
        let found = scaled_dot_product(heads(&ours), bias.clone(), None).mul_scalar(0.5);
        let expected = composed(heads(&theirs), bias, None).mul_scalar(0.5);
        assert_eq!(found.dims(), [BATCH, HEADS, QUERIES, SIZE]);
        // Of a row whose keys are all hidden f32 keeps scores to 2⁻¹¹, the half of a unit in the last place of 10,000.
        let allowed = if case == ALL_HIDDEN { 1e-3 } else { 1e-5 };
        assert_near(&format!("bias {case}"), &results(found, &ours), &results(expected, &theirs), allowed);
    }
}

#[test]
fn without_a_graph_it_is_the_same() {
    for bias in biases() {
        let ours = leaves();
        let expected = host_values(scaled_dot_product(heads(&ours), bias.clone(), None));
        let found = scaled_dot_product(heads(&ours).map(Tensor::inner), bias.map(Tensor::inner), None);
        assert!(!found.is_autodiff());
        assert_near("plain", &[Some(host_values(found))], &[Some(expected)], 1e-6);
    }
}

#[test]
fn low_types_are_the_formula_up_to_their_rounding() {
    // Half a unit in the last place is 2⁻⁹ and 2⁻¹²; inputs are rounded for both, weights and results for one.
    for (kind, allowed) in [(DType::BF16, 2e-2), (DType::F16, 2.5e-3)] {
        for (case, bias) in biases().into_iter().enumerate() {
            let [ours, theirs] = [leaves(), leaves()];
            let found = scaled_dot_product(heads(&ours).map(|t| t.cast(kind)), bias.clone(), None);
            assert_eq!(found.dtype(), kind);
            let expected = composed(heads(&theirs).map(|t| t.cast(kind).cast(DType::F32)), bias, None);
            let what = format!("{kind:?}, bias {case}");
            assert_near(&what, &results(found, &ours), &results(expected, &theirs), allowed);
        }
    }
}

#[test]
fn only_what_trains_has_a_gradient() {
    let all = {
        let ours = leaves();
        results(scaled_dot_product(heads(&ours), None, None), &ours)
    };
    for trains in 1..8usize {
        let mut ours = leaves();
        for (at, leaf) in ours.iter_mut().enumerate() {
            *leaf = leaf.clone().detach().set_require_grad(trains >> at & 1 == 1);
        }
        let found = results(scaled_dot_product(heads(&ours), None, None), &ours);
        for (at, (found, expected)) in found.iter().zip(&all).enumerate().skip(1) {
            assert_eq!(found.is_some(), trains >> (at - 1) & 1 == 1, "{trains:b}: {at}");
            if found.is_some() {
                assert_near(&format!("{trains:b}"), from_ref(found), from_ref(expected), 1e-6);
            }
        }
    }
    let plain = heads(&leaves().map(|leaf| leaf.set_require_grad(false)));
    assert!(!scaled_dot_product(plain, None, None).is_tracked());
}

#[test]
fn gradients_of_libtorch_stay_off_where_they_are_off() {
    let ours = leaves();
    let expected = results(scaled_dot_product(heads(&ours), None, None), &ours);
    tch::no_grad(|| {
        let ours = leaves();
        assert_near("off", &results(scaled_dot_product(heads(&ours), None, None), &ours), &expected, 0.0);
        let leaf = tch::Tensor::ones([1], (tch::Kind::Float, tch::Device::Cpu)).set_requires_grad(true);
        assert!(!(&leaf * 2.0).requires_grad(), "LibTorch's gradients were left on");
    });
}

/// What dropout leaves of the weights, `[B, A, Q, K]`: attention over values that are unit vectors.
fn weights(inputs: &[Tensor<4>; 3], bias: Option<Tensor<4>>, dropout: Option<Dropout>) -> Tensor<4> {
    let unit: Vec<f32> = (0..KEYS * KEYS).map(|i| f32::from(i % (KEYS + 1) == 0)).collect();
    let unit = floats(unit, [1, 1, KEYS, KEYS], &graph()).expand([BATCH, HEADS, KEYS, KEYS]);
    let [queries, keys, _] = inputs.clone();
    scaled_dot_product([queries, keys, unit], bias, dropout).detach()
}

// The tests of dropout share LibTorch's generator, which the operation guards; nothing else here draws from it.

#[test]
fn the_seed_alone_decides_what_is_dropped() {
    for bias in biases() {
        let run = |seed| {
            let ours = leaves();
            let dropout = Some(Dropout { prob: 0.3, seed });
            results(scaled_dot_product(heads(&ours), bias.clone(), dropout), &ours)
        };
        let first = run(u64::MAX - 5);
        assert_eq!(run(u64::MAX - 5), first);
        assert_ne!(run(6), first);
    }
}

#[test]
fn with_dropout_the_gradient_is_that_of_what_was_computed() {
    let prob = 0.3;
    for (case, bias) in biases().into_iter().enumerate() {
        let dropout = Some(Dropout { prob, seed: 11 + case as u64 });
        let [ours, theirs] = [leaves(), leaves()];
        let whole = host_values(weights(&heads(&ours), bias.clone(), None));
        let left = host_values(weights(&heads(&ours), bias.clone(), dropout));
        let factor = |(left, whole): (&f32, &f32)| if *left == 0.0 { 0.0 } else { left / whole };
        let factors: Vec<f32> = left.iter().zip(&whole).map(factor).collect();
        // Where all keys are hidden, the two may round scores of 10,000 in another order.
        let (scale, off) = (1.0 / (1.0 - prob) as f32, if case == ALL_HIDDEN { 5e-3 } else { 1e-4 });
        assert!(factors.iter().all(|f| *f == 0.0 || (f - scale).abs() <= off), "{case}: {factors:?}");
        assert!(factors.contains(&0.0) && factors.iter().any(|f| *f != 0.0), "{case}: {factors:?}");
        let factors: Vec<f32> = factors.into_iter().map(|f| if f == 0.0 { 0.0 } else { scale }).collect();
        let factors = floats(factors, [BATCH, HEADS, QUERIES, KEYS], &graph());
        let found = scaled_dot_product(heads(&ours), bias.clone(), dropout);
        let expected = composed(heads(&theirs), bias, Some(factors));
        let allowed = if case == ALL_HIDDEN { 5e-3 } else { 2e-5 };
        assert_near(&format!("bias {case}"), &results(found, &ours), &results(expected, &theirs), allowed);
    }
}

#[test]
fn dropout_keeps_the_mean() {
    let ours = heads(&leaves()).map(Tensor::inner);
    let expected = host_values(scaled_dot_product(ours.clone(), None, None));
    let seeds = 4000;
    let mut mean = vec![0f64; expected.len()];
    for seed in 0..seeds {
        let found = scaled_dot_product(ours.clone(), None, Some(Dropout { prob: 0.1, seed: mix(seed) }));
        for (mean, value) in mean.iter_mut().zip(host_values(found)) {
            *mean += f64::from(value) / seeds as f64;
        }
    }
    // A value is a sum of at most 2 in size, with a deviation of at most 2·√(0.1/0.9); of a mean of 4000, 0.0105: five of them.
    for (i, (mean, expected)) in mean.iter().zip(&expected).enumerate() {
        assert!((mean - f64::from(*expected)).abs() <= 0.053, "{i}: {mean}, not {expected}");
    }
}
