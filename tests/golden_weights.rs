//! Checkpoints of the reference in the model, and ours in PyTorch's layout.

#[path = "support/mod.rs"]
mod support;
#[path = "support/model.rs"]
mod world;

use std::collections::BTreeMap;
use std::process::Command;

use burn::tensor::Device;
use support::{golden_dir, read};
use vlp::formats;
use vlp::model::Vlp;
use vlp::model::weights::{self, LoadOptions};

fn bits(model: &Vlp) -> BTreeMap<String, Vec<u32>> {
    let values = |p: vlp::model::vlp::NamedParameter| p.data.try_into_vec::<f32>().unwrap();
    model.parameters().into_iter().map(|p| (p.name.clone(), values(p).iter().map(|v| v.to_bits()).collect())).collect()
}

fn containers() -> Vec<&'static str> {
    vec!["model.legacy.bin", "model.zip.bin"]
}

#[test]
fn both_containers_fill_every_parameter_and_what_we_write_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut all = Vec::new();
    for container in containers() {
        let path = folder.path().join(container);
        std::fs::write(&path, read(&golden_dir().join(container))).unwrap();
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
    assert!(all[0] == all[1]);
}

#[test]
fn missing_weights_are_named_unless_they_are_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let full = folder.path().join("full.bin");
    std::fs::write(&full, read(&golden_dir().join("model.zip.bin"))).unwrap();
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
fn convert_writes_what_it_read_and_overwrites_nothing() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("in.bin"), read(&golden_dir().join("adapt/old.bin"))).unwrap();
    let vlp =
        |args: &[&str]| Command::new(env!("CARGO_BIN_EXE_vlp")).current_dir(folder.path()).args(args).output().unwrap();
    let done = vlp(&["convert", "in.bin", "out.safetensors"]);
    let text = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(0), "{text}");
    assert!(text.contains("renamed bert.embeddings.LayerNorm.gamma to bert.embeddings.LayerNorm.weight\n"), "{text}");
    assert!(text.ends_with("wrote out.safetensors\n"), "{text}");
    let (old, new) = (
        formats::open(&folder.path().join("in.bin")).unwrap(),
        formats::open(&folder.path().join("out.safetensors")).unwrap(),
    );
    for (name, _) in old.tensors() {
        let current = formats::adapt::current_name(name);
        assert!(old.read_f32(name).unwrap() == new.read_f32(&current).unwrap(), "{name}");
    }
    let again = vlp(&["convert", "in.bin", "out.safetensors"]);
    assert_eq!(again.status.code(), Some(2));
    assert_eq!(
        String::from_utf8(again.stderr).unwrap(),
        "error: out.safetensors exists\n  help: name another file; nothing is overwritten\n"
    );
}
