//! Mistakes in data, as a user meets them: the whole message of the real binary.

mod demo_runs;

use demo_runs::{Folder, TINY};
use serde_json::Value;

const ANNOTATIONS: &str = "demo/COCO/annotations/dataset_coco.json";
const VALID: &str = "demo/COCO/annotations/coco_valid_jpgs.json";
const REGIONS: &str = "demo/COCO/region_feat_gvd_wo_bgd";
const PREFIX: &str = "feat_cls_1000_float16/coco_detection_vg_100dets_gvd_checkpoint_trainval";
/// What differs from run to run in the messages of a failed one.
const RUN_FILTERS: [(&str, &str); 2] = [(r"\d{8}-\d{6}", "<run id>"), (r"\d\d:\d\d:\d\d", "<time>")];
const BOXES: &str = "coco_detection_vg_thresh0.2_feat_gvd_checkpoint_trainvaltest.h5";

/// A change of the annotation file.
fn edited(change: impl FnOnce(&mut Value)) -> Folder {
    let folder = Folder::new();
    let mut value: Value = serde_json::from_slice(&std::fs::read(folder.path(ANNOTATIONS)).unwrap()).unwrap();
    change(&mut value);
    folder.write(ANNOTATIONS, value.to_string());
    folder
}

/// Stem of the first training image, and the ending of its region files.
fn first_image(folder: &Folder) -> (String, String) {
    let value: Value = serde_json::from_slice(&std::fs::read(folder.path(ANNOTATIONS)).unwrap()).unwrap();
    let image = value["images"].as_array().unwrap().iter().find(|i| i["split"] == "train").unwrap();
    let stem = image["filename"].as_str().unwrap().trim_end_matches(".jpg").to_owned();
    let ending = stem[stem.len() - 3..].to_owned();
    (stem, ending)
}

/// Replaces a dataset of a region file.
fn replace<T: hdf5::H5Type>(folder: &Folder, file: &str, stem: &str, shape: [usize; 2], values: &[T]) {
    let file = hdf5::File::open_rw(folder.path(&format!("{REGIONS}/{file}"))).unwrap();
    file.unlink(stem).unwrap();
    let dataset = file.new_dataset::<T>().shape(shape).create(stem).unwrap();
    dataset.write_raw(values).unwrap();
}

#[test]
fn sound_data_has_no_defect() {
    let folder = Folder::new();
    insta::assert_snapshot!(folder.stdout(&["data", "verify", "tiny.toml"]), @"120 images, 600 captions: no defects");
}

#[test]
fn missing_annotations() {
    let folder = Folder::new();
    std::fs::remove_file(folder.path(ANNOTATIONS)).unwrap();
    insta::assert_snapshot!(folder.failure(3, &["run", "tiny.toml"]), @r"
    error: no annotation file at `demo/COCO/annotations/dataset_coco.json`
      help: `data.annotations` names it; correct the path, or put the file there
    ");
}

#[test]
fn a_missing_list_of_valid_images_is_no_empty_set() {
    let folder = Folder::new();
    std::fs::remove_file(folder.path(VALID)).unwrap();
    insta::assert_snapshot!(folder.failure(3, &["run", "tiny.toml"]), @r"
    error: no list of valid images at `demo/COCO/annotations/coco_valid_jpgs.json`
      help: `data.valid_images` names it; correct the path, or put the file there
    ");
    assert!(!folder.path(VALID).exists());
    assert!(!folder.path("runs").exists());
}

#[test]
fn annotations_cut_short() {
    let folder = Folder::new();
    let text = std::fs::read_to_string(folder.path(ANNOTATIONS)).unwrap();
    folder.write(ANNOTATIONS, &text[..1000]);
    insta::assert_snapshot!(folder.failure(3, &["plan", "tiny.toml"]), @r"
    error: `demo/COCO/annotations/dataset_coco.json` is not valid JSON: line 1, column 1000: EOF while parsing an object
      help: the file may be cut short or edited by hand; fetch it again
    ");
}

#[test]
fn a_caption_that_is_a_number() {
    let folder = edited(|value| value["images"][3]["sentences"][1]["raw"] = 7.into());
    insta::assert_snapshot!(folder.failure(3, &["plan", "tiny.toml"]), @r"
    error: `demo/COCO/annotations/dataset_coco.json`: `images[3].sentences[1].raw` is the number 7, expected a string
      help: `data.annotations` must name a file in Karpathy's layout: `images[]` with `filename`, `split` and `sentences[].raw`
    ");
}

#[test]
fn a_split_that_does_not_exist() {
    let folder = Folder::new();
    folder.write(
        "tiny.toml",
        TINY.replace("splits = [\"test\"]", "splits = [\"tset\"]").split("[[paper]]").next().unwrap(),
    );
    insta::assert_snapshot!(folder.failure(3, &["plan", "tiny.toml"]), @r"
    error: `demo/COCO/annotations/dataset_coco.json` has no split `tset`; it has `restval`, `test`, `train`, `val`
      help: correct the names in `data.train_splits`, `select.split` or `evaluate.splits`
    ");
}

#[test]
fn a_vocabulary_without_control_tokens() {
    let folder = Folder::new();
    folder.write("demo/vocab.txt", "[PAD]\n[UNK]\n[CLS]\na\ndog\n");
    insta::assert_snapshot!(folder.failure(3, &["plan", "tiny.toml"]), @r"
    error: vocabulary `demo/vocab.txt`: no line holds `[SEP]`, `[MASK]`
      help: `data.vocabulary` must be a BERT `vocab.txt`: one token per line, its line number being its id
    ");
}

#[test]
fn a_missing_region_file_stops_the_run() {
    let folder = Folder::new();
    let (_, ending) = first_image(&folder);
    std::fs::remove_file(folder.path(&format!("{REGIONS}/{PREFIX}_feat{ending}.h5"))).unwrap();
    insta::with_settings!({filters => RUN_FILTERS.to_vec()}, {
        insta::assert_snapshot!(folder.failure(3, &["run", "tiny.toml"]), @r"
        plan  tiny: 200 captions, 2 epochs of 10 batches, 20 steps, 48,424 parameters, about 35.1 MB memory per process
        stage tiny: start runs/tiny/<run id> (no earlier run)
        error: runs/tiny/<run id> failed: rank 0 ended with exit code 3; cause: data; last lines of runs/tiny/<run id>/ranks/0.log:
            <time> INFO  worker started  device=flex  run=runs/tiny/<run id>
            <time> ERROR `demo/COCO/region_feat_gvd_wo_bgd/feat_cls_1000_float16/coco_detection_vg_100dets_gvd_checkpoint_trainval_feat042.h5`: no such file
              help: `data.region_prefix` leads to it; correct it, or fetch the file
          help: mend the data; `vlp run tiny.toml` with the same options goes on from the last checkpoint
        ");
    });
}

#[test]
fn all_defects_of_region_tables_are_reported() {
    let folder = Folder::new();
    let (stem, ending) = first_image(&folder);
    let mut features = vec![half::f16::ONE; 16 * 128];
    features[5] = half::f16::NAN;
    replace(&folder, &format!("{PREFIX}_feat{ending}.h5"), &stem, [16, 128], &features);
    replace(&folder, &format!("{PREFIX}_cls{ending}.h5"), &stem, [16, 32], &vec![half::f16::ONE; 16 * 32]);
    let mut boxes = [0f32, 0.0, 8.0, 8.0, 1.0, 0.5].repeat(16);
    boxes[2] = -4.0;
    replace(&folder, BOXES, &stem, [16, 6], &boxes);
    let output = folder.vlp(&["data", "verify", "tiny.toml"]);
    assert_eq!(output.status.code(), Some(3));
    insta::assert_snapshot!(String::from_utf8(output.stdout).unwrap(), @r"
    demo/COCO/region_feat_gvd_wo_bgd/feat_cls_1000_float16/coco_detection_vg_100dets_gvd_checkpoint_trainval_feat042.h5, COCO_train2014_000000100042: 1 numbers are not finite, the first in row 0, column 5
    demo/COCO/region_feat_gvd_wo_bgd/feat_cls_1000_float16/coco_detection_vg_100dets_gvd_checkpoint_trainval_cls042.h5, COCO_train2014_000000100042: found shape [16, 32], expected [16, 33]
    demo/COCO/region_feat_gvd_wo_bgd/coco_detection_vg_thresh0.2_feat_gvd_checkpoint_trainvaltest.h5, COCO_train2014_000000100042: 1 of 16 boxes have no area, the first in row 0: 0 0 -4 8
    120 images, 600 captions: 3 defects
    ");
}

#[test]
fn a_region_file_that_is_no_hdf5() {
    let folder = Folder::new();
    folder.write(&format!("{REGIONS}/{BOXES}"), "<html>404 Not Found</html>");
    insta::assert_snapshot!(folder.failure(3, &["data", "verify", "tiny.toml"]), @r"
    error: `demo/COCO/region_feat_gvd_wo_bgd/coco_detection_vg_thresh0.2_feat_gvd_checkpoint_trainvaltest.h5`: found something else than an HDF5 file
      help: the file may be damaged or incompletely copied; fetch it again (`vlp data verify` checks all files)
    ");
}

#[test]
fn the_geometry_of_the_experiment_is_not_that_of_the_data() {
    let folder = Folder::new();
    let text = folder.failure(3, &["run", "tiny.toml", "-q", "--set", "data.region_feature_size=2048"]);
    insta::with_settings!({filters => RUN_FILTERS.to_vec()}, {
        insta::assert_snapshot!(text, @r"
        error: runs/tiny/<run id> failed: rank 0 ended with exit code 3; cause: data; last lines of runs/tiny/<run id>/ranks/0.log:
            <time> INFO  worker started  device=flex  run=runs/tiny/<run id>
            <time> ERROR `demo/COCO/region_feat_gvd_wo_bgd/feat_cls_1000_float16/coco_detection_vg_100dets_gvd_checkpoint_trainval_feat449.h5`, dataset `COCO_train2014_000000100449`: found shape [16, 128], expected [16, 2048]
              help: `data.num_regions` and `data.region_feature_size` must fit the files
          help: mend the data; `vlp run tiny.toml` with the same options goes on from the last checkpoint
        ");
    });
}

#[test]
fn a_demo_world_is_not_written_over_other_files() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("other")).unwrap();
    folder.write("other/thesis.tex", "x");
    insta::assert_snapshot!(folder.failure(3, &["data", "demo", "--out", "other"]), @r"
    error: other is not empty and is not a demo world (it holds `thesis.tex`)
      help: name a new or empty folder with --out
    ");
}
