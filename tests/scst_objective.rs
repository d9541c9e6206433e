//! Self-critical training in one pass over the finished text equals decoding step by step, with dropout and without; its
//! gradient is that of the log-probabilities with which the words were drawn.

use burn::module::Module;
use burn::tensor::activation::log_softmax;
use burn::tensor::{DType, Device, Tensor, TensorData};
use vlp::config::{ModelSettings, Precision, ScstMask};
use vlp::decode::{Extent, Prompt, Stepper, TextDropout, encode_image};
use vlp::model::layers::{DropoutStream, Pass, mix};
use vlp::model::{DataSizes, Vlp, host_values};
use vlp::train::bert_adam::{HostGradients, host_gradients};
use vlp::train::objective::{SampledInputs, ScstLoss, SelfCriticalObjective, reward_loss, text_log_probs, text_places};
use vlp::train::precision::{LossScale, dtype};

const PROMPT: Prompt = Prompt { cls: 1, sep: 2, mask: 3, pad: 0 };
const EXTENT: Extent = Extent { words: 7, end: 2, padding: 0 };
const SEED: u64 = 99;

struct World {
    model: Vlp,
    features: Tensor<3>,
    positions: Tensor<3>,
}

fn world(device: &Device, dropout: f64) -> World {
    let settings = ModelSettings {
        hidden_size: 16,
        num_hidden_layers: 3,
        num_attention_heads: 4,
        intermediate_size: 32,
        max_position_embeddings: 32,
        hidden_dropout_prob: dropout,
        attention_probs_dropout_prob: dropout,
        initializer_range: 0.3,
        ..ModelSettings::default()
    };
    let sizes = DataSizes { vocabulary: 23, region_feature_size: 5, num_region_classes: 4, answers: 0 };
    let device = device.clone().autodiff();
    let table = |width: usize, salt: u64| {
        let value = |i: usize| (mix(i as u64 ^ mix(salt)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
        let values: Vec<f32> = (0..4 * 6 * width).map(value).collect();
        Tensor::<3>::from_data(TensorData::new(values, [4, 6, width]), &device)
    };
    World { model: Vlp::new(&settings, sizes, 4, &device), features: table(5, 1), positions: table(10, 2) }
}

fn captions() -> Vec<Vec<u32>> {
    vec![vec![7, 8, 9, 10, 11, 12, 2], vec![5, 2], vec![6, 7, 8, 2], vec![20, 19, 18, 17, 2]]
}

fn loss(world: &World, mask: ScstMask) -> ScstLoss {
    let objective = SelfCriticalObjective { prompt: PROMPT, extent: EXTENT, mask, corpus: None };
    objective.loss(&world.model, world.features.clone(), world.positions.clone(), &captions(), SEED)
}

/// The log-probabilities of given draws, decoded word by word with the masks that the objective uses.
fn step_by_step(world: &World, mask: ScstMask, draws: &[Vec<u32>]) -> Vec<Vec<f32>> {
    let model = world.model.clone().valid();
    let stream = DropoutStream::new(mix(SEED ^ 1));
    let (features, positions) = (world.features.clone().inner(), world.positions.clone().inner());
    let image = encode_image(&model, PROMPT, features, positions, Pass::Train(&stream));
    let horizons = (mask == ScstMask::Reference).then(|| captions().iter().map(Vec::len).collect());
    let dropout = TextDropout { seed: mix(SEED ^ 2), words: EXTENT.words, first: 0 };
    let mut stepper = Stepper::behind(&model, PROMPT, image).with_horizons(horizons).with_dropout(dropout);
    let mut found = vec![Vec::new(); draws.len()];
    let mut last: Option<Vec<u32>> = None;
    for step in 0..EXTENT.words {
        let values = host_values(log_softmax(stepper.logits(last.as_deref()), 1));
        for (image, row) in values.chunks_exact(23).enumerate() {
            found[image].push(row[draws[image][step] as usize]);
        }
        last = Some(draws.iter().map(|row| row[step]).collect());
    }
    found
}

/// Places whose log-probability counts: the first, and those behind a word that is not padding.
fn counted(draws: &[Vec<u32>]) -> Vec<(usize, usize)> {
    let mut places = Vec::new();
    for (image, row) in draws.iter().enumerate() {
        let cut = EXTENT.cut(row);
        places.extend((0..EXTENT.words).filter(|i| *i == 0 || cut[i - 1] != 0).map(|i| (image, i)));
    }
    places
}

#[test]
fn one_pass_equals_step_by_step() {
    for name in vlp::model::device::available() {
        let device = vlp::model::device::open(name).unwrap();
        for dropout in [0.0, 0.3] {
            for mask in [ScstMask::Reference, ScstMask::Causal] {
                let world = world(&device, dropout);
                let found = loss(&world, mask);
                let ours = host_values(found.log_probs.clone());
                let expected = step_by_step(&world, mask, &found.draws);
                let places = counted(&found.draws);
                assert!(places.len() > 12, "{name} {mask:?}: {:?}", found.draws);
                let (mut sum, mut count) = (0.0, 0.0);
                for (image, place) in places {
                    let (a, b) = (ours[image * EXTENT.words + place], expected[image][place]);
                    assert!(
                        (a - b).abs() <= 5e-5,
                        "{name}, dropout {dropout}, {mask:?}, image {image}, place {place}: {a} against {b}"
                    );
                    sum -= f64::from(b) * found.rewards.reward[image];
                    count += 1.0;
                }
                let total = f64::from(host_values(found.total)[0]);
                assert!((total - sum / count).abs() <= 1e-4, "{name} {mask:?}: loss {total} against {}", sum / count);
            }
        }
    }
}

/// The same world with its regions in another type, which all passes follow.
fn in_type(world: World, kind: DType) -> World {
    World { features: world.features.cast(kind), positions: world.positions.cast(kind), ..world }
}

#[test]
fn words_are_drawn_in_the_numbers_of_the_gradient() {
    for name in vlp::model::device::available() {
        let device = vlp::model::device::open(name).unwrap();
        // The two passes add in another order, and bfloat16 rounds each sum to 2⁻⁹; fp16 to 2⁻¹².
        for (precision, allowed) in [(Precision::Bf16, 0.1), (Precision::Fp16, 0.0125)] {
            let world = in_type(world(&device, 0.3), dtype(precision));
            let found = loss(&world, ScstMask::Reference);
            assert_eq!((found.total.dtype(), found.log_probs.dtype()), (DType::F32, DType::F32));
            let ours = host_values(found.log_probs);
            let expected = step_by_step(&world, ScstMask::Reference, &found.draws);
            let apart = counted(&found.draws)
                .into_iter()
                .map(|(image, place)| (ours[image * EXTENT.words + place] - expected[image][place]).abs())
                .fold(0.0, f32::max);
            eprintln!("{name} {precision:?}: drawn and trained log-probabilities {apart:.1e} apart");
            assert!(apart <= allowed, "{name} {precision:?}: {apart}");
        }
    }
}

/// Loss and gradients of given captions and rewards, all passes in `kind`.
fn of_draws(device: &Device, kind: DType, scale: f64) -> (f32, HostGradients) {
    let world = in_type(world(device, 0.3), kind);
    let draws = [[7, 8, 2, 4, 0, 0, 0], [9, 10, 11, 12, 13, 14, 15], [5, 2, 6, 0, 0, 0, 0], [16, 17, 18, 2, 3, 0, 0]];
    let cut: Vec<u32> = draws.iter().flat_map(|row| EXTENT.cut(row)).collect();
    let (segments, visible) = text_places(4, EXTENT.words, None);
    let inputs = SampledInputs { draws: &draws.concat(), segments: &segments, visible: &visible };
    // Passes in several types are compared, which must drop the same.
    let [image, text] = [1, 2].map(DropoutStream::replayed);
    let states = encode_image(&world.model, PROMPT, world.features, world.positions, Pass::Train(&image));
    let log_probs = text_log_probs(&world.model, PROMPT, &states, &inputs, Pass::Train(&text));
    let loss = reward_loss(log_probs, &cut, &[0.7, -0.4, 1.1, 0.2], EXTENT.padding);
    let value = host_values(loss.clone())[0];
    (value, host_gradients(&world.model, &mut loss.mul_scalar(scale).backward()))
}

#[test]
fn loss_and_gradients_in_low_precision_are_near_those_in_fp32() {
    for name in vlp::model::device::available() {
        let device = vlp::model::device::open(name).unwrap();
        let (exact, exact_gradients) = of_draws(&device, DType::F32, 1.0);
        // As for masked words (tests/precision.rs): some units in the last place, 2⁻⁹ and 2⁻¹².
        for (precision, loss_bound, gradient_bound) in [(Precision::Bf16, 1e-2, 5e-2), (Precision::Fp16, 1e-3, 1e-2)] {
            let mut scale = LossScale { factor: 1024.0, good_steps: 0 };
            let (found, mut gradients) = of_draws(&device, dtype(precision), scale.factor);
            scale.remove_from(&mut gradients);
            assert!(scale.update(&gradients), "{name} {precision:?}: gradients are not finite");
            let relative = ((found - exact) / exact).abs();
            let squares = |of: &dyn Fn(f32, f32) -> f32| -> f64 {
                assert!(gradients.keys().eq(exact_gradients.keys()));
                let pairs = gradients.values().flatten().zip(exact_gradients.values().flatten());
                pairs.map(|(a, b)| f64::from(of(*a, *b)).powi(2)).sum()
            };
            let apart = (squares(&|a, b| a - b) / squares(&|_, b| b)).sqrt();
            eprintln!("{name} {precision:?}: loss {relative:.1e}, gradients {apart:.1e} from fp32");
            assert!(relative <= loss_bound, "{name} {precision:?}: loss {found}, in fp32 {exact}");
            assert!(0.0 < apart && apart <= gradient_bound, "{name} {precision:?}: gradients are {apart} from fp32");
        }
        let mut scale = LossScale { factor: 2f64.powi(32), good_steps: 7 };
        let (_, mut gradients) = of_draws(&device, DType::F16, scale.factor);
        scale.remove_from(&mut gradients);
        assert!(!scale.update(&gradients), "{name}: gradients scaled by 2³² fit into fp16");
        assert_eq!(scale, LossScale { factor: 2f64.powi(31), good_steps: 0 });
    }
}

#[test]
fn dropout_changes_what_is_drawn_and_masks_are_shared() {
    let device = Device::flex();
    let plain = loss(&world(&device, 0.0), ScstMask::Causal);
    let dropped = loss(&world(&device, 0.3), ScstMask::Causal);
    assert_ne!(host_values(plain.log_probs.clone()), host_values(dropped.log_probs));
    let again = loss(&world(&device, 0.0), ScstMask::Causal);
    assert_eq!((plain.draws, plain.rewards), (again.draws, again.rewards), "the same seed draws the same");
}

#[test]
fn places_beyond_the_paired_caption_see_the_image_only() {
    // Under the reference's mask the second image's places from 2 on do not know what was drawn before them.
    let world = world(&Device::flex(), 0.0);
    let draws = |word: u32| vec![vec![word, 9, 9, 9, 9, 9, 9]; 4];
    let (a, b) =
        (step_by_step(&world, ScstMask::Reference, &draws(5)), step_by_step(&world, ScstMask::Reference, &draws(8)));
    assert_ne!(a[1][1], b[1][1]);
    assert_eq!(a[1][2..], b[1][2..]);
    assert_ne!(a[0][3], b[0][3]);
    let causal = step_by_step(&world, ScstMask::Causal, &draws(5));
    assert_ne!(a[1][2], causal[1][2]);
    assert_eq!(a[0], causal[0], "a caption that fills all places knows no difference");
}

#[test]
fn corpus_document_frequencies_do_not_depend_on_the_batch() {
    let world = world(&Device::flex(), 0.0);
    let mut objective = SelfCriticalObjective { prompt: PROMPT, extent: EXTENT, mask: ScstMask::Causal, corpus: None };
    let images: Vec<Vec<Vec<u32>>> =
        captions().into_iter().map(|c| vec![c, vec![4, 5, 2]]).chain([vec![vec![13, 14, 2]]]).collect();
    let frequencies = objective.document_frequencies(&images);
    assert_eq!(frequencies.documents(), 5);
    objective.corpus = Some(frequencies);
    let take = |count: usize| {
        let part = |t: &Tensor<3>| t.clone().narrow(0, 0, count);
        let found =
            objective.loss(&world.model, part(&world.features), part(&world.positions), &captions()[..count], SEED);
        found.rewards
    };
    let (two, four) = (take(2), take(4));
    assert_eq!(two.reward[..], four.reward[..2]);
    let batch = loss(&world, ScstMask::Causal).rewards;
    assert_ne!(batch.sampled, four.sampled);
}
