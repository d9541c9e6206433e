//! Checkpoints of the reference in the model, and ours in PyTorch's layout.

#[path = "support/mod.rs"]
mod support;
#[path = "support/model.rs"]
mod world;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use burn::tensor::Device;
use support::{arrays, golden_dir, json, read};
use vlp::config::ModelSettings;
use vlp::formats;
use vlp::model::weights::{self, LoadOptions};
use vlp::model::{DataSizes, Vlp};

fn bits(model: &Vlp) -> BTreeMap<String, Vec<u32>> {
    let values = |p: vlp::model::vlp::NamedParameter| p.data.try_into_vec::<f32>().unwrap();
    model.parameters().into_iter().map(|p| (p.name.clone(), values(p).iter().map(|v| v.to_bits()).collect())).collect()
}

/// Folders of the golden set that hold an old checkpoint and what it becomes.
fn old_checkpoints() -> Vec<PathBuf> {
    let folders = std::fs::read_dir(golden_dir()).unwrap().map(|entry| entry.unwrap().path());
    let found: Vec<PathBuf> = folders.filter(|f| f.join("adapt.json").exists()).collect();
    assert!(!found.is_empty(), "no adapt.json below {}", golden_dir().display());
    found
}

#[test]
fn both_containers_fill_every_parameter_and_what_we_write_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut all = Vec::new();
    for container in world::checkpoints(&golden_dir()) {
        let path = folder.path().join(&container);
        std::fs::write(&path, read(&golden_dir().join(&container))).unwrap();
        let (model, report) = weights::load(world::model(&Device::flex()), &path, LoadOptions::default()).unwrap();
        assert_eq!(report, weights::LoadReport::default(), "{container}");
        let written = folder.path().join(format!("{container}.safetensors"));
        weights::save(&model, &written).unwrap();
        let (again, _) = weights::load(world::model(&Device::flex()), &written, LoadOptions::default()).unwrap();
        assert!(bits(&model) == bits(&again), "{container}");

        // Name by name what PyTorch's state dict holds, the tied matrix under both of its names.
        let (ours, theirs) = (formats::open(&written).unwrap(), formats::open(&path).unwrap());
        let listing = |file: &formats::StateDict| {
            file.tensors().map(|(name, info)| (name.to_owned(), info.shape.clone())).collect::<BTreeMap<_, _>>()
        };
        assert_eq!(listing(&ours), listing(&theirs), "{container}");
        for (name, _) in theirs.tensors() {
            assert!(ours.read_f32(name).unwrap() == theirs.read_f32(name).unwrap(), "{container} {name}");
        }
        all.push(bits(&model));
    }
    assert!(all.iter().all(|model| *model == all[0]));
}

#[test]
fn missing_weights_are_named_unless_they_are_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let full = folder.path().join("full.bin");
    std::fs::write(&full, read(&golden_dir().join(&world::checkpoints(&golden_dir())[0]))).unwrap();
    let file = formats::open(&full).unwrap();
    let kept: Vec<(String, Vec<usize>, Vec<u8>)> = file
        .tensors()
        .filter(|(name, _)| !name.starts_with("vis_"))
        .map(|(name, info)| {
            let bytes = file.read_f32(name).unwrap().iter().flat_map(|v| v.to_le_bytes()).collect();
            (name.to_owned(), info.shape.clone(), bytes)
        })
        .collect();
    let path = folder.path().join("text.safetensors");
    weights::save_tensors(kept.iter().map(|(n, s, b)| (n.as_str(), &s[..], &b[..])), &path).unwrap();
    let error = weights::load(world::model(&Device::flex()), &path, LoadOptions::default()).unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "{} has no weights for vis_embed.0.weight, vis_embed.0.bias, vis_embed.2.weight, vis_embed.2.bias, \
             vis_pe_embed.0.weight, vis_pe_embed.0.bias\n  help: if they are meant to start from random values, list them in \
             `init.allow_missing`",
            path.display()
        )
    );
    let allowed = ["vis_*".to_owned()];
    let options = LoadOptions { allow_missing: &allowed, task_idx: None };
    let (_, report) = weights::load(world::model(&Device::flex()), &path, options).unwrap();
    assert_eq!(report.missing.len(), 6);
}

#[test]
fn old_checkpoints_fill_the_model() {
    let folder = tempfile::tempdir().unwrap();
    for golden in old_checkpoints() {
        let (info, expected) = (json(&golden.join("adapt.json")), arrays(&golden.join("new.safetensors")));
        if info["relax_projection"].as_u64().unwrap() > 1 {
            continue; // the model has one transform; several are tested in golden_checkpoints.rs
        }
        let what = golden.display().to_string();
        let shape = |name: &str| expected.get(name).map(|array| array.shape.clone());
        let path = folder.path().join("old.bin");
        std::fs::write(&path, read(&golden.join("old.bin"))).unwrap();
        let words = shape("bert.embeddings.word_embeddings.weight").unwrap();
        let settings = ModelSettings {
            hidden_size: words[1],
            num_hidden_layers: (0..).take_while(|i| shape(&layer(*i)).is_some()).count(),
            num_attention_heads: 1,
            intermediate_size: shape(&layer(0)).map_or(8, |shape| shape[0]),
            max_position_embeddings: info["max_position_embeddings"].as_u64().unwrap() as usize,
            type_vocab_size: info["type_vocab_size"].as_u64().unwrap() as usize,
            ..ModelSettings::default()
        };
        let sizes = DataSizes {
            vocabulary: words[0],
            region_feature_size: shape("vis_embed.0.weight").map_or(4, |shape| shape[1]),
            num_region_classes: shape("vis_pe_embed.0.weight").map_or(4, |shape| shape[1] - 6),
            answers: shape("ans_classifier.2.weight").map_or(0, |shape| shape[0]),
        };
        let allow_missing = ["*".to_owned()];
        let task_idx = info["task_idx"].as_u64().map(|task| task as usize);
        let options = LoadOptions { allow_missing: &allow_missing, task_idx };
        let new = Vlp::new(&settings, sizes, 0, &Device::flex());
        let (model, report) = weights::load(new, &path, options).unwrap();
        let mut compared = 0;
        for parameter in model.parameters() {
            let missing = report.missing.contains(&parameter.name);
            assert_eq!(missing, !expected.contains_key(&parameter.name), "{what}: {}", parameter.name);
            if let Some(expected) = expected.get(&parameter.name) {
                assert_eq!(parameter.shape, expected.shape, "{what}: {}", parameter.name);
                assert!(parameter.data.try_into_vec::<f32>().unwrap() == expected.f32(), "{what}: {}", parameter.name);
                compared += 1;
            }
        }
        assert!(compared > 0, "{what}");
    }
}

fn layer(i: usize) -> String {
    format!("bert.encoder.layer.{i}.intermediate.dense.weight")
}

#[test]
fn convert_writes_what_it_read_and_overwrites_nothing() {
    for golden in old_checkpoints() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("in.bin"), read(&golden.join("old.bin"))).unwrap();
        let vlp = |args: &[&str]| {
            Command::new(env!("CARGO_BIN_EXE_vlp")).current_dir(folder.path()).args(args).output().unwrap()
        };
        let done = vlp(&["convert", "in.bin", "out.safetensors"]);
        let text = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(0), "{text}");
        assert!(text.ends_with("wrote out.safetensors\n"), "{text}");
        let (old, new) = (
            formats::open(&folder.path().join("in.bin")).unwrap(),
            formats::open(&folder.path().join("out.safetensors")).unwrap(),
        );
        for (name, info) in old.tensors() {
            let current = formats::adapt::current_name(name);
            let told = text.contains(&format!("renamed {name} to {current}\n"));
            assert_eq!(told, name != current, "{name}: {text}");
            assert_eq!(new.get(&current).unwrap().shape, info.shape, "{name}");
            assert!(old.read_f32(name).unwrap() == new.read_f32(&current).unwrap(), "{name}");
        }
        let again = vlp(&["convert", "in.bin", "out.safetensors"]);
        assert_eq!(again.status.code(), Some(2));
        assert_eq!(
            String::from_utf8(again.stderr).unwrap(),
            "error: out.safetensors exists\n  help: name another file; nothing is overwritten\n"
        );
    }
}
