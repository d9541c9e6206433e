//! Options of `[data]`: what is read, and how it is loaded.
//!
//! The shape only, as in the module above.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which collection is read; decides how an image id is derived from its annotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Dataset {
    /// COCO captions: the id is the number at the end of the file name.
    #[default]
    Coco,
    /// Conceptual Captions: the id is `imgid`.
    Cc,
    /// Flickr30k: the id is the stem of the file name.
    Flickr30k,
    /// VQA 2.0: questions about COCO images, from `data.imdb`; `data.annotations` is not read.
    Vqa2,
}

/// File format of the region features.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RegionFormat {
    /// HDF5 files `<prefix>_featNNN.h5` and `<prefix>_clsNNN.h5`, NNN = last three digits of the image id, one dataset per file stem.
    #[default]
    Hdf5,
    /// numpy files `<prefix>/<stem>.npy` and `<prefix>/<stem>_cls_prob.npy`.
    Npy,
}

/// Which end of a caption is cut when it has more than `data.max_text_length` word pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Truncate {
    /// Always the tail (`--always_truncate_tail`, which every published command uses).
    #[default]
    Tail,
    /// One piece at a time from a randomly drawn end.
    Random,
}

/// Annotations, region features, boxes and vocabulary on disk, and how they are loaded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DataSettings {
    /// Which collection is read; decides how an image id is derived from its annotation.
    pub dataset: Dataset,
    /// Karpathy-layout annotation file (`dataset_coco.json`).
    #[schemars(extend("x-path" = "file"))]
    pub annotations: String,
    /// JSON file whose keys (or entries) are the usable image file names.
    #[schemars(extend("x-path" = "file"))]
    pub valid_images: String,
    /// Format of the region features.
    pub region_format: RegionFormat,
    /// Path prefix of the region features: what stands before `_featNNN.h5` (hdf5), or the folder of the npy files (npy).
    #[schemars(extend("x-path" = "prefix"))]
    pub region_prefix: String,
    /// HDF5 file with one box table per image: x1 y1 x2 y2 class confidence.
    #[schemars(extend("x-path" = "file"))]
    pub boxes: String,
    /// WordPiece vocabulary, one token per line.
    #[schemars(extend("x-path" = "file"))]
    pub vocabulary: String,
    /// Keep upper case and accents (the paper uses the cased vocabulary).
    pub cased: bool,
    /// VQA: pickled question files (`imdb_train2014.npy`), by split.
    #[schemars(extend("x-path" = "file"))]
    pub imdb: BTreeMap<String, String>,
    /// VQA: answer vocabulary, one answer per line, `<unk>` first.
    #[schemars(extend("x-path" = "file"))]
    pub answers: String,
    /// VQA: official annotations (`v2_mscoco_val2014_annotations.json`), by split; they give the types of questions and answers
    /// for the scores. Without those of a split, its accuracy is computed over the answers in its imdb file, all types together.
    #[schemars(extend("x-path" = "file"))]
    pub vqa_annotations: BTreeMap<String, String>,
    /// VQA: official question files (`v2_OpenEnded_mscoco_test2015_questions.json`), by phase of the evaluation server
    /// (`test-dev2015`, `test2015`); a submission is written and checked for each phase whose questions were answered.
    #[schemars(extend("x-path" = "file"))]
    pub vqa_questions: BTreeMap<String, String>,
    /// Splits that training reads.
    #[schemars(length(min = 1))]
    pub train_splits: Vec<String>,
    /// Regions per image.
    #[schemars(range(min = 1, max = 1000))]
    pub num_regions: usize,
    /// Numbers per region feature (fc6/fc7 of the detector).
    #[schemars(range(min = 1))]
    pub region_feature_size: usize,
    /// Object classes of the detector, background included.
    #[schemars(range(min = 1))]
    pub num_region_classes: usize,
    /// Word pieces per caption in training, `[SEP]` not counted (`max_len_b`).
    #[schemars(range(min = 1, max = 400), extend("x-unit" = "word pieces"))]
    pub max_text_length: usize,
    /// Which end of a longer caption is cut.
    pub truncate: Truncate,
    /// Use at most this many images of each split; 0 uses all.
    #[schemars(extend("x-unit" = "images"))]
    pub max_images: usize,
    /// Loader threads; the batches do not depend on their number.
    #[schemars(range(min = 1, max = 256), extend("x-unit" = "threads"))]
    pub workers: usize,
    /// Batches prepared ahead of the training step.
    #[schemars(range(min = 1, max = 64), extend("x-unit" = "batches"))]
    pub prefetch: usize,
}

impl Default for DataSettings {
    fn default() -> Self {
        Self {
            dataset: Dataset::Coco,
            annotations: String::new(),
            valid_images: String::new(),
            region_format: RegionFormat::Hdf5,
            region_prefix: String::new(),
            boxes: String::new(),
            vocabulary: String::new(),
            cased: true,
            imdb: BTreeMap::new(),
            answers: String::new(),
            vqa_annotations: BTreeMap::new(),
            vqa_questions: BTreeMap::new(),
            train_splits: vec!["train".into()],
            num_regions: 100,
            region_feature_size: 2048,
            num_region_classes: 1601,
            max_text_length: 20,
            truncate: Truncate::Tail,
            max_images: 0,
            workers: 2,
            prefetch: 4,
        }
    }
}
