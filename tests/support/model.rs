//! The golden model and its batches.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use vlp::config::ModelSettings;
use vlp::model::encoder::attention_bias;
use vlp::model::layers::Pass;
use vlp::model::weights::{self, LoadOptions};
use vlp::model::{DataSizes, Vlp, host_values};
use vlp::train::bert_adam::{HostGradients, reference_norm};
use vlp::train::objective::{MaskedInputs, MaskedOptions, answer_loss, masked_loss};

use super::support::{Array, arrays, assert_close, cases, golden_dir, json, read};

/// The engines of this build.
pub fn devices() -> Vec<(&'static str, Device)> {
    vlp::model::device::available().into_iter().map(|name| (name, vlp::model::device::open(name).unwrap())).collect()
}

/// The golden model on `device`, without dropout.
pub fn model(device: &Device) -> Vlp {
    let root = golden_dir();
    let c = json(&root.join("bert_config.json"));
    let size = |key: &str| c[key].as_u64().unwrap() as usize;
    let settings = ModelSettings {
        hidden_size: size("hidden_size"),
        num_hidden_layers: size("num_hidden_layers"),
        num_attention_heads: size("num_attention_heads"),
        intermediate_size: size("intermediate_size"),
        max_position_embeddings: size("max_position_embeddings"),
        type_vocab_size: size("type_vocab_size"),
        hidden_dropout_prob: c["hidden_dropout_prob"].as_f64().unwrap(),
        attention_probs_dropout_prob: c["attention_probs_dropout_prob"].as_f64().unwrap(),
        ..ModelSettings::default()
    };
    let answers = json(&root.join("config.json"))["num_answers"].as_u64().unwrap() as usize;
    let images = images(&root);
    let sizes = DataSizes {
        vocabulary: size("vocab_size"),
        region_feature_size: images["feats"].shape[2],
        num_region_classes: images["vis_pe"].shape[2] - 6,
        answers,
    };
    let model = Vlp::new(&settings, sizes, 0, device);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.bin");
    std::fs::write(&path, read(&root.join(&checkpoints(&root)[0]))).unwrap();
    weights::load(model, &path, LoadOptions::default()).unwrap().0
}

/// File names of the golden model, one per container.
pub fn checkpoints(root: &Path) -> Vec<String> {
    let found: Vec<String> =
        cases(root, ".bin").into_iter().filter(|n| n.starts_with("model.")).map(|n| n + ".bin").collect();
    assert!(!found.is_empty(), "no model.*.bin in {}", root.display());
    found
}

/// Total and logits (answers or masked words) of the loss that `flags` ask for; regions are masked only where they do.
pub fn loss(
    model: &Vlp,
    batch: &BTreeMap<String, Array>,
    inputs: &MaskedInputs,
    flags: &serde_json::Value,
) -> (Tensor<1>, Option<Vec<f32>>) {
    if flags["task"] == "vqa2" {
        let scores = batch["answer_scores"].float(&inputs.features.device());
        let found = answer_loss(model, model.ans_classifier.as_ref().unwrap(), inputs, scores, Pass::Evaluate);
        return (found.total, Some(host_values(found.logits)));
    }
    let number = |key: &str| flags[key].as_f64().unwrap_or(0.0);
    let options = MaskedOptions { label_smoothing: number("smoothing"), drop_worst: number("drop_worst") };
    let found = masked_loss(model, inputs, options, Pass::Evaluate);
    (found.total, found.logits.map(host_values))
}

/// The batch for [`loss`].
pub fn inputs_for(
    batch: &BTreeMap<String, Array>,
    images: &BTreeMap<String, Array>,
    flags: &serde_json::Value,
    device: &Device,
) -> MaskedInputs {
    let mut inputs = inputs(batch, images, device);
    if flags["mask_regions"] != true {
        inputs.masked_regions.clear();
    }
    inputs
}

/// Norms of all gradients (null: none at all), and those that are given whole. Norms are equal to 1e-4 relative; where
/// terms cancel, what is left is rounding, which a hundred-millionth of all gradients' norm allows for.
pub fn assert_gradients(
    what: &str,
    gradients: &HostGradients,
    norms: &serde_json::Value,
    golden: &BTreeMap<String, Array>,
) {
    let norms = norms.as_object().unwrap();
    for (key, norm) in norms {
        match (norm.as_f64(), gradients.get(key).map(|g| reference_norm(g))) {
            (None, ours) => assert_eq!(ours, None, "{what} {key}"),
            (Some(_), None) => panic!("{what} {key}: no gradient"),
            (Some(norm), Some(ours)) if key.ends_with("attention.self.key.bias") => {
                assert!(ours.abs() < 1e-5 && norm.abs() < 1e-5, "{what} {key}: {ours} {norm}");
            }
            (Some(norm), Some(ours)) => {
                let allowed = 1e-4 * norm + 1e-9;
                assert!((ours - norm).abs() <= allowed, "{what} {key}: norm {ours} instead of {norm}");
            }
        }
    }
    for (key, expected) in golden.iter().filter_map(|(k, v)| Some((k.strip_prefix("grad.")?, v))) {
        let Some(ours) = gradients.get(key) else { panic!("{what} {key}: no gradient") };
        let (absolute, relative) = if key.ends_with("key.bias") { (1e-6, 0.0) } else { (1e-5, 1e-4) };
        assert_close(&format!("{what} {key}"), &ours[..expected.values.len()], &expected.values, absolute, relative);
    }
}

/// Sum, sum of magnitudes and norm of a parameter: `golden` holds them by name or in this order. Sums may be off by
/// `sum` times the sum of magnitudes, the others by `relative`.
pub fn assert_sums(what: &str, ours: &[f32], golden: &serde_json::Value, sum: f64, relative: f64) {
    let of = |key: &str, i: usize| golden.get(key).or(golden.get(i)).unwrap().as_f64().unwrap();
    let over = |f: fn(f64) -> f64| ours.iter().map(|v| f(f64::from(*v))).sum::<f64>();
    for (key, i, ours, allowed) in [
        ("sum", 0, over(|v| v), sum * of("abs_sum", 1)),
        ("abs_sum", 1, over(f64::abs), sum * of("abs_sum", 1)),
        ("norm", 2, over(|v| v * v).sqrt(), relative * of("norm", 2)),
    ] {
        let golden = of(key, i);
        assert!((ours - golden).abs() <= allowed, "{what}: {key} {ours} instead of {golden}");
    }
}

/// A golden batch as the masked objective takes it.
pub fn inputs(batch: &BTreeMap<String, Array>, images: &BTreeMap<String, Array>, device: &Device) -> MaskedInputs {
    let image = batch["image"].i64();
    let ids = &batch["input_ids"];
    let (b, t) = (ids.shape[0], ids.shape[1]);
    let regions = images["feats"].shape[1];
    let text: Vec<i64> = (0..b)
        .flat_map(|i| (0..t).filter(move |j| *j == 0 || *j > regions).map(move |j| i * t + j))
        .map(|k| ids.values[k] as i64)
        .collect();
    let field = |name: &str| batch.get(name).map(Array::i64).unwrap_or_default();
    MaskedInputs {
        features: images["feats"].rows(&image).float(device),
        positions: images["vis_pe"].rows(&image).float(device),
        ids: Tensor::from_data(TensorData::new(text, [b, t - regions]), device),
        segments: batch["segment_ids"].int(device),
        bias: attention_bias(batch["input_mask"].float(device)),
        masked_positions: field("masked_pos"),
        masked_ids: field("masked_ids"),
        masked_weights: field("masked_weights").iter().map(|w| *w as f32).collect(),
        masked_regions: field("vis_masked_pos"),
    }
}

/// The images of the golden world.
pub fn images(root: &Path) -> BTreeMap<String, Array> {
    arrays(&root.join("images.safetensors"))
}
