//! Twenty steps on fixed batches, and self-critical training with given samples, equal those of the reference.

#[path = "support/mod.rs"]
mod support;
#[path = "support/model.rs"]
mod world;

use burn::module::Module;
use support::{Array, arrays, assert_close, cases, golden_dir, json};
use vlp::config::TrainSettings;
use vlp::decode::{Extent, Prompt, Stepper, encode_image, greedy_and_sample};
use vlp::metrics::cider::{self_critical, until_padding};
use vlp::model::host_values;
use vlp::model::layers::Pass;
use vlp::train::bert_adam::{BertAdam, host_gradients};
use vlp::train::objective::{SampledInputs, reward_loss, text_log_probs, text_places};

#[test]
fn training_curves() {
    let root = golden_dir();
    let folder = root.join("train_curve");
    let images = world::images(&root);
    for case in cases(&folder, ".json") {
        let info = json(&folder.join(format!("{case}.json")));
        let settings = TrainSettings {
            learning_rate: info["lr"].as_f64().unwrap(),
            warmup_proportion: info["warmup"].as_f64().unwrap(),
            ..TrainSettings::default()
        };
        let batches: Vec<_> = info["batches"]
            .as_array()
            .unwrap()
            .iter()
            .map(|b| {
                arrays(&folder.join(format!(
                    "{}.safetensors",
                    b["file"].as_str().or(b.as_str()).unwrap().trim_end_matches(".safetensors")
                )))
            })
            .collect();
        for (name, device) in world::devices() {
            let device = device.autodiff();
            let mut model = world::model(&device);
            let mut adam = BertAdam::new(&settings, info["t_total"].as_u64().unwrap());
            let losses = info["losses"].as_array().unwrap();
            for (step, expected) in losses.iter().enumerate() {
                let (batch, own) = (&batches[step % batches.len()], &info["batches"][step % batches.len()]["flags"]);
                let flags = if own.is_null() { &info["flags"] } else { own };
                let inputs = world::inputs_for(batch, &images, flags, &device);
                let (loss, _) = world::loss(&model, batch, &inputs, flags);
                // Rounding grows over the steps: 1e-5 at the first, 1e-3 at the last.
                let relative = 1e-5 * 100f64.powf(step as f64 / (losses.len() - 1).max(1) as f64);
                let what = format!("{name} {case} step {step}");
                assert_close(&what, &host_values(loss.clone()), &[expected.as_f64().unwrap()], 0.0, relative);
                let gradients = host_gradients(&model, &mut loss.backward());
                model = adam.step(model, gradients).0;
            }
            for parameter in model.parameters() {
                let ours: Vec<f32> = parameter.data.try_into_vec().unwrap();
                let golden = &info["final"][&parameter.name];
                if golden.is_null() || parameter.name.ends_with("key.bias") {
                    continue;
                }
                world::assert_sums(&format!("{name} {case} {}", parameter.name), &ours, golden, 1e-3, 1e-3);
            }
        }
    }
}

fn words(array: &Array) -> Vec<u32> {
    array.values.iter().map(|v| *v as u32).collect()
}

#[test]
fn self_critical_training() {
    let root = golden_dir();
    let info = json(&root.join("scst/scst.json"));
    let config = json(&root.join("config.json"));
    let golden = arrays(&root.join("scst/scst.safetensors"));
    let images = world::images(&root);
    let id = |key: &str| config[key].as_u64().unwrap() as u32;
    let prompt = Prompt { cls: id("cls_id"), sep: id("sep_id"), mask: id("mask_id"), pad: id("pad_id") };
    let rows = |name: &str| {
        let width = golden[name].shape[1];
        let words = words(&golden[name]);
        words.chunks(width).map(<[u32]>::to_vec).collect::<Vec<_>>()
    };

    let cut = |name: &str| rows(name).iter().map(|row| until_padding(row, 0).to_vec()).collect::<Vec<_>>();
    let found = self_critical(&cut("sampled_cut"), &cut("greedy_cut"), &cut("gt_ids"), 0);
    for (ours, expected) in found.reward.iter().zip(&golden["reward"].values) {
        assert!((ours - expected).abs() <= 1e-9, "reward {ours} instead of {expected}");
    }

    for (name, device) in world::devices() {
        let device = device.autodiff();
        let model = world::model(&device);
        let image = golden["image"].i64();
        let features = images["feats"].rows(&image).float(&device);
        let positions = images["vis_pe"].rows(&image).float(&device);
        let draws = words(&golden["draws"]);
        let width = golden["draws"].shape[1];
        // What the golden mask and segments say about the text; the image part is the same for all.
        let (mask, segments) = (golden["input_mask"].f32(), golden["segment_ids"].i64());
        let length = golden["segment_ids"].shape[1];
        let start = length - width;
        let text_segments: Vec<i64> = segments.chunks(length).flat_map(|row| &row[start..]).copied().collect();
        let visible: Vec<f32> = mask
            .chunks(length)
            .enumerate()
            .filter(|(row, _)| row % length >= start)
            .flat_map(|(_, row)| {
                assert!(row[..start].iter().all(|seen| *seen == 1.0), "the image is visible to all");
                &row[start..]
            })
            .copied()
            .collect();
        let horizons: Vec<usize> =
            rows("gt_ids").iter().map(|row| row.iter().position(|w| *w == 0).unwrap_or(width)).collect();
        let places = text_places(image.len(), width, Some(&horizons));
        assert_eq!(places, (text_segments, visible), "the horizon rule is the golden mask");
        let inputs = SampledInputs { draws: &draws, segments: &places.0, visible: &places.1 };
        let states = encode_image(&model, prompt, features.clone(), positions.clone(), Pass::Evaluate);
        let log_probs = text_log_probs(&model, prompt, &states, &inputs, Pass::Evaluate);

        let extent = Extent { words: width, end: prompt.sep, padding: prompt.pad };
        let frozen = model.clone().valid();
        // Each image twice: once for the greedy caption, once for a drawn one.
        let [features, positions] = [features, positions].map(|values| values.inner().repeat_dim(0, 2));
        let stepper = Stepper::new(&frozen, prompt, features, positions).with_horizons(Some(horizons.repeat(2)));
        let (greedy, _) = greedy_and_sample(stepper, extent, 0);
        let greedy: Vec<Vec<u32>> = greedy.iter().map(|row| extent.cut(row)).collect();
        assert_eq!(greedy, rows("greedy_cut"), "{name} greedy captions under the training mask");
        assert_eq!(rows("draws").iter().map(|row| extent.cut(row)).collect::<Vec<_>>(), rows("sampled_cut"));
        assert_close(
            &format!("{name} log-probabilities"),
            &host_values(log_probs.clone()),
            &golden["draw_logprobs"].values,
            5e-5,
            0.0,
        );
        let loss = reward_loss(log_probs, &words(&golden["sampled_cut"]), &golden["reward"].values, prompt.pad);
        assert_close(&format!("{name} loss"), &host_values(loss.clone()), &[info["loss"].as_f64().unwrap()], 1e-5, 0.0);
        let gradients = host_gradients(&model, &mut loss.backward());
        world::assert_gradients(&format!("{name} gradient"), &gradients, &info["grad_norms"], &golden);
    }
}
