//! Losses, outputs, gradients and optimiser steps equal those of the reference.

#[path = "support/mod.rs"]
mod support;
#[path = "support/model.rs"]
mod world;

use std::collections::BTreeSet;

use support::{arrays, assert_close, cases, golden_dir, json};
use vlp::config::TrainSettings;
use vlp::model::host_values;
use vlp::model::layers::Pass;
use vlp::train::bert_adam::{BertAdam, host_gradients, reference_norm};
use vlp::train::objective::{MaskedOptions, answer_loss, best_answer, masked_loss};

#[test]
fn losses_outputs_and_gradients() {
    let root = golden_dir();
    let folder = root.join("forward");
    let images = world::images(&root);
    let mut seen = 0;
    for (name, device) in world::devices() {
        let device = device.autodiff();
        let model = world::model(&device);
        for case in cases(&folder, ".json") {
            let info = json(&folder.join(format!("{case}.json")));
            seen += 1;
            let what = |field: &str| format!("{name} {case} {field}");
            let batch = arrays(&folder.join(format!("{case}.in.safetensors")));
            let golden = arrays(&folder.join(format!("{case}.out.safetensors")));
            let mut inputs = world::inputs(&batch, &images, &device);
            if info["flags"]["mask_regions"] != true {
                inputs.masked_regions.clear();
            }
            let options = MaskedOptions {
                label_smoothing: info["flags"]["smoothing"].as_f64().unwrap_or(0.0),
                drop_worst: info["flags"]["drop_worst"].as_f64().unwrap_or(0.0),
            };

            let mut seen_regions = model.regions(inputs.features.clone(), inputs.positions.clone(), Pass::Evaluate);
            if !inputs.masked_regions.is_empty() {
                seen_regions = seen_regions.hide(&inputs.masked_regions);
            }
            let (ids, segments) = (inputs.ids.clone(), inputs.segments.clone());
            let hidden = model.encode(ids, segments, &seen_regions, inputs.bias.clone(), Pass::Evaluate);
            let [size, _, width] = hidden.dims();
            let first = hidden.clone().slice([0..size, 0..1, 0..width]).reshape([size, width]);
            assert_close(&what("sequence_output"), &host_values(hidden), &golden["sequence_output"].values, 2e-5, 0.0);
            let pooled = host_values(model.bert.pooler.forward(first));
            assert_close(&what("pooled_output"), &pooled, &golden["pooled_output"].values, 2e-5, 0.0);

            let total = if info["flags"]["task"] == "vqa2" {
                let scores = batch["answer_scores"].float(&device);
                let classifier = model.ans_classifier.as_ref().unwrap();
                let found = answer_loss(&model, classifier, &inputs, scores, Pass::Evaluate);
                let logits = host_values(found.logits);
                assert_close(&what("answer_logits"), &logits, &golden["answer_logits"].values, 5e-5, 0.0);
                let answers = golden["answer_logits"].shape[1];
                let best: Vec<u64> = logits.chunks(answers).map(|row| best_answer(row) as u64).collect();
                if let Some(expected) = info["answers"].as_array() {
                    assert_eq!(best, expected.iter().map(|a| a.as_u64().unwrap()).collect::<Vec<_>>(), "{case}");
                }
                found.total
            } else {
                let parts = masked_loss(&model, &inputs, options, Pass::Evaluate);
                if let (Some(logits), Some(expected)) = (parts.logits, golden.get("masked_logits")) {
                    assert_close(&what("masked_logits"), &host_values(logits), &expected.values, 5e-5, 0.0);
                }
                parts.total
            };
            let loss = info["loss"].as_f64().unwrap();
            assert_close(&what("loss"), &host_values(total.clone()), &[loss], 1e-9, 1e-5);

            if info["grad_norms"].as_object().is_none_or(|norms| norms.is_empty()) {
                continue;
            }
            let gradients = host_gradients(&model, &mut total.backward());
            for (key, norm) in info["grad_norms"].as_object().unwrap() {
                let ours = gradients.get(key).map(|g| reference_norm(g));
                match (norm.as_f64(), ours) {
                    (None, ours) => assert_eq!(ours, None, "{}", what(key)),
                    (Some(norm), Some(ours)) if key.ends_with("attention.self.key.bias") => {
                        assert!(ours.abs() < 1e-5 && norm.abs() < 1e-5, "{}: {ours} {norm}", what(key));
                    }
                    (Some(norm), Some(ours)) => {
                        assert!(
                            (ours - norm).abs() <= 1e-4 * norm + 1e-9,
                            "{}: norm {ours} instead of {norm}",
                            what(key)
                        );
                    }
                    (Some(_), None) => panic!("{}: no gradient", what(key)),
                }
            }
            for (key, expected) in golden.iter().filter_map(|(k, v)| Some((k.strip_prefix("grad.")?, v))) {
                let Some(ours) = gradients.get(key) else { panic!("{}: no gradient", what(key)) };
                let (absolute, relative) = if key.ends_with("key.bias") { (1e-6, 0.0) } else { (1e-5, 1e-4) };
                assert_close(&what(key), &ours[..expected.values.len()], &expected.values, absolute, relative);
            }
        }
    }
    assert!(seen > 0);
}

#[test]
fn optimiser_steps() {
    let root = golden_dir();
    let folder = root.join("optim");
    let info = json(&folder.join("optim.json"));
    let images = world::images(&root);
    let golden = arrays(&folder.join("params.safetensors"));
    let number = |key: &str| info[key].as_f64().unwrap();
    let settings = TrainSettings {
        learning_rate: number("lr"),
        warmup_proportion: number("warmup"),
        weight_decay: number("weight_decay"),
        beta1: number("b1"),
        beta2: number("b2"),
        epsilon: number("e"),
        max_grad_norm: number("max_grad_norm"),
        ..TrainSettings::default()
    };
    let batches: Vec<_> = cases(&folder, ".safetensors").into_iter().filter(|c| c.starts_with("batch")).collect();
    for (name, device) in world::devices() {
        let device = device.autodiff();
        let mut model = world::model(&device);
        let mut adam = BertAdam::new(&settings, number("t_total") as u64);
        for (step, expected) in info["steps"].as_array().unwrap().iter().enumerate() {
            let rate = adam.learning_rate(step as u64);
            assert!((rate - expected["lr"].as_f64().unwrap()).abs() <= 1e-12, "{name} step {step}: rate {rate}");
            let batch = arrays(&folder.join(format!("{}.safetensors", batches[step % batches.len()])));
            let inputs = world::inputs(&batch, &images, &device);
            let loss = masked_loss(&model, &inputs, MaskedOptions::default(), Pass::Evaluate).total;
            assert_close(
                &format!("{name} loss {step}"),
                &host_values(loss.clone()),
                &[info["losses"][step].as_f64().unwrap()],
                0.0,
                1e-4,
            );
            let gradients = host_gradients(&model, &mut loss.mul_scalar(number("loss_scale")).backward());
            let clipped: BTreeSet<&str> =
                gradients.iter().filter(|(_, g)| reference_norm(g) > 1.0).map(|(k, _)| k.as_str()).collect();
            let of = |key: &str| {
                expected[key].as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect::<BTreeSet<_>>()
            };
            assert_eq!(clipped, of("clipped"), "{name} step {step}");
            for untouched in of("untouched") {
                assert!(!gradients.contains_key(untouched), "{name} step {step}: {untouched}");
            }
            model = adam.step(model, gradients).0;
            for parameter in model.parameters() {
                let ours: Vec<f32> = parameter.data.try_into_vec().unwrap();
                let key = &parameter.name;
                if let Some(whole) = golden.get(&format!("step{step}.{key}")).filter(|_| !key.ends_with("key.bias")) {
                    assert_close(&format!("{name} step {step} {key}"), &ours, &whole.values, 1e-5, 0.0);
                }
                let sums = &expected["checksums"][key];
                if sums.is_null() || key.ends_with("key.bias") {
                    continue;
                }
                let sum = |key: &str, i: usize| sums.get(key).or(sums.get(i)).unwrap().as_f64().unwrap();
                let norm = ours.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
                assert!((norm - sum("norm", 2)).abs() <= 1e-6 * norm, "{name} step {step} {key}: norm {norm}");
                let total: f64 = ours.iter().map(|v| f64::from(*v)).sum();
                assert!(
                    (total - sum("sum", 0)).abs() <= 2e-6 * sum("abs_sum", 1),
                    "{name} step {step} {key}: sum {total}"
                );
            }
        }
        for (key, moments) in &adam.moments {
            for (letter, ours) in [("m", &moments.first), ("v", &moments.second)] {
                if let Some(expected) = golden.get(&format!("{letter}.{key}")).filter(|_| !key.ends_with("key.bias")) {
                    assert_close(&format!("{name} {letter}.{key}"), ours, &expected.values, 1e-6, 1e-4);
                }
            }
        }
    }
}
