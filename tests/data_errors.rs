//! What people read when their data is missing or wrong: the whole texts.

mod mini_data;

use half::f16;
use mini_data::{Mini, STEMS, Storage, features};
use serde_json::json;
use vlp::config::{DataSettings, Dataset, RegionFormat};
use vlp::data::DataError;
use vlp::data::karpathy::CaptionData;
use vlp::data::region_store::RegionStore;
use vlp::data::tokenizer::Tokenizer;

/// Loads splits and reads the regions of all images.
fn read_all(settings: &DataSettings, splits: &[&str]) -> Result<(), DataError> {
    let splits: Vec<String> = splits.iter().map(|name| (*name).to_owned()).collect();
    let tokenizer = Tokenizer::from_file(&settings.vocabulary, settings.cased)?;
    let data = CaptionData::load(settings, &splits, &tokenizer)?;
    let store = RegionStore::open(settings)?;
    let (mut features, mut positions) = (Vec::new(), Vec::new());
    data.images.iter().try_for_each(|image| store.read(&image.stem, &mut features, &mut positions))
}

/// The text of the error that reading gives, with `DATA` for the folder.
fn text(mini: &Mini) -> String {
    text_with(mini, |_| ())
}

fn text_with(mini: &Mini, change: impl FnOnce(&mut DataSettings)) -> String {
    text_of_splits(mini, &["train", "restval"], change)
}

fn text_of_splits(mini: &Mini, splits: &[&str], change: impl FnOnce(&mut DataSettings)) -> String {
    let mut settings = mini.settings.clone();
    change(&mut settings);
    mini.tidy(read_all(&settings, splits).unwrap_err())
}

#[test]
fn sound_data_gives_no_error() {
    let mini = Mini::new();
    read_all(&mini.settings, &["train", "restval", "val", "test"]).unwrap();
}

#[test]
fn annotations_not_set() {
    insta::assert_snapshot!(text_with(&Mini::new(), |s| s.annotations.clear()), @r"
    `data.annotations` is empty, expected the path of the annotation file
      help: set `data.annotations` in the experiment file; `vlp explain data.annotations` tells what it means
    ");
}

#[test]
fn annotations_missing() {
    insta::assert_snapshot!(text_with(&Mini::new(), |s| s.annotations.push('x')), @r"
    no annotation file at `DATA/dataset.jsonx`
      help: `data.annotations` names it; correct the path, or put the file there
    ");
}

#[test]
fn annotations_cut_short() {
    let mini = Mini::new();
    mini.write("dataset.json", "{\"images\": [\n  {\"filename\": \"a.jpg\",");
    insta::assert_snapshot!(text(&mini), @r"
    `DATA/dataset.json` is not valid JSON: line 2, column 23: EOF while parsing a value
      help: the file may be cut short or edited by hand; fetch it again
    ");
}

#[test]
fn caption_is_a_number() {
    let mini = Mini::new();
    mini.edit(|file| file["images"][1]["sentences"][2]["raw"] = json!(17));
    insta::assert_snapshot!(text(&mini), @r"
    `DATA/dataset.json`: `images[1].sentences[2].raw` is the number 17, expected a string
      help: `data.annotations` must name a file in Karpathy's layout: `images[]` with `filename`, `split` and `sentences[].raw`
    ");
}

#[test]
fn image_without_split() {
    let mini = Mini::new();
    mini.edit(|file| {
        file["images"][4].as_object_mut().unwrap().remove("split");
    });
    insta::assert_snapshot!(text(&mini), @r"
    `DATA/dataset.json`: `images[4].split` is missing, expected a string
      help: `data.annotations` must name a file in Karpathy's layout: `images[]` with `filename`, `split` and `sentences[].raw`
    ");
}

#[test]
fn annotations_of_another_kind() {
    let mini = Mini::new();
    mini.write("dataset.json", r#"{"annotations": [], "info": {}}"#);
    insta::assert_snapshot!(text(&mini), @r"
    `DATA/dataset.json`: `images` is missing, expected a list
      help: `data.annotations` must name a file in Karpathy's layout: `images[]` with `filename`, `split` and `sentences[].raw`
    ");
}

#[test]
fn unknown_split() {
    let text = text_of_splits(&Mini::new(), &["train", "valid", "tset"], |_| ());
    insta::assert_snapshot!(text, @r"
    `DATA/dataset.json` has no split `valid`, `tset`; it has `restval`, `test`, `train`, `val`
      help: correct the names in `data.train_splits`, `select.split` or `evaluate.splits`
    ");
}

#[test]
fn valid_images_missing() {
    insta::assert_snapshot!(text_with(&Mini::new(), |s| s.valid_images.push('x')), @r"
    no list of valid images at `DATA/valid.jsonx`
      help: `data.valid_images` names it; correct the path, or put the file there
    ");
}

#[test]
fn valid_images_of_another_kind() {
    let mini = Mini::new();
    mini.write("valid.json", "[\"COCO_143.jpg\", 43]");
    insta::assert_snapshot!(text(&mini), @r"
    `DATA/valid.json`: `[1]` is the number 43, expected a file name (a string)
      help: `data.valid_images` must name a JSON file whose keys, or entries, are the usable image file names
    ");
}

#[test]
fn no_image_is_valid() {
    let mini = Mini::new();
    mini.write("valid.json", "{}");
    insta::assert_snapshot!(text(&mini), @r"
    no image left: none of the 3 images of `train`, `restval` in `DATA/dataset.json` is among the 0 entries of `DATA/valid.json`
      help: the two files must speak of the same images; `COCO_143044.jpg`, for one, is not in the list
    ");
}

#[test]
fn coco_image_without_number() {
    let mini = Mini::new();
    mini.edit(|file| file["images"][1]["filename"] = json!("dog.jpg"));
    mini.write("valid.json", r#"["dog.jpg"]"#);
    insta::assert_snapshot!(text(&mini), @r"
    `DATA/dataset.json`: `images[1].filename` is `dog.jpg`: no image id can be derived from it, expected a name that ends in the number of a COCO image
      help: `data.dataset` decides how ids are derived; is it the right collection?
    ");
}

#[test]
fn cc_image_without_id() {
    let mini = Mini::new();
    mini.edit(|file| file["images"][1]["imgid"] = json!("7"));
    insta::assert_snapshot!(text_with(&mini, |s| s.dataset = Dataset::Cc), @r#"
    `DATA/dataset.json`: `images[1].imgid` is the string "7": no image id can be derived from it, expected a whole number
      help: `data.dataset` decides how ids are derived; is it the right collection?
    "#);
}

#[test]
fn vocabulary_missing() {
    insta::assert_snapshot!(text_with(&Mini::new(), |s| s.vocabulary.push('x')), @r"
    no vocabulary at `DATA/vocab.txtx`
      help: `data.vocabulary` names it; correct the path, or put the file there
    ");
}

#[test]
fn vocabulary_without_control_tokens() {
    let mini = Mini::new();
    mini.write("vocab.txt", "[PAD]\n[CLS]\n[SEP]\na\n");
    insta::assert_snapshot!(text(&mini), @r"
    vocabulary `DATA/vocab.txt`: no line holds `[UNK]`, `[MASK]`
      help: `data.vocabulary` must be a BERT `vocab.txt`: one token per line, its line number being its id
    ");
}

#[test]
fn vocabulary_with_a_token_twice() {
    let mini = Mini::new();
    mini.write("vocab.txt", format!("{}dog\n", mini_data::VOCABULARY));
    insta::assert_snapshot!(text(&mini), @r"
    vocabulary `DATA/vocab.txt`: `dog` stands on line 8 and again on line 14, expected it once
      help: `data.vocabulary` must be a BERT `vocab.txt`: one token per line, its line number being its id
    ");
}

#[test]
fn vocabulary_with_a_blank_line() {
    let mini = Mini::new();
    mini.write("vocab.txt", mini_data::VOCABULARY.replace("a\n", "a\n\n"));
    insta::assert_snapshot!(text(&mini), @r"
    vocabulary `DATA/vocab.txt`: line 8 is blank, expected a token
      help: `data.vocabulary` must be a BERT `vocab.txt`: one token per line, its line number being its id
    ");
}

#[test]
fn vocabulary_in_another_encoding() {
    let mini = Mini::new();
    mini.write("vocab.txt", b"[PAD]\n[UNK]\ncaf\xe9\n");
    insta::assert_snapshot!(text(&mini), @r"
    vocabulary `DATA/vocab.txt`: line 3 is not UTF-8 text
      help: `data.vocabulary` must be a BERT `vocab.txt`: one token per line, its line number being its id
    ");
}

#[test]
fn feature_file_missing() {
    let mini = Mini::new();
    std::fs::remove_file(mini.table_file("feat", 2)).unwrap();
    insta::assert_snapshot!(text(&mini), @r"
    `DATA/regions_feat044.h5`: no such file
      help: `data.region_prefix` leads to it; correct it, or fetch the file
    ");
}

#[test]
fn image_missing_from_a_feature_file() {
    let mini = Mini::new();
    mini_data::open(mini.table_file("cls", 1)).unlink(STEMS[1]).unwrap();
    insta::assert_snapshot!(text(&mini), @r"
    `DATA/regions_cls143.h5`, dataset `COCO_143`: not in the file
      help: datasets are named after the images' file names without ending; is the image's file complete? (`vlp data verify` checks all images)
    ");
}

#[test]
fn features_of_another_size() {
    let text = text_with(&Mini::new(), |s| s.region_feature_size = 2048);
    insta::assert_snapshot!(text, @r"
    `DATA/regions_feat042.h5`, dataset `COCO_1042`: found shape [4, 3], expected [4, 2048]
      help: `data.num_regions` and `data.region_feature_size` must fit the files
    ");
}

#[test]
fn features_of_another_type() {
    let mini = Mini::new();
    mini.write_table::<f64>("feat", 0, &features(0), Storage::Gzip);
    insta::assert_snapshot!(text(&mini), @r"
    `DATA/regions_feat042.h5`, dataset `COCO_1042`: found elements of type float64, expected float16 or float32
      help: store the table as float16 or float32
    ");
}

#[test]
fn feature_file_is_no_hdf5_file() {
    let mini = Mini::new();
    mini.write("regions_feat042.h5", "<html>404 Not Found</html>");
    insta::assert_snapshot!(text(&mini), @r"
    `DATA/regions_feat042.h5`: found something else than an HDF5 file
      help: the file may be damaged or incompletely copied; fetch it again (`vlp data verify` checks all files)
    ");
}

#[test]
fn feature_file_cut_short() {
    let mini = Mini::new();
    let content = std::fs::read(mini.table_file("feat", 0)).unwrap();
    std::fs::write(mini.table_file("feat", 0), &content[..content.len() - 100]).unwrap();
    let text = text(&mini);
    let lines: Vec<&str> = text.lines().collect();
    // What stands between is the HDF5 library's own message.
    assert!(
        lines[0].starts_with("`DATA/regions_feat042.h5`: cannot be read: ") && lines[0].contains("truncated"),
        "{text}"
    );
    assert_eq!(
        lines[1..],
        ["  help: the file may be damaged or incompletely copied; fetch it again (`vlp data verify` checks all files)"]
    );
}

#[test]
fn name_too_short_to_choose_a_file() {
    let mini = Mini::new();
    mini.edit(|file| file["images"][0]["filename"] = json!("42.jpg"));
    mini.write("valid.json", r#"["42.jpg"]"#);
    insta::assert_snapshot!(text(&mini), @r"
    `DATA/regions`, dataset `42`: found a name of fewer than three characters, expected three or more
      help: region files are chosen by the last three characters of the image's name
    ");
}

#[test]
fn region_prefix_not_set() {
    insta::assert_snapshot!(text_with(&Mini::new(), |s| s.region_prefix.clear()), @r"
    `data.region_prefix` is empty, expected the path of the region features
      help: set `data.region_prefix` in the experiment file; `vlp explain data.region_prefix` tells what it means
    ");
}

#[test]
fn box_file_missing() {
    insta::assert_snapshot!(text_with(&Mini::new(), |s| s.boxes.push('x')), @r"
    `DATA/boxes.h5x`: no such file
      help: `data.boxes` leads to it; correct it, or fetch the file
    ");
}

#[test]
fn boxes_without_confidence() {
    let mini = Mini::new();
    mini.write_shaped::<f32>("boxes", 1, &[1.0; 16], (4, 4), Storage::Contiguous);
    insta::assert_snapshot!(text(&mini), @r"
    `DATA/boxes.h5`, dataset `COCO_143`: found shape [4, 4], expected [4, 6]
      help: `data.num_regions`, and 6 columns x1 y1 x2 y2 class confidence, must fit the files
    ");
}

#[test]
fn folder_of_numpy_files_missing() {
    let text = text_with(&Mini::new(), |s| s.region_format = RegionFormat::Npy);
    insta::assert_snapshot!(text, @r"
    no folder of region features at `DATA/regions`
      help: `data.region_prefix` names it; correct the path, or put the file there
    ");
}

/// The data root with numpy features; the first image's feature file is `content`.
fn numpy(content: Option<Vec<u8>>) -> (Mini, impl FnOnce(&mut DataSettings)) {
    let mini = Mini::new();
    std::fs::create_dir(mini.path("trainval")).unwrap();
    if let Some(content) = content {
        mini.write(&format!("trainval/{}.npy", STEMS[0]), content);
    }
    let folder = mini.path("trainval").to_str().unwrap().to_owned();
    let change = move |s: &mut DataSettings| {
        s.region_format = RegionFormat::Npy;
        s.region_prefix = folder;
    };
    (mini, change)
}

fn npy(element: &str, fortran: &str, data: usize) -> Option<Vec<u8>> {
    let header = format!("{{'descr': '{element}', 'fortran_order': {fortran}, 'shape': (4, 3), }}\n");
    let length = (header.len() as u16).to_le_bytes();
    Some([&b"\x93NUMPY\x01\x00"[..], &length, header.as_bytes(), &vec![0; data]].concat())
}

#[test]
fn numpy_file_missing() {
    let (mini, change) = numpy(None);
    insta::assert_snapshot!(text_with(&mini, change), @r"
    `DATA/trainval/COCO_1042.npy`: no such file
      help: `data.region_prefix` leads to it; correct it, or fetch the file
    ");
}

#[test]
fn numpy_file_of_another_type() {
    let (mini, change) = numpy(npy("<f8", "False", 96));
    insta::assert_snapshot!(text_with(&mini, change), @r"
    `DATA/trainval/COCO_1042.npy`: found elements of type `<f8`, expected float16 or float32
      help: store the table as float16 or float32
    ");
}

#[test]
fn numpy_file_in_fortran_order() {
    let (mini, change) = numpy(npy("<f4", "True", 48));
    insta::assert_snapshot!(text_with(&mini, change), @r"
    `DATA/trainval/COCO_1042.npy`: found a table in Fortran order, expected C order
      help: store it with `numpy.save(path, numpy.ascontiguousarray(table))`
    ");
}

#[test]
fn numpy_file_cut_short() {
    let (mini, change) = numpy(npy("<f2", "False", 23));
    insta::assert_snapshot!(text_with(&mini, change), @r"
    `DATA/trainval/COCO_1042.npy`: the file ends within the table
      help: the file may be damaged or incompletely copied; fetch it again (`vlp data verify` checks all files)
    ");
}

#[test]
#[cfg(unix)]
fn annotations_are_a_folder() {
    let mini = Mini::new();
    let text = text_with(&mini, |s| s.annotations = mini.path("").to_str().unwrap().to_owned());
    insta::assert_snapshot!(text, @r"
    cannot read annotation file `DATA/`: Is a directory (os error 21)
      help: check that it is a file and its permissions
    ");
}

#[test]
fn a_table_of_f16_is_no_mistake_for_boxes() {
    let mini = Mini::new();
    mini.write_table::<f16>("boxes", 0, &mini_data::boxes(0), Storage::Contiguous);
    read_all(&mini.settings, &["train"]).unwrap();
}
