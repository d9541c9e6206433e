//! The golden model and its batches.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use vlp::config::ModelSettings;
use vlp::model::encoder::attention_bias;
use vlp::model::weights::{self, LoadOptions};
use vlp::model::{DataSizes, Vlp};
use vlp::train::objective::MaskedInputs;

use super::support::{Array, arrays, golden_dir, json, read};

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
    let sizes =
        DataSizes { vocabulary: size("vocab_size"), region_feature_size: 2048, num_region_classes: 1601, answers };
    let model = Vlp::new(&settings, sizes, 0, device);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.bin");
    std::fs::write(&path, read(&root.join("model.legacy.bin"))).unwrap();
    weights::load(model, &path, LoadOptions::default()).unwrap().0
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
