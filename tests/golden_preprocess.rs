//! The data pipeline against files made by the original: words, lists, masking, masks, regions.
//!
//! `VLP_GOLDEN_DIR` names the uncut golden set; without it the cut copy in `tests/golden` is read.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

use half::f16;
use safetensors::SafeTensors;
use serde_json::Value;
use vlp::config::{DataSettings, Dataset};
use vlp::data::batch::Batch;
use vlp::data::karpathy::{CaptionData, ImageId};
use vlp::data::region_store::{RegionStore, Table};
use vlp::data::sample::{Choices, Layout, MaskMode, prediction_count};
use vlp::data::tokenizer::Tokenizer;

fn golden_dir() -> PathBuf {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
    std::env::var_os("VLP_GOLDEN_DIR").map_or_else(|| PathBuf::from(beside), PathBuf::from)
}

/// The content of a file, or of its gzip-compressed form.
fn bytes(name: &str) -> Vec<u8> {
    let path = golden_dir().join(name);
    if path.exists() {
        return std::fs::read(&path).unwrap();
    }
    let packed = std::fs::File::open(path.with_added_extension("gz")).unwrap();
    let mut content = Vec::new();
    flate2::read::GzDecoder::new(packed).read_to_end(&mut content).unwrap();
    content
}

fn json(name: &str) -> Value {
    serde_json::from_slice(&bytes(name)).unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn numbers(value: &Value) -> Vec<usize> {
    list(value).iter().map(|n| n.as_u64().unwrap() as usize).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn tokenizer(cased: bool) -> Tokenizer {
    Tokenizer::from_file(golden_dir().join("vocab.txt"), cased).unwrap()
}

fn settings() -> DataSettings {
    let at = |name: &str| golden_dir().join("preprocess").join(name).to_str().unwrap().to_owned();
    let (config, content) = (json("config.json"), bytes("images.safetensors"));
    let images = SafeTensors::deserialize(&content).unwrap();
    let width = |name: &str| images.tensor(name).unwrap().shape()[2];
    DataSettings {
        num_regions: regions(),
        region_feature_size: width("feats"),
        num_region_classes: width("vis_pe") - 6,
        max_text_length: config["max_len_b"].as_u64().unwrap() as usize,
        dataset: Dataset::Coco,
        annotations: at("dataset.json"),
        valid_images: at("valid_jpgs.json"),
        region_prefix: at("feat_cls_1000/coco_detection_vg_100dets_gvd_checkpoint_trainval"),
        boxes: at("coco_detection_vg_thresh0.2_feat_gvd_checkpoint_trainvaltest.h5"),
        ..DataSettings::default()
    }
}

/// Regions per image.
fn regions() -> usize {
    json("config.json")["len_vis_input"].as_u64().unwrap() as usize
}

fn tokens(tokenizer: &Tokenizer, text: &str) -> Vec<String> {
    tokenizer.encode(text).into_iter().map(|id| tokenizer.token(id).to_owned()).collect()
}

#[test]
fn word_pieces() {
    let (cased, uncased) = (tokenizer(true), tokenizer(false));
    let cases = json("preprocess/tokenize.json");
    assert!(!list(&cases).is_empty());
    for case in list(&cases) {
        let words = text(&case["text"]);
        assert_eq!(Value::from(tokens(&cased, words)), case["cased"], "cased: {words:?}");
        assert_eq!(Value::from(tokens(&uncased, words)), case["uncased"], "uncased: {words:?}");
        assert_eq!(Value::from(cased.encode(words)), case["cased_ids"], "ids: {words:?}");
    }
}

#[test]
fn control_tokens() {
    let (tokenizer, config) = (tokenizer(true), json("config.json"));
    let ids = [
        ("pad_id", tokenizer.pad_id()),
        ("unk_id", tokenizer.unk_id()),
        ("cls_id", tokenizer.cls_id()),
        ("sep_id", tokenizer.sep_id()),
        ("mask_id", tokenizer.mask_id()),
    ];
    for (name, id) in ids {
        assert_eq!(config[name], id, "{name}");
    }
}

#[test]
fn captions_of_the_training_splits() {
    let expected = json("preprocess/list.json");
    let splits: Vec<String> = list(&expected["splits"]).iter().map(|s| text(s).to_owned()).collect();
    let data = CaptionData::load(&settings(), &splits, &tokenizer(true)).unwrap();
    let got: Vec<(&str, Value)> =
        data.samples.iter().map(|s| (data.images[s.image].stem.as_str(), Value::from(s.pieces.clone()))).collect();
    let items: Vec<(&str, Value)> =
        list(&expected["items"]).iter().map(|item| (text(&item["image"]), item["ids"].clone())).collect();
    assert_eq!(got, items);
    let dataset = json("preprocess/dataset.json");
    for image in &data.images {
        let named = |record: &&Value| text(&record["filename"]).starts_with(&format!("{}.", image.stem));
        let record = list(&dataset["images"]).iter().find(named).unwrap();
        assert_eq!(image.image_id, ImageId::Number(record["cocoid"].as_u64().unwrap()), "{}", image.stem);
        let raw: Vec<&str> = list(&record["sentences"]).iter().map(|sentence| text(&sentence["raw"])).collect();
        assert_eq!(image.references, raw, "{}", image.stem);
    }
}

#[test]
fn numbers_of_masked_words() {
    let cases = json("preprocess/rounding.json");
    assert!(!list(&cases).is_empty());
    for case in list(&cases) {
        let number = |key: &str| case[key].as_u64().unwrap() as usize;
        let got = prediction_count(number("words"), case["mask_prob"].as_f64().unwrap(), number("max_pred"));
        assert_eq!(got, number("count"), "{case}");
    }
}

/// Expected tensors of one example, padded as the original pads them.
struct Expected<'a> {
    tensors: BTreeMap<String, safetensors::tensor::TensorView<'a>>,
    example: usize,
}

impl Expected<'_> {
    /// Empty where the tensor is left out.
    fn ids(&self, name: &str) -> Vec<i64> {
        self.tensors.get(&format!("{}.{name}", self.example)).map_or_else(Vec::new, |tensor| {
            tensor.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect()
        })
    }

    fn mask(&self) -> &[u8] {
        self.tensors[&format!("{}.input_mask", self.example)].data()
    }
}

#[test]
fn training_examples() {
    let (tokenizer, cases) = (tokenizer(true), json("preprocess/examples.json"));
    let content = bytes("preprocess/examples.safetensors");
    let tensors: BTreeMap<_, _> = SafeTensors::deserialize(&content).unwrap().tensors().into_iter().collect();
    let mut expected = Expected { tensors, example: 0 };
    assert!(!list(&cases).is_empty());
    for (example, case) in list(&cases).iter().enumerate() {
        expected.example = example;
        let max_text_length = case["max_len_b"].as_u64().unwrap() as usize;
        let max_pred = case["max_pred"].as_u64().unwrap() as usize;
        let layout = Layout::new(&DataSettings { max_text_length, ..settings() }, &tokenizer);
        let mode = if case["mode"] == "s2s" { MaskMode::SequenceToSequence } else { MaskMode::Bidirectional };
        let choices = Choices {
            mode,
            drop_front: case["drop_front"].as_u64().unwrap() as usize,
            masked_positions: numbers(&case["masked_pos"]),
            replacements: list(&case["replacements"]).iter().map(|t| tokenizer.id(text(t)).unwrap()).collect(),
            masked_regions: numbers(&case["vis_masked_pos"]),
        };
        let built = layout.build(&tokenizer.encode(text(&case["text"])), &choices);
        let batch = Batch::from_examples(&[built], regions(), max_pred, tokenizer.pad_id());

        // The original pads to a fixed length; a batch of one ends with its text.
        let (length, full) = (batch.sequence_length(), regions() + 3 + max_text_length);
        let fixed = |ids: &[i64]| [ids, &vec![0; full - length]].concat();
        assert_eq!(fixed(&batch.input_ids), expected.ids("input_ids"), "{case}");
        // Old-style segments (0 and 1 in both modes) are not offered.
        let old = case["new_segment_ids"] == false;
        let segment_ids: Vec<i64> = batch.segment_ids.iter().map(|s| if old { s % 4 } else { *s }).collect();
        assert_eq!(fixed(&segment_ids), expected.ids("segment_ids"), "{case}");
        assert_eq!(batch.masked_positions, expected.ids("masked_pos"), "{case}");
        assert_eq!(batch.masked_ids, expected.ids("masked_ids"), "{case}");
        let weights: Vec<i64> = batch.masked_weights.iter().map(|w| *w as i64).collect();
        assert_eq!(weights, expected.ids("masked_weights"), "{case}");
        assert_eq!(batch.masked_regions, expected.ids("vis_masked_pos"), "{case}");
        let seen = batch.attention_mask();
        for (row, expected) in expected.mask().chunks_exact(full).take(length).enumerate() {
            let got: Vec<u8> = seen[row * length..][..length].iter().map(|s| *s as u8).collect();
            assert_eq!([got, vec![0; full - length]].concat(), expected, "row {row} of {case}");
        }
    }
}

#[test]
fn padding_rows_of_a_mixed_batch() {
    let (tokenizer, cases) = (tokenizer(true), json("preprocess/examples.json"));
    let content = bytes("preprocess/examples.safetensors");
    let tensors: BTreeMap<_, _> = SafeTensors::deserialize(&content).unwrap().tensors().into_iter().collect();
    let mut by_length: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (example, case) in list(&cases).iter().enumerate() {
        by_length.entry(case["max_len_b"].as_u64().unwrap() as usize).or_default().push(example);
    }
    for (max_text_length, of_length) in by_length {
        let layout = Layout::new(&DataSettings { max_text_length, ..settings() }, &tokenizer);
        let build = |example: &usize| {
            let case = &cases[*example];
            let mode = if case["mode"] == "s2s" { MaskMode::SequenceToSequence } else { MaskMode::Bidirectional };
            let drop_front = case["drop_front"].as_u64().unwrap() as usize;
            let choices =
                Choices { mode, drop_front, masked_positions: vec![], replacements: vec![], masked_regions: vec![] };
            layout.build(&tokenizer.encode(text(&case["text"])), &choices)
        };
        let examples: Vec<_> = of_length.iter().map(build).collect();
        let batch = Batch::from_examples(&examples, regions(), 3, tokenizer.pad_id());
        // The original pads to a fixed length; nobody sees the places by which it is longer than the batch.
        let (length, full) = (batch.sequence_length(), regions() + 3 + max_text_length);
        let mask = batch.attention_mask();
        for (ours, example) in mask.chunks_exact(length * length).zip(&of_length) {
            let expected = tensors[&format!("{example}.input_mask")].data();
            for (row, expected) in expected.chunks_exact(full).take(length).enumerate() {
                let got: Vec<u8> = ours[row * length..][..length].iter().map(|s| *s as u8).collect();
                assert_eq!([got, vec![0; full - length]].concat(), expected, "row {row} of example {example}");
            }
        }
    }
}

#[test]
fn region_features_and_positions() {
    let settings = settings();
    let store = RegionStore::open(&settings).unwrap();
    let content = bytes("images.safetensors");
    let tensors = SafeTensors::deserialize(&content).unwrap();
    let (features, positions) = (tensors.tensor("feats").unwrap(), tensors.tensor("vis_pe").unwrap());
    let (config, uncut) = (json("config.json"), std::env::var_os("VLP_GOLDEN_DIR").is_some());
    let [count, width, depth] = [regions(), settings.region_feature_size, settings.num_region_classes + 6];
    let mut compared = 0;
    for (index, image) in list(&config["images"]).iter().enumerate() {
        let image = text(image);
        if !uncut && store.read_table(Table::Classes, image, &mut Vec::new()).is_err() {
            continue; // not in the cut copy
        }
        let (mut got_features, mut got_positions) = (Vec::new(), Vec::new());
        store.read(image, &mut got_features, &mut got_positions).unwrap();
        assert_eq!(got_positions.len(), count * depth);
        let expected: Vec<f32> = features.data()[index * count * width * 2..][..count * width * 2]
            .chunks_exact(2)
            .map(|b| f16::from_le_bytes(b.try_into().unwrap()).to_f32())
            .collect();
        assert!(got_features == expected, "features of {image}");
        let expected = positions.data()[index * count * depth * 4..][..count * depth * 4].chunks_exact(4);
        for (place, (got, expected)) in got_positions.iter().zip(expected).enumerate() {
            let expected = f32::from_le_bytes(expected.try_into().unwrap());
            let (row, column) = (place / depth, place % depth);
            assert!((got - expected).abs() <= 1e-5, "{image}, region {row}, number {column}: {got} against {expected}");
        }
        compared += 1;
    }
    assert_eq!(compared, if uncut { list(&config["images"]).len() } else { 2 });
}
