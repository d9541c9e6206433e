//! Behaviours of the reference that a reader would not expect (`QUIRKS.md`): those that no other test covers, and that every
//! test and option which the table names exists.

#[path = "support/mod.rs"]
mod support;
#[path = "support/model.rs"]
mod world;

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Device, Tensor};
use support::{Array, arrays, assert_close, cases, golden_dir, json};
use vlp::config::ModelSettings;
use vlp::formats;
use vlp::model::layers::Pass;
use vlp::model::weights::{self, LoadOptions};
use vlp::model::{DataSizes, Vlp, host_floats, host_values};
use vlp::train::bert_adam::host_gradients;
use vlp::train::objective::{MaskedInputs, MaskedOptions, best_answer, masked_loss};

/// A golden batch of several captions with masked words and nothing else.
fn captions() -> (BTreeMap<String, Array>, BTreeMap<String, Array>) {
    let folder = golden_dir().join("forward");
    let plain = |case: &&String| {
        let info = json(&folder.join(format!("{case}.json")));
        let batch = arrays(&folder.join(format!("{case}.in.safetensors")));
        info["flags"].as_object().is_none_or(|flags| flags.is_empty())
            && batch.get("masked_ids").is_some_and(|ids| ids.shape[0] > 2)
    };
    let all = cases(&folder, ".json");
    let case = all.iter().find(plain).expect("a case of captions");
    (arrays(&folder.join(format!("{case}.in.safetensors"))), world::images(&golden_dir()))
}

fn loss_of(model: &Vlp, inputs: &MaskedInputs, options: MaskedOptions) -> Tensor<1> {
    masked_loss(model, inputs, options, Pass::Evaluate).total
}

/// int(B · (1 − ratio)) samples stay, which may be none.
#[test]
fn a_ratio_that_keeps_no_sample_gives_a_loss_of_zero() {
    let (batch, images) = captions();
    for (name, device) in world::devices() {
        let device = device.autodiff();
        let model = world::model(&device);
        let inputs = world::inputs(&batch, &images, &device);
        let samples = batch["image"].values.len() as f64;
        let options = MaskedOptions { drop_worst: 1.0 - 0.9 / samples, ..MaskedOptions::default() };
        let loss = loss_of(&model, &inputs, options);
        assert_eq!(host_values(loss.clone()), [0.0], "{name}");
        for (key, gradient) in host_gradients(&model, &mut loss.backward()) {
            assert!(gradient.iter().all(|v| *v == 0.0), "{name} {key}");
        }
    }
}

/// The mean is over the words of the kept samples, and their number has 1e-5 added.
#[test]
fn the_samples_of_least_loss_are_kept() {
    let (batch, images) = captions();
    let device = Device::flex();
    let model = world::model(&device);
    let [samples, places] = batch["masked_ids"].shape[..] else { panic!("two axes") };
    let mut alone: Vec<(f64, f64)> = Vec::new();
    for sample in 0..samples {
        let mut inputs = world::inputs(&batch, &images, &device);
        for (place, weight) in inputs.masked_weights.iter_mut().enumerate() {
            *weight *= f32::from(place / places == sample);
        }
        let words: f64 = inputs.masked_weights.iter().map(|w| f64::from(*w)).sum();
        let mean = f64::from(host_values(loss_of(&model, &inputs, MaskedOptions::default()))[0]);
        alone.push((mean * (words + 1e-5), words));
    }
    alone.sort_by(|a, b| a.0.total_cmp(&b.0));
    let inputs = world::inputs(&batch, &images, &device);
    for kept in 1..=samples {
        let drop_worst = 1.0 - (kept as f64 + 0.5) / samples as f64;
        let options = MaskedOptions { drop_worst: drop_worst.max(1e-9), ..MaskedOptions::default() };
        let kept = if drop_worst > 0.0 { kept } else { samples - 1 };
        let (loss, words) = alone[..kept].iter().fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        let found = host_values(loss_of(&model, &inputs, options));
        assert_close(&format!("{kept} kept"), &found, &[loss / (words + 1e-5)], 1e-9, 1e-5);
    }
}

/// KL divergence from (1 − s) on the label and s / (V − 2) on every word but the label and id 0.
#[test]
fn label_smoothing_is_a_divergence_that_spares_id_0() {
    let (batch, images) = captions();
    let device = Device::flex();
    let model = world::model(&device);
    let smoothing = 0.2;
    let options = MaskedOptions { label_smoothing: smoothing, ..MaskedOptions::default() };
    let mut inputs = world::inputs(&batch, &images, &device);
    let found = masked_loss(&model, &inputs, options, Pass::Evaluate);
    let logits = found.logits.unwrap();
    let vocabulary = logits.dims()[2];
    let (mut sum, mut words) = (0.0, 0.0);
    for (place, logits) in host_values(logits).chunks(vocabulary).enumerate() {
        let (label, weight) = (inputs.masked_ids[place] as usize, f64::from(inputs.masked_weights[place]));
        let shift = logits.iter().map(|v| f64::from(*v).exp()).sum::<f64>().ln();
        let divergence = |(id, logit): (usize, &f32)| {
            let q: f64 = match id {
                _ if id == label => 1.0 - smoothing,
                0 => return 0.0,
                _ => smoothing / (vocabulary as f64 - 2.0),
            };
            q * (q.ln() - (f64::from(*logit) - shift))
        };
        sum += weight * logits.iter().enumerate().map(divergence).sum::<f64>();
        words += weight;
    }
    assert_close("smoothed", &host_values(found.total), &[sum / (words + 1e-5)], 0.0, 1e-5);
    inputs.masked_ids.fill(0);
    assert_eq!(host_values(loss_of(&model, &inputs, options)), [0.0], "a label of 0 costs nothing");
}

#[test]
fn the_unknown_answer_never_wins() {
    assert_eq!(best_answer(&[9.0, 1.0, 2.0, 2.0]), 2);
    assert_eq!(best_answer(&[9.0, f32::NEG_INFINITY]), 1);
}

/// BERT's own maps are normal, with biases of 0; what was made after them keeps the default of linear layers.
#[test]
fn visual_and_answer_layers_keep_another_initialisation() {
    let settings = ModelSettings {
        hidden_size: 64,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        intermediate_size: 96,
        max_position_embeddings: 80,
        ..ModelSettings::default()
    };
    let sizes = DataSizes { vocabulary: 120, region_feature_size: 100, num_region_classes: 43, answers: 30 };
    for parameter in Vlp::new(&settings, sizes, 3, &Device::flex()).parameters() {
        let (name, values) = (parameter.name, host_floats(parameter.data));
        let largest = values.iter().fold(0f32, |largest, v| largest.max(v.abs()));
        let fan_in = match name.rsplit_once('.').unwrap().0 {
            "vis_embed.0" | "vis_embed.2" => Some(100f32),
            "vis_pe_embed.0" => Some(49.0),
            "ans_classifier.0" => Some(64.0),
            "ans_classifier.2" => Some(128.0),
            _ => None,
        };
        match fan_in {
            Some(fan_in) => {
                let bound = 1.0 / fan_in.sqrt();
                assert!(largest <= bound && largest > 0.9 * bound, "{name}: {largest} of {bound}");
            }
            None if name.ends_with("LayerNorm.weight") => assert!(values.iter().all(|v| *v == 1.0), "{name}"),
            None if name.ends_with("bias") => assert_eq!(largest, 0.0, "{name}"),
            None => {
                let deviation = (values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32).sqrt();
                assert!((deviation / 0.02 - 1.0).abs() < 0.1, "{name}: standard deviation {deviation}");
                assert!(largest > 0.04 && largest < 0.12, "{name}: {largest}");
            }
        }
    }
}

/// The reference keeps the smoothed target as a buffer; it is no parameter, and no reason to refuse the file.
#[test]
fn the_buffer_of_label_smoothing_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let (plain, path) = (folder.path().join("plain.safetensors"), folder.path().join("smoothed.safetensors"));
    let model = world::model(&Device::flex());
    weights::save(&model, &plain).unwrap();
    let file = formats::open(&plain).unwrap();
    let bytes = |values: Vec<f32>| values.into_iter().flat_map(f32::to_le_bytes).collect::<Vec<u8>>();
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = file
        .tensors()
        .map(|(name, info)| (name.to_owned(), info.shape.clone(), bytes(file.read_f32(name).unwrap())))
        .collect();
    tensors.push(("crit_mask_lm_smoothed.one_hot".into(), vec![1, 7], bytes(vec![0.1; 7])));
    weights::save_tensors(tensors.iter().map(|(n, s, b)| (n.as_str(), &s[..], &b[..])), &path).unwrap();
    let (loaded, report) = weights::load(world::model(&Device::flex()), &path, LoadOptions::default()).unwrap();
    assert_eq!(report.unexpected, ["crit_mask_lm_smoothed.one_hot"]);
    assert_eq!((report.missing.len(), report.changes.len()), (0, 0));
    for (ours, theirs) in loaded.parameters().into_iter().zip(model.parameters()) {
        assert!(host_floats(ours.data) == host_floats(theirs.data), "{}", ours.name);
    }
}

/// What is wrong with the table `text`: rows 1 to 19 once each, every one with at least one test; tests and options exist.
fn complaints(text: &str, read: impl Fn(&str) -> Option<String>, is_option: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    let rows: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| line.starts_with("| ") && line[2..].starts_with(|c: char| c.is_ascii_digit()))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    for number in 1..=19 {
        match rows.iter().filter(|row| row[0] == number.to_string()).count() {
            1 => {}
            count => found.push(format!("row {number} stands there {count} times")),
        }
    }
    for row in rows {
        let covered: Vec<&str> = row.last().unwrap_or(&"").split('`').skip(1).step_by(2).collect();
        if covered.is_empty() {
            found.push(format!("row {} names no test and no option", row[0]));
        }
        for name in covered {
            let Some((file, test)) = name.split_once("::") else {
                if !is_option(name) {
                    found.push(format!("row {}: there is no option `{name}`", row[0]));
                }
                continue;
            };
            // A test is a function, or a line of the `mistakes!` table of its file.
            let is_test = |source: String| {
                let function = source.split(&format!("fn {test}(")).next().filter(|before| before.len() < source.len());
                let attributed = function.is_some_and(|before| before.trim_end().ends_with("#[test]"));
                attributed || source.contains(&format!("\n    {test}: \""))
            };
            if !read(file).is_some_and(is_test) {
                found.push(format!("row {}: there is no test `{name}`", row[0]));
            }
        }
    }
    found
}

#[test]
fn the_table_names_tests_and_options_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("tests/QUIRKS.md")).unwrap();
    let read = |file: &str| std::fs::read_to_string(root.join(file)).ok();
    let found = complaints(&text, read, |key| vlp::config::explain(Some(key)).is_ok());
    assert!(found.is_empty(), "tests/QUIRKS.md:\n{}", found.join("\n"));
}

#[test]
fn a_stale_table_is_named() {
    let rows: String = (2..=19).map(|i| format!("| {i} | x | `a.rs::sound` |\n")).collect();
    let read =
        |file: &str| (file == "a.rs").then(|| "#[test]\nfn sound() {}\nfn helper() {}\n    row: \"x\";".to_owned());
    let of = |first: &str| complaints(&format!("{first}{rows}"), read, |key| key == "train.x");
    assert_eq!(of("| 1 | x | `a.rs::sound`, `a.rs::row`; option `train.x` |\n"), [""; 0]);
    assert_eq!(of("| 1 | x | `a.rs::gone` |\n"), ["row 1: there is no test `a.rs::gone`"]);
    assert_eq!(of("| 1 | x | `a.rs::helper` |\n"), ["row 1: there is no test `a.rs::helper`"]);
    assert_eq!(of("| 1 | x | `b.rs::sound` |\n"), ["row 1: there is no test `b.rs::sound`"]);
    assert_eq!(of("| 1 | x | option `train.y` |\n"), ["row 1: there is no option `train.y`"]);
    assert_eq!(of("| 1 | x | |\n"), ["row 1 names no test and no option"]);
    assert_eq!(of(""), ["row 1 stands there 0 times"]);
}
