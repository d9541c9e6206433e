//! Self-test of decoding: words exactly, logits and scores within the tolerances of the golden data.

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use serde::Deserialize;

use super::check::{Check, Tolerance, within};
use super::golden::{self, GoldenError, World};
use crate::decode::{BeamSettings, Stepper, beam_search, greedy_logits};
use crate::model::{Vlp, host_floats, host_values};

const SCORE: Tolerance = Tolerance { absolute: 1e-4, relative: 1e-5 };

#[derive(Debug, Deserialize)]
struct Info {
    steps: usize,
    eos: u32,
    beams: Vec<Search>,
}

/// A search and what it finds.
#[derive(Debug, Deserialize)]
struct Search {
    beam_size: usize,
    length_penalty: f32,
    min_len: usize,
    ngram_size: usize,
    ignore_ids: Vec<u32>,
    eos_bias_shift: f32,
    pred_seq: Vec<Vec<u32>>,
    best: Vec<f64>,
}

/// Greedy decoding, and the searches with a minimum length or with blocked n-grams and ignored words.
pub fn checks(world: &World, device: &Device) -> Result<Vec<Check>, GoldenError> {
    let [info, images, golden] = golden::DECODING;
    let (info, golden): (Info, _) = (info.json()?, golden.arrays()?);
    let images = images.arrays()?.integers("image");
    let model = world.model(device)?.0.valid();
    let (features, positions) = world.regions(&images, device);
    let regions = || (features.clone(), positions.clone());

    let (mut words, mut logits) = (Check::new("greedy: words"), Check::new("greedy: logits"));
    let (found, steps) = greedy_logits(stepper(&model, world, regions()), info.steps);
    words.words("words", &found.concat(), &golden.get("ids", 2)?.words());
    let expected = golden.get("logits", 3)?;
    let vocabulary = expected.shape[2];
    for (i, step) in steps.into_iter().enumerate() {
        let of_step = expected.values.chunks_exact(vocabulary).skip(i).step_by(info.steps).flatten().copied();
        logits.numbers(&format!("step {i}"), &host_values(step), &of_step.collect::<Vec<_>>(), within(1e-4));
    }

    let mut checks = vec![words, logits];
    for search in info.beams.iter().filter(|s| s.min_len > 0 || !s.ignore_ids.is_empty()) {
        let settings = BeamSettings {
            beam_size: search.beam_size,
            max_length: info.steps,
            min_length: search.min_len,
            length_penalty: search.length_penalty,
            no_repeat_ngram: search.ngram_size,
            ignored: search.ignore_ids.clone(),
            end: info.eos,
        };
        let model = biased(model.clone(), info.eos, search.eos_bias_shift);
        let found = beam_search(stepper(&model, world, regions()), &settings);
        let what = match search.min_len {
            0 => format!("beam {}, no {}-gram twice", search.beam_size, search.ngram_size),
            least => format!("beam {}, at least {least} words", search.beam_size),
        };
        let (mut words, mut scores) = (Check::new(format!("{what}: words")), Check::new(format!("{what}: scores")));
        for (i, result) in found.iter().enumerate() {
            let golden = search.pred_seq.get(i).map(Vec::as_slice).unwrap_or_default();
            words.words(&format!("image {i}"), &result.words, golden);
        }
        scores.numbers("image", &found.iter().map(|r| r.score).collect::<Vec<_>>(), &search.best, SCORE);
        checks.extend([words, scores]);
    }
    Ok(checks)
}

fn stepper<'a>(model: &'a Vlp, world: &World, (features, positions): (Tensor<3>, Tensor<3>)) -> Stepper<'a> {
    Stepper::new(model, world.prompt, features, positions)
}

/// The model with `shift` added to the output bias of `word`: makes captions end early or late.
fn biased(model: Vlp, word: u32, shift: f32) -> Vlp {
    model.replace(&mut |name, shape, current| {
        (name == "cls.predictions.bias").then(|| {
            let shifted = host_floats(current()).into_iter().enumerate();
            let values = shifted.map(|(id, bias)| if id == word as usize { bias + shift } else { bias }).collect();
            TensorData::new(values, shape.to_vec())
        })
    })
}
