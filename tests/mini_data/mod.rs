//! A data root of six images with tiny tables in a temporary folder, for tests to read and to damage.

#![allow(dead_code)] // each test file uses its part

use std::path::PathBuf;

use half::f16;
use hdf5::H5Type;
use tempfile::TempDir;
use vlp::config::DataSettings;

pub const REGIONS: usize = 4;
pub const FEATURES: usize = 3;
pub const CLASSES: usize = 5;

/// Stems of the images; the first and the last share their region files.
pub const STEMS: [&str; 6] = ["COCO_1042", "COCO_143", "COCO_143044", "COCO_000045", "COCO_046", "COCO_2042"];
const SPLITS: [&str; 6] = ["train", "train", "restval", "val", "val", "test"];

pub const VOCABULARY: &str = "[PAD]\n[unused1]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\ndog\ncat\non\ngrass\n##s\n.\n";

/// The data root and the options that read it.
pub struct Mini {
    pub folder: TempDir,
    pub settings: DataSettings,
}

/// How tables are stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Storage {
    Contiguous,
    Chunked,
    Gzip,
}

/// Region features of an image, `[REGIONS, FEATURES]`; exact in f16.
pub fn features(image: usize) -> Vec<f32> {
    (0..REGIONS * FEATURES).map(|i| (image * 100 + i) as f32 / 4.0).collect()
}

/// Class scores, `[REGIONS, CLASSES]`; exact in f16.
pub fn classes(image: usize) -> Vec<f32> {
    (0..REGIONS * CLASSES).map(|i| if i % CLASSES == image % CLASSES { 0.5 } else { 0.125 }).collect()
}

/// Boxes, `[REGIONS, 6]`; exact in f16.
pub fn boxes(image: usize) -> Vec<f32> {
    (0..REGIONS)
        .flat_map(|r| {
            let x = (8 * r + image) as f32;
            [x, x + 1.0, x + 16.0, x + 32.0, 2.0, 0.75]
        })
        .collect()
}

impl Mini {
    /// A sound data root: float16 features and class scores, float32 boxes, contiguous.
    pub fn new() -> Self {
        let mini = Self::without_tables();
        for image in 0..STEMS.len() {
            mini.write_table::<f16>("feat", image, &features(image), Storage::Contiguous);
            mini.write_table::<f16>("cls", image, &classes(image), Storage::Contiguous);
            mini.write_table::<f32>("boxes", image, &boxes(image), Storage::Contiguous);
        }
        mini
    }

    /// Annotations, valid images and vocabulary only.
    pub fn without_tables() -> Self {
        let folder = TempDir::new().unwrap();
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let settings = DataSettings {
            annotations: at("dataset.json"),
            valid_images: at("valid.json"),
            region_prefix: at("regions"),
            boxes: at("boxes.h5"),
            vocabulary: at("vocab.txt"),
            num_regions: REGIONS,
            region_feature_size: FEATURES,
            num_region_classes: CLASSES,
            max_text_length: 5,
            ..DataSettings::default()
        };
        let mini = Self { folder, settings };
        let images: Vec<serde_json::Value> = (0..STEMS.len())
            .map(|image| {
                let captions = ["a dog on grass.", "cats on a dog on a dog on a dog", "a zebra"];
                let sentences: Vec<_> = captions.iter().map(|c| serde_json::json!({ "raw": c, "tokens": [] })).collect();
                let file_name = format!("{}.jpg", STEMS[image]);
                serde_json::json!({ "filename": file_name, "split": SPLITS[image], "imgid": image, "sentences": sentences })
            })
            .collect();
        mini.write("dataset.json", serde_json::json!({ "images": images, "dataset": "coco" }).to_string());
        let valid: serde_json::Map<_, _> =
            STEMS.iter().map(|s| (format!("{s}.jpg"), serde_json::Value::Null)).collect();
        mini.write("valid.json", serde_json::Value::from(valid).to_string());
        mini.write("vocab.txt", VOCABULARY);
        mini
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).unwrap();
    }

    /// The annotations after a change.
    pub fn edit(&self, change: impl FnOnce(&mut serde_json::Value)) {
        let mut value = serde_json::from_slice(&std::fs::read(self.path("dataset.json")).unwrap()).unwrap();
        change(&mut value);
        self.write("dataset.json", serde_json::to_string_pretty(&value).unwrap());
    }

    /// The file of a table: `kind` is `feat`, `cls` or `boxes`.
    pub fn table_file(&self, kind: &str, image: usize) -> PathBuf {
        match kind {
            "boxes" => self.path("boxes.h5"),
            _ => self.path(&format!("regions_{kind}{}.h5", &STEMS[image][STEMS[image].len() - 3..])),
        }
    }

    /// Writes (or replaces) an image's table, its elements being of type `T`.
    pub fn write_table<T: Number>(&self, kind: &str, image: usize, values: &[f32], storage: Storage) {
        self.write_shaped::<T>(kind, image, values, (REGIONS, values.len() / REGIONS), storage);
    }

    /// As [`Mini::write_table`], with any shape.
    pub fn write_shaped<T: Number>(
        &self,
        kind: &str,
        image: usize,
        values: &[f32],
        shape: (usize, usize),
        storage: Storage,
    ) {
        let file = open(self.table_file(kind, image));
        if file.link_exists(STEMS[image]) {
            file.unlink(STEMS[image]).unwrap();
        }
        let builder = file.new_dataset::<T>().shape(shape);
        let builder = match storage {
            Storage::Contiguous => builder,
            Storage::Chunked => builder.chunk((2, shape.1)),
            Storage::Gzip => builder.chunk((2, shape.1)).shuffle().deflate(4),
        };
        let numbers: Vec<T> = values.iter().map(|x| T::of(*x)).collect();
        builder.create(STEMS[image]).unwrap().write_raw(&numbers).unwrap();
    }

    /// A text with this folder's name replaced by `DATA`.
    pub fn tidy(&self, text: impl std::fmt::Display) -> String {
        text.to_string().replace(self.folder.path().to_str().unwrap(), "DATA")
    }
}

/// Opens or creates a file without locking it: a lock would outlive the file in child processes started meanwhile.
pub fn open(path: PathBuf) -> hdf5::File {
    let mut options = hdf5::File::with_options();
    options.with_fapl(|access| access.file_locking(false));
    options.append(path).unwrap()
}

/// Element types of tables.
pub trait Number: H5Type {
    fn of(x: f32) -> Self;
}

impl Number for f16 {
    fn of(x: f32) -> Self {
        f16::from_f32(x)
    }
}

impl Number for f32 {
    fn of(x: f32) -> Self {
        x
    }
}

impl Number for f64 {
    fn of(x: f32) -> Self {
        x.into()
    }
}

impl Number for i32 {
    fn of(x: f32) -> Self {
        x as i32
    }
}
