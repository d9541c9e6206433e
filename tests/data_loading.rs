//! Region files in all their forms, whole batches, the loader's independence of threads, fingerprint and verification.

mod mini_data;

use std::sync::Arc;

use half::f16;
use mini_data::{CLASSES, Mini, REGIONS, STEMS, Storage, boxes, classes, features};
use vlp::config::{DataSettings, Dataset, ObjectiveSettings, RegionFormat};
use vlp::data::batch::{Batch, BatchSource, ImageBatch};
use vlp::data::fingerprint::fingerprint;
use vlp::data::karpathy::{CaptionData, ImageId};
use vlp::data::loader::{epoch_order, image_batches, in_batches, training_batches};
use vlp::data::positions::region_positions;
use vlp::data::region_store::{RegionStore, Table};
use vlp::data::sample::Sampler;
use vlp::data::tokenizer::Tokenizer;
use vlp::data::verify::verify;

fn splits(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn assert_reads(settings: &DataSettings, images: impl Iterator<Item = usize>) {
    let store = RegionStore::open(settings).unwrap();
    for image in images {
        let (mut got, mut places) = (Vec::new(), Vec::new());
        store.read(STEMS[image], &mut got, &mut places).unwrap();
        assert_eq!(got, features(image));
        let mut expected = vec![0.0; places.len()];
        region_positions(&boxes(image), &classes(image), &mut expected);
        assert_eq!(places, expected);
        for (table, expected) in [(Table::Classes, classes(image)), (Table::Boxes, boxes(image))] {
            store.read_table(table, STEMS[image], &mut got).unwrap();
            assert_eq!(got, expected);
        }
    }
}

#[test]
fn every_storage_of_hdf5_reads_the_same() {
    for storage in [Storage::Contiguous, Storage::Chunked, Storage::Gzip] {
        let mini = Mini::without_tables();
        for image in 0..STEMS.len() {
            mini.write_table::<f16>("feat", image, &features(image), storage);
            mini.write_table::<f32>("cls", image, &classes(image), storage);
            mini.write_table::<f32>("boxes", image, &boxes(image), storage);
        }
        assert_reads(&mini.settings, 0..STEMS.len());
        for image in 0..STEMS.len() {
            mini.write_table::<f32>("feat", image, &features(image), storage);
            mini.write_table::<f16>("cls", image, &classes(image), storage);
            mini.write_table::<f16>("boxes", image, &boxes(image), storage);
        }
        assert_reads(&mini.settings, (0..STEMS.len()).rev());
    }
}

#[test]
fn numpy_tables_read_the_same() {
    let mini = Mini::without_tables();
    std::fs::create_dir(mini.path("trainval")).unwrap();
    for (image, stem) in STEMS.iter().enumerate() {
        let name = |suffix: &str| format!("trainval/{stem}{suffix}.npy");
        let (half, single) = if image % 2 == 0 { ("", "_cls_prob") } else { ("_cls_prob", "") };
        let table = |suffix: &str| if suffix.is_empty() { features(image) } else { classes(image) };
        let halves = table(half).into_iter().map(f16::from_f32);
        mini.write(
            &name(half),
            npy(
                "<f2",
                &format!("({REGIONS}, {})", table(half).len() / REGIONS),
                "False",
                halves.flat_map(f16::to_le_bytes),
            ),
        );
        let singles = table(single).into_iter();
        mini.write(
            &name(single),
            npy(
                "<f4",
                &format!("({REGIONS}, {})", table(single).len() / REGIONS),
                "False",
                singles.flat_map(f32::to_le_bytes),
            ),
        );
        mini.write_table::<f32>("boxes", image, &boxes(image), Storage::Contiguous);
    }
    let region_prefix = mini.path("trainval").to_str().unwrap().to_owned();
    let settings = DataSettings { region_format: RegionFormat::Npy, region_prefix, ..mini.settings.clone() };
    assert_reads(&settings, 0..STEMS.len());
}

/// A version 1.0 npy file.
fn npy(element: &str, shape: &str, fortran: &str, data: impl Iterator<Item = u8>) -> Vec<u8> {
    let mut header = format!("{{'descr': '{element}', 'fortran_order': {fortran}, 'shape': {shape}, }}");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let length = (header.len() as u16).to_le_bytes();
    [&b"\x93NUMPY\x01\x00"[..], &length, header.as_bytes()].concat().into_iter().chain(data).collect()
}

#[test]
#[cfg(unix)]
fn files_are_opened_once() {
    let mini = Mini::new();
    let store = RegionStore::open(&mini.settings).unwrap();
    let (mut values, mut places) = (Vec::new(), Vec::new());
    store.read(STEMS[0], &mut values, &mut places).unwrap();
    for kind in ["feat", "cls", "boxes"] {
        std::fs::remove_file(mini.table_file(kind, 0)).unwrap();
    }
    // Another data set of the same three files, which have no name any more.
    values.clear();
    store.read(STEMS[5], &mut values, &mut places).unwrap();
    assert_eq!(values, features(5));
}

#[test]
fn selection_of_images() {
    let mini = Mini::without_tables();
    let tokenizer = Tokenizer::from_file(&mini.settings.vocabulary, true).unwrap();
    let load =
        |settings: &DataSettings, names: &[&str]| CaptionData::load(settings, &splits(names), &tokenizer).unwrap();
    let stems = |data: &CaptionData| data.images.iter().map(|image| image.stem.clone()).collect::<Vec<_>>();

    let all = load(&mini.settings, &["restval", "train"]);
    assert_eq!(stems(&all), STEMS[..3]);
    assert_eq!(all.samples.len(), 9);
    assert_eq!(all.samples[3].image, 1);
    assert_eq!(all.samples[0].pieces, [6, 7, 9, 10, 12]);
    assert_eq!(all.samples[2].pieces, [6, 2]);
    assert_eq!(all.images[2].references, ["a dog on grass.", "cats on a dog on a dog on a dog", "a zebra"]);
    assert_eq!(all.images[2].image_id, ImageId::Number(143044));

    let few = load(&DataSettings { max_images: 1, ..mini.settings.clone() }, &["train", "restval", "val"]);
    assert_eq!(stems(&few), [STEMS[0], STEMS[2], STEMS[3]]);

    mini.write("valid.json", r#"["COCO_143.jpg", "other.jpg"]"#);
    assert_eq!(stems(&load(&mini.settings, &["train"])), [STEMS[1]]);

    let flickr = load(&DataSettings { dataset: Dataset::Flickr30k, ..mini.settings.clone() }, &["train"]);
    assert_eq!(flickr.images[0].image_id, ImageId::Name("COCO_143".into()));
    let cc = load(&DataSettings { dataset: Dataset::Cc, ..mini.settings.clone() }, &["train"]);
    assert_eq!(serde_json::to_string(&cc.images[0].image_id).unwrap(), "1");
}

fn source(mini: &Mini) -> BatchSource {
    let tokenizer = Tokenizer::from_file(&mini.settings.vocabulary, true).unwrap();
    let objective =
        ObjectiveSettings { s2s_prob: 0.5, bi_prob: 0.5, vis_mask_prob: 0.5, ..ObjectiveSettings::default() };
    let all = splits(&["train", "restval", "val", "test"]);
    BatchSource {
        data: Arc::new(CaptionData::load(&mini.settings, &all, &tokenizer).unwrap()),
        store: Arc::new(RegionStore::open(&mini.settings).unwrap()),
        sampler: Sampler::new(&mini.settings, &objective, 11, &tokenizer),
    }
}

#[test]
fn batches_do_not_depend_on_threads_prefetch_or_where_an_epoch_is_resumed() {
    let mini = Mini::new();
    let source = source(&mini);
    let plan = in_batches(&epoch_order(source.data.samples.len(), 11, 2, 0, 1), 4);
    let run = |workers, prefetch, first| -> Vec<Batch> {
        let settings = DataSettings { workers, prefetch, ..mini.settings.clone() };
        training_batches(source.clone(), 2, plan.clone(), first, &settings).map(Result::unwrap).collect()
    };
    let reference: Vec<Batch> = plan.iter().map(|samples| source.batch(2, samples).unwrap()).collect();
    assert_eq!(reference.len(), 5);
    assert_eq!(reference[4].size, 2);
    for (workers, prefetch) in [(1, 1), (2, 4), (7, 3)] {
        assert_eq!(run(workers, prefetch, 0), reference);
    }
    assert_eq!(run(3, 2, 3), reference[3..]);
    assert_ne!(source.batch(3, &plan[0]).unwrap(), reference[0], "epochs differ");
}

#[test]
fn a_batch_holds_the_regions_of_its_samples() {
    let mini = Mini::new();
    let source = source(&mini);
    let batch = source.batch(1, &[4, 17, 3]).unwrap(); // images 1, 5, 1
    assert_eq!(batch.features, [features(1), features(5), features(1)].concat());
    assert_eq!(batch.positions.len(), 3 * REGIONS * (6 + CLASSES));
    assert_eq!(batch.samples, [4, 17, 3]);
    assert_eq!(batch.text_lengths, [6, 3, 6], "five pieces at most, two, five, and [SEP]");
    assert_eq!(batch.num_masked_regions, 2);
    assert_eq!(batch.masked_regions.len(), 6);
    let images: Vec<ImageBatch> =
        image_batches(&source.data, &source.store, 4, &mini.settings).map(Result::unwrap).collect();
    assert_eq!(images.iter().map(|b| b.images.clone()).collect::<Vec<_>>(), [vec![0, 1, 2, 3], vec![4, 5]]);
    assert_eq!(images[1].features, [features(4), features(5)].concat());
}

#[test]
fn the_loader_reports_the_first_damaged_image_in_order() {
    let mini = Mini::new();
    mini.write_shaped::<f16>("feat", 3, &[0.0; 6], (2, 3), Storage::Contiguous);
    let settings = DataSettings { workers: 4, prefetch: 8, ..mini.settings.clone() };
    let source = source(&mini);
    let results: Vec<_> = image_batches(&source.data, &source.store, 1, &settings).collect();
    assert_eq!(results.len(), 4);
    assert!(results[..3].iter().all(Result::is_ok));
    let message = mini.tidy(results[3].as_ref().unwrap_err());
    assert_eq!(
        message.lines().next(),
        Some("`DATA/regions_feat045.h5`, dataset `COCO_000045`: found shape [2, 3], expected [4, 3]")
    );
}

#[test]
fn the_fingerprint_notices_changes_and_nothing_else() {
    let mini = Mini::new();
    let first = fingerprint(&mini.settings, &[]).unwrap();
    assert_eq!(first.len(), 64);
    let other_options = DataSettings { workers: 7, max_images: 2, ..mini.settings.clone() };
    assert_eq!(fingerprint(&other_options, &[]).unwrap(), first);
    assert_eq!(fingerprint(&Mini::new().settings, &[]).unwrap(), first, "the folder does not count");

    let mut seen = vec![first];
    let mut changed = |what: &str| {
        let now = fingerprint(&mini.settings, &[]).unwrap();
        assert!(!seen.contains(&now), "{what} went unnoticed");
        seen.push(now);
    };
    mini.write("vocab.txt", format!("{}new\n", mini_data::VOCABULARY));
    changed("vocabulary");
    mini.edit(|file| file["images"][0]["sentences"][0]["raw"] = "a cat".into());
    changed("annotations");
    mini.write("valid.json", "[]");
    changed("valid images");
    mini.write_table::<f16>("feat", 1, &classes(0)[..12], Storage::Contiguous);
    changed("a number in a feature file");
    mini.write_table::<f32>("boxes", 1, &boxes(2), Storage::Contiguous);
    changed("a number in the box file");
    std::fs::remove_file(mini.table_file("cls", 3)).unwrap();
    changed("a lost file");
    mini.write("regions_other.txt", "no region file");
    assert_eq!(fingerprint(&mini.settings, &[]).unwrap(), *seen.last().unwrap());
}

#[test]
fn verification_of_sound_data() {
    let mini = Mini::new();
    let report = verify(&mini.settings, &splits(&["train", "val"])).unwrap();
    assert_eq!(report.to_string(), "4 images, 12 captions: no defects");
}

#[test]
fn verification_finds_all_defects() {
    let mini = Mini::new();
    let mut table = features(0);
    (table[4], table[7]) = (f32::NAN, f32::INFINITY);
    mini.write_table::<f16>("feat", 0, &table, Storage::Contiguous);
    let mut table = boxes(0);
    table[6 + 2] = 1.0;
    table[12 + 3] = table[12 + 1];
    mini.write_table::<f32>("boxes", 0, &table, Storage::Contiguous);
    let mut table = classes(1);
    table[7] = -0.25;
    mini.write_table::<f16>("cls", 1, &table, Storage::Gzip);
    mini.write_table::<i32>("feat", 1, &features(1), Storage::Contiguous);
    std::fs::remove_file(mini.table_file("feat", 2)).unwrap();
    mini_data::open(mini.table_file("boxes", 2)).unlink(STEMS[2]).unwrap();
    mini.edit(|file| file["images"][2]["sentences"] = serde_json::json!([]));
    mini.write("vocab.txt", "a\nb\n");
    // An image of another split: not looked at.
    mini.write_shaped::<f16>("feat", 4, &[0.0], (1, 1), Storage::Contiguous);

    let report = verify(&mini.settings, &splits(&["train", "restval"])).unwrap();
    insta::assert_snapshot!(mini.tidy(&report), @r"
    DATA/vocab.txt: no line holds `[PAD]`, `[UNK]`, `[CLS]`, `[SEP]`, `[MASK]`
    DATA/regions_feat042.h5, COCO_1042: 2 numbers are not finite, the first in row 1, column 1
    DATA/boxes.h5, COCO_1042: 2 of 4 boxes have no area, the first in row 1: 8 9 1 40
    DATA/regions_feat143.h5, COCO_143: found elements of type int32, expected float16 or float32
    DATA/regions_cls143.h5, COCO_143: 1 class scores are outside 0 to 1, the first in row 1, column 2: -0.25
    DATA/dataset.json, COCO_143044.jpg: no captions
    DATA/regions_feat044.h5: no such file
    DATA/boxes.h5, COCO_143044: not in the file
    3 images, 6 captions: 8 defects
    ");
}
