//! File by file: names, shapes and element types of the original data.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::Path;

use serde_pickle::{HashableValue, Value};
use vlp::data::demo_world::{MARKER, Outcome, WorldOptions, write};

use super::{FULL, SMALL, files, json};

/// Every caption collection: annotation file, valid list, region prefix, box file, captions per image.
const COLLECTIONS: [[&str; 4]; 2] = [
    [
        "COCO/annotations/dataset_coco.json",
        "COCO/annotations/coco_valid_jpgs.json",
        "COCO/region_feat_gvd_wo_bgd/feat_cls_1000_float16/coco_detection_vg_100dets_gvd_checkpoint_trainval",
        "COCO/region_feat_gvd_wo_bgd/coco_detection_vg_thresh0.2_feat_gvd_checkpoint_trainvaltest.h5",
    ],
    [
        "CC/annotations/dataset_cc.json",
        "CC/annotations/cc_valid_jpgs.json",
        "CC/region_feat_gvd_wo_bgd/feat_cls_1000_float16/cc_detection_vg_100dets_gvd_checkpoint_trainval",
        "CC/region_feat_gvd_wo_bgd/bbox/cc_detection_vg_thresh0.2_feat_gvd_checkpoint_trainval.h5",
    ],
];

fn check_hdf5_layout(root: &Path, options: WorldOptions) {
    let geometry = options.sizes().geometry;
    for [annotations, valid, prefix, boxes] in COLLECTIONS {
        let dataset = json(&root.join(annotations));
        let valid = json(&root.join(valid));
        let boxes = hdf5::File::open(root.join(boxes)).unwrap();
        let mut endings = HashSet::new();
        for image in dataset["images"].as_array().unwrap() {
            let name = image["filename"].as_str().unwrap();
            assert_eq!(valid[name], name);
            let stem = name.strip_suffix(".jpg").unwrap();
            let ending = &stem[stem.len() - 3..];
            endings.insert(ending.to_string());
            let table = boxes.dataset(stem).unwrap();
            assert_eq!(table.shape(), [geometry.regions, 6]);
            assert!(table.dtype().unwrap().is::<f32>());
        }
        assert!(endings.len() <= 24);
        for ending in &endings {
            for (kind, columns) in [("feat", geometry.feature_size), ("cls", geometry.classes)] {
                let file = hdf5::File::open(root.join(format!("{prefix}_{kind}{ending}.h5"))).unwrap();
                for name in file.member_names().unwrap() {
                    assert!(name.ends_with(ending));
                    let table = file.dataset(&name).unwrap();
                    assert_eq!(table.shape(), [geometry.regions, columns]);
                    assert!(table.dtype().unwrap().is::<half::f16>() && !table.is_chunked());
                    assert!(valid[format!("{name}.jpg")].is_string());
                }
            }
        }
    }
}

fn check_npy_layout(root: &Path, options: WorldOptions) {
    let geometry = options.sizes().geometry;
    let folder = root.join("flickr30k/region_feat_gvd_wo_bgd");
    let boxes = folder.join("flickr30k_detection_vg_thresh0.2_feat_gvd_checkpoint_trainvaltest.h5");
    let boxes = hdf5::File::open(boxes).unwrap();
    let dataset = json(&root.join("flickr30k/annotations/dataset_flickr30k.json"));
    let valid = json(&root.join("flickr30k/annotations/flickr30k_valid_jpgs.json"));
    for image in dataset["images"].as_array().unwrap() {
        let name = image["filename"].as_str().unwrap();
        assert_eq!(valid[name], name);
        let stem = name.strip_suffix(".jpg").unwrap();
        assert_eq!(boxes.dataset(stem).unwrap().shape(), [geometry.regions, 6]);
        for (ending, columns) in [("", geometry.feature_size), ("_cls_prob", geometry.classes)] {
            let bytes = fs::read(folder.join(format!("trainval/{stem}{ending}.npy"))).unwrap();
            let table = npyz::NpyFile::new(&bytes[..]).unwrap();
            assert_eq!(table.shape(), [geometry.regions as u64, columns as u64]);
            assert_eq!(table.dtype().descr(), "'<f4'");
            assert!(table.into_vec::<f32>().unwrap().iter().all(|v| v.is_finite()));
        }
    }
}

#[test]
fn small_world_has_the_original_layout() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("deep/demo");
    let Outcome::Written(summary) = write(&root, SMALL).unwrap() else { panic!("written") };
    assert_eq!((summary.coco, summary.cc, summary.flickr, summary.questions), (1100, 1200, 200, 13_200));
    let written = files(&root);
    assert_eq!(summary.files, written.len() - 1);
    assert_eq!(
        summary.bytes as usize,
        written.iter().filter(|(n, _)| *n != MARKER).map(|(_, b)| b.len()).sum::<usize>()
    );
    check_hdf5_layout(&root, SMALL);
    check_npy_layout(&root, SMALL);
    let expected = [
        ("COCO/annotations/dataset_coco.json", vec![("restval", 100), ("test", 100), ("train", 700), ("val", 100)], 5),
        ("CC/annotations/dataset_cc.json", vec![("train", 1100), ("val", 100)], 1),
        ("flickr30k/annotations/dataset_flickr30k.json", vec![("test", 20), ("train", 160), ("val", 20)], 5),
    ];
    for (name, splits, captions) in expected {
        let dataset = json(&root.join(name));
        let mut found: BTreeMap<&str, usize> = BTreeMap::new();
        for (i, image) in dataset["images"].as_array().unwrap().iter().enumerate() {
            *found.entry(image["split"].as_str().unwrap()).or_insert(0) += 1;
            let sentences = image["sentences"].as_array().unwrap();
            let ids: Vec<_> = (captions * i..captions * (i + 1)).collect();
            assert_eq!(image["sentids"], serde_json::json!(ids));
            assert_eq!(sentences.iter().map(|s| &s["sentid"]).collect::<Vec<_>>(), ids);
            assert!(sentences.iter().all(|s| s["imgid"] == image["imgid"] && s["raw"].is_string()));
            let stem = image["filename"].as_str().unwrap().strip_suffix(".jpg").unwrap();
            match name.split('/').next() {
                Some("COCO") => {
                    let part = if image["split"] == "train" { "train2014" } else { "val2014" };
                    assert_eq!(image["filepath"], part);
                    assert_eq!(stem, format!("COCO_{part}_{:012}", image["cocoid"].as_u64().unwrap()));
                }
                Some("CC") => assert_eq!(stem, format!("{:08}", image["imgid"].as_u64().unwrap())),
                _ => assert_eq!(image["imgid"], i),
            }
        }
        assert_eq!(found.into_iter().collect::<Vec<_>>(), splits, "{name}");
    }
}

#[test]
fn full_size_world_has_the_original_geometry() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), FULL).unwrap();
    check_hdf5_layout(folder.path(), FULL);
    check_npy_layout(folder.path(), FULL);
}

/// The items of a pickled object array, as numpy reads them.
fn objects(path: &Path) -> Vec<Value> {
    let bytes = fs::read(path).unwrap();
    let end = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    assert_eq!((&bytes[..8], end % 64), (&b"\x93NUMPY\x01\x00"[..], 0));
    let header = std::str::from_utf8(&bytes[10..end]).unwrap();
    let options = serde_pickle::DeOptions::new().replace_unresolved_globals();
    // What numpy passes to `ndarray.__setstate__`: version, shape, dtype, order, items.
    let Value::Tuple(state) = serde_pickle::value_from_slice(&bytes[end..], options).unwrap() else {
        panic!("a tuple")
    };
    let Value::List(items) = &state[4] else { panic!("a list") };
    let shape = format!("{{'descr': '|O', 'fortran_order': False, 'shape': ({},), }}", items.len());
    assert_eq!(header.trim_end(), shape);
    assert_eq!(state[1], Value::Tuple(vec![Value::I64(items.len() as i64)]));
    items.clone()
}

fn python(value: &Value) -> serde_json::Value {
    match value {
        Value::Dict(entries) => entries.iter().map(|(k, v)| (name(k), python(v))).collect(),
        Value::List(items) => items.iter().map(python).collect(),
        Value::String(text) => text.as_str().into(),
        Value::I64(n) => (*n).into(),
        Value::Bool(b) => (*b).into(),
        other => panic!("{other}"),
    }
}

fn name(key: &HashableValue) -> String {
    let HashableValue::String(text) = key else { panic!("{key}") };
    text.clone()
}

#[test]
fn questions_are_the_same_in_all_three_layouts() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), SMALL).unwrap();
    let root = folder.path().join("VQA");
    let answers = fs::read_to_string(root.join("answers_vqa.txt")).unwrap();
    assert!(answers.starts_with("<unk>\nyes\nno\n0\n"));
    for (split, images, answered) in [("train2014", 700, true), ("val2014", 300, true), ("test2015", 100, false)] {
        let items: Vec<serde_json::Value> =
            objects(&root.join(format!("imdb/imdb_{split}.npy"))).iter().map(python).collect();
        let header = serde_json::json!({ "dataset_name": "vqa2", "has_answer": answered, "has_gt_layout": false });
        assert_eq!(items[0], header);
        assert_eq!(items.len(), 1 + 12 * images);
        let official = json(&root.join(format!("v2_OpenEnded_mscoco_{split}_questions.json")));
        assert_eq!((&official["task_type"], &official["data_subtype"]), (&"Open-Ended".into(), &split.into()));
        let annotations = root.join(format!("v2_mscoco_{split}_annotations.json"));
        assert_eq!(annotations.exists(), answered);
        let annotations = answered.then(|| json(&annotations));
        for (i, item) in items[1..].iter().enumerate() {
            let keys: BTreeSet<&str> = item.as_object().unwrap().keys().map(String::as_str).collect();
            let mut expected = BTreeSet::from(["image_name", "image_id", "question_id", "feature_path"]);
            expected.extend(["question_str", "question_tokens"]);
            expected.extend(answered.then_some("answers"));
            assert_eq!(keys, expected);
            let question = &official["questions"][i];
            assert_eq!(question["question"], item["question_str"]);
            assert_eq!((&question["image_id"], &question["question_id"]), (&item["image_id"], &item["question_id"]));
            let image_id = item["image_id"].as_u64().unwrap();
            assert_eq!(item["image_name"], format!("COCO_{split}_{image_id:012}"));
            assert_eq!(item["feature_path"], format!("COCO_{split}_{image_id:012}.npy"));
            assert_eq!(item["question_id"], 1000 * image_id + i as u64 % 12);
            if let Some(annotations) = &annotations {
                let annotation = &annotations["annotations"][i];
                assert_eq!(annotation["question_id"], item["question_id"]);
                let given: Vec<_> = annotation["answers"].as_array().unwrap().iter().map(|a| &a["answer"]).collect();
                assert_eq!(given, item["answers"].as_array().unwrap().iter().collect::<Vec<_>>());
                assert_eq!(annotation["answer_type"], ["yes/no", "number", "other"][i % 3]);
                assert_eq!(annotation["answers"][9]["answer_id"], 10);
            }
        }
    }
}
