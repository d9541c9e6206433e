//! Greedy and beam decoding give the reference's words and scores.

#[path = "support/mod.rs"]
mod support;
#[path = "support/model.rs"]
mod world;

use burn::module::Module;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, TensorData};
use support::{Array, arrays, assert_close, golden_dir, json};
use vlp::decode::{BeamResult, BeamSettings, Prompt, Stepper, beam_frames, beam_search, greedy, greedy_logits};
use vlp::model::{Vlp, host_values};

struct Setting {
    prompt: Prompt,
    steps: usize,
    features: Array,
    positions: Array,
    info: serde_json::Value,
}

fn setting() -> Setting {
    let root = golden_dir();
    let images = world::images(&root);
    let info = json(&root.join("decode/decode.json"));
    let config = json(&root.join("config.json"));
    let input = arrays(&root.join("decode/in.safetensors"));
    let id = |key: &str| config[key].as_u64().unwrap() as u32;
    let image = input["image"].i64();
    Setting {
        prompt: Prompt { cls: id("cls_id"), sep: id("sep_id"), mask: id("mask_id"), pad: id("pad_id") },
        steps: info["steps"].as_u64().unwrap() as usize,
        features: images["feats"].rows(&image),
        positions: images["vis_pe"].rows(&image),
        info,
    }
}

/// A model in evaluation form, and the device of its inputs.
type Form = (&'static str, Vlp, Device);

/// With ordinary products, with packed ones where the engine has them, and composed of ordinary operations, as in a graph that computes
/// activations twice.
fn forms(model: Vlp, device: &Device) -> [Form; 3] {
    let model = model.valid();
    let graph = device.clone().autodiff().gradient_checkpointing();
    [
        ("ordinary products", model.clone(), device.clone()),
        ("composed operations", model.clone(), graph),
        ("packed products", model.packed(), device.clone()),
    ]
}

/// On every engine.
fn every_form() -> impl Iterator<Item = (&'static str, Form)> {
    let of = |(name, device): (&'static str, Device)| forms(world::model(&device), &device).map(|form| (name, form));
    world::devices().into_iter().flat_map(of)
}

fn ids(value: &serde_json::Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect()
}

#[test]
fn greedy_words_and_logits() {
    let golden = arrays(&golden_dir().join("decode/greedy.safetensors"));
    let s = setting();
    for (name, (form, model, device)) in every_form() {
        let name = format!("{name}, {form}");
        let stepper = || Stepper::new(&model, s.prompt, s.features.float(&device), s.positions.float(&device));
        let (words, logits) = greedy_logits(stepper(), s.steps);
        let flat: Vec<i64> = words.iter().flatten().map(|w| i64::from(*w)).collect();
        assert_eq!(flat, golden["ids"].i64(), "{name}");
        let vocabulary = *golden["logits"].shape.last().unwrap();
        for (step, logits) in logits.into_iter().enumerate() {
            let expected: Vec<f64> = (0..words.len())
                .flat_map(|row| &golden["logits"].values[(row * s.steps + step) * vocabulary..][..vocabulary])
                .copied()
                .collect();
            assert_close(&format!("{name} step {step}"), &host_values(logits), &expected, 1e-4, 0.0);
        }
        let cut: Vec<Vec<u32>> = words
            .iter()
            .map(|row| row.iter().position(|w| *w == s.prompt.sep).map_or(row.clone(), |end| row[..=end].to_vec()))
            .collect();
        assert_eq!(greedy(stepper(), s.steps, s.prompt.sep), cut, "{name}: images leaving the batch change nothing");
    }
}

/// Each given word is fed back in its turn.
#[test]
fn log_probabilities_of_given_words() {
    let golden = arrays(&golden_dir().join("decode/greedy.safetensors"));
    let s = setting();
    let draws: Vec<u32> = golden["draws"].i64().iter().map(|w| *w as u32).collect();
    for (name, (form, model, device)) in every_form() {
        let mut stepper = Stepper::new(&model, s.prompt, s.features.float(&device), s.positions.float(&device));
        let (mut last, mut found) = (None::<Vec<u32>>, vec![0.0; draws.len()]);
        for step in 0..s.steps {
            let words: Vec<u32> = draws.iter().skip(step).step_by(s.steps).copied().collect();
            let log_probs = log_softmax(stepper.logits(last.as_deref()), 1);
            let vocabulary = log_probs.dims()[1];
            for (row, (word, of_row)) in words.iter().zip(host_values(log_probs).chunks(vocabulary)).enumerate() {
                found[row * s.steps + step] = of_row[*word as usize];
            }
            last = Some(words);
        }
        assert_close(&format!("{name}, {form}"), &found, &golden["draw_logprobs"].values, 1e-4, 0.0);
    }
}

/// The model with `shift` added to the output bias of `word`.
fn biased(model: Vlp, word: u32, shift: f32) -> Vlp {
    model.replace(&mut |name, shape, current| {
        (name == "cls.predictions.bias").then(|| {
            let mut values: Vec<f32> = current().try_into_vec().unwrap();
            values[word as usize] += shift;
            TensorData::new(values, shape.to_vec())
        })
    })
}

#[test]
fn beam_search_in_every_setting() {
    let golden = arrays(&golden_dir().join("decode/beams.safetensors"));
    let s = setting();
    let end = s.info["eos"].as_u64().unwrap() as u32;
    for (name, device) in world::devices() {
        for (j, beam, (form, model, device)) in
            s.info["beams"].as_array().unwrap().iter().enumerate().flat_map(|(j, beam)| {
                let shift = beam["eos_bias_shift"].as_f64().unwrap() as f32;
                forms(biased(world::model(&device), end, shift), &device).map(|form| (j, beam, form))
            })
        {
            let number = |key: &str| beam[key].as_u64().unwrap() as usize;
            let settings = BeamSettings {
                beam_size: number("beam_size"),
                max_length: s.steps,
                min_length: number("min_len"),
                length_penalty: beam["length_penalty"].as_f64().unwrap() as f32,
                no_repeat_ngram: number("ngram_size"),
                ignored: ids(&beam["ignore_ids"]),
                end,
            };
            let stepper = || Stepper::new(&model, s.prompt, s.features.float(&device), s.positions.float(&device));
            let (found, stopped) = (beam_frames(stepper(), &settings), beam_search(stepper(), &settings));
            let k = settings.beam_size;
            for (i, (result, stopped)) in found.iter().zip(&stopped).enumerate() {
                let what = format!("{name}, {form}: setting {j} image {i}");
                let best = beam["best"][i].as_f64().unwrap();
                for result in [result, stopped] {
                    assert_eq!(result.words, ids(&beam["pred_seq"][i]), "{what}");
                    assert_close(&what, &[result.score], &[best], 1e-4, 1e-5);
                }
                let words =
                    |result: &BeamResult| result.frames.iter().map(|frame| frame.words.clone()).collect::<Vec<_>>();
                assert!(words(result).starts_with(&words(stopped)), "{what}: it stops earlier, or not");
                assert_eq!(result.frames.len() as u64 - 1, beam["last_frame"][i].as_u64().unwrap(), "{what}");
                for (f, frame) in result.frames.iter().enumerate() {
                    let at = (i * s.steps + f) * k;
                    let row = |field: &str| &golden[&format!("{j}.{field}")].values[at..at + k];
                    let words: Vec<f64> = frame.words.iter().map(|w| f64::from(*w)).collect();
                    let pointers: Vec<f64> = frame.pointers.iter().map(|p| *p as f64).collect();
                    assert_eq!((&words[..], &pointers[..]), (row("wids"), row("ptrs")), "{what} frame {f}");
                    assert_close(&format!("{what} frame {f}"), &frame.scores, row("scores"), 1e-4, 1e-5);
                }
            }
        }
    }
}
