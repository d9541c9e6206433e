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
use vlp::train::objective::{MaskedOptions, best_answer, masked_loss};

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
            let inputs = world::inputs_for(&batch, &images, &info["flags"], &device);

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

            let (total, logits) = world::loss(&model, &batch, &inputs, &info["flags"]);
            let of_task = if info["flags"]["task"] == "vqa2" { "answer_logits" } else { "masked_logits" };
            let expected = golden.get(of_task);
            assert_eq!(logits.is_some(), expected.is_some(), "{}", what(of_task));
            if let (Some(logits), Some(expected)) = (logits, expected) {
                assert_close(&what(of_task), &logits, &expected.values, 5e-5, 0.0);
                if let Some(answers) = info["answers"].as_array() {
                    let best = logits.chunks(expected.shape[1]).map(|row| best_answer(row) as u64);
                    let answers: Vec<u64> = answers.iter().map(|a| a.as_u64().unwrap()).collect();
                    assert_eq!(best.collect::<Vec<_>>(), answers, "{case}");
                }
            }
            let loss = info["loss"].as_f64().unwrap();
            assert_close(&what("loss"), &host_values(total.clone()), &[loss], 1e-9, 1e-5);

            if info["grad_norms"].as_object().is_none_or(|norms| norms.is_empty()) {
                continue;
            }
            let gradients = host_gradients(&model, &mut total.backward());
            world::assert_gradients(&what("gradient"), &gradients, &info["grad_norms"], &golden);
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
        schedule: serde_json::from_value(info["schedule"].clone()).unwrap(),
        ..TrainSettings::default()
    };
    let batches = cases(&folder, ".safetensors").into_iter().filter(|c| c.starts_with("batch")).count();
    for (name, device) in world::devices() {
        let device = device.autodiff();
        let mut model = world::model(&device);
        let mut adam = BertAdam::new(&settings, number("t_total") as u64);
        for (step, expected) in info["steps"].as_array().unwrap().iter().enumerate() {
            let rate = adam.learning_rate(step as u64);
            assert!((rate - expected["lr"].as_f64().unwrap()).abs() <= 1e-12, "{name} step {step}: rate {rate}");
            let batch = arrays(&folder.join(format!("batch{}.safetensors", step % batches)));
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
            // A gradient whose norm is the limit, but for rounding, may count as clipped or not.
            let limit = settings.max_grad_norm;
            let certain = |name: &&str| (reference_norm(&gradients[*name]) - limit).abs() > 1e-4 * limit;
            let clipped = gradients.iter().filter(|(_, g)| limit > 0.0 && reference_norm(g) > limit);
            let clipped: BTreeSet<&str> = clipped.map(|(k, _)| k.as_str()).filter(certain).collect();
            let of = |key: &str| {
                expected[key].as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect::<BTreeSet<_>>()
            };
            let golden_clipped: BTreeSet<&str> = of("clipped").into_iter().filter(certain).collect();
            assert_eq!(clipped, golden_clipped, "{name} step {step}");
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
                world::assert_sums(&format!("{name} step {step} {key}"), &ours, sums, 2e-6, 1e-6);
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
