//! Karpathy-layout annotations: which images and captions a set of splits has.
//!
//! Reads the annotation file and the list of valid images; region files are not looked at (see `verify`).

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use rayon::prelude::{IndexedParallelIterator, IntoParallelRefIterator, ParallelIterator};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::{DataSettings, Dataset};

use super::annotation_file::{self, Entry, Read};
use super::error::{DataError, read_file};
use super::tokenizer::Tokenizer;
use super::vqa_imdb;

/// The images and captions of some splits, in the order of the annotation file.
#[derive(Debug, Clone, PartialEq)]
pub struct CaptionData {
    /// One per image.
    pub images: Vec<ImageRecord>,
    /// One per caption.
    pub samples: Vec<Sample>,
}

/// An image and its captions as people wrote them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ImageRecord {
    /// File name without its ending: the name of its datasets.
    pub stem: String,
    /// File name.
    pub file_name: String,
    /// Id under which predictions are reported.
    pub image_id: ImageId,
    /// Split it belongs to.
    pub split: String,
    /// Its captions, untouched.
    pub references: Vec<String>,
}

/// Id of an image: a number, or (Flickr30k) a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ImageId {
    /// COCO and Conceptual Captions.
    Number(u64),
    /// Flickr30k.
    Name(String),
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// A caption as the network reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Index in [`CaptionData::images`].
    pub image: usize,
    /// Ids of all its word pieces, not yet truncated.
    pub pieces: Vec<u32>,
}

impl CaptionData {
    /// The images of `splits` that are in the list of valid images, at most `data.max_images` of each split, and their captions.
    pub fn load(settings: &DataSettings, splits: &[String], tokenizer: &Tokenizer) -> Result<Self, DataError> {
        let images = read_images(settings, splits)?;
        let samples = images
            .par_iter()
            .enumerate()
            .flat_map_iter(|(image, record)| {
                record.references.iter().map(move |text| Sample { image, pieces: tokenizer.encode(text) })
            })
            .collect();
        Ok(Self { images, samples })
    }
}

/// The images of `splits` as [`CaptionData::load`] selects them; in VQA with their questions in place of captions.
pub fn read_images(settings: &DataSettings, splits: &[String]) -> Result<Vec<ImageRecord>, DataError> {
    if settings.dataset == Dataset::Vqa2 {
        return vqa_imdb::read_images(settings, splits);
    }
    let path = PathBuf::from(&settings.annotations);
    let bytes = read_file("data.annotations", "annotation file", &settings.annotations)?;
    let make = |index, entry| record(settings.dataset, &path, index, entry);
    let read = annotation_file::read(&bytes, splits, make);
    let Read { images: found, splits: available } = read.map_err(|error| explain(&path, &bytes, &error))?;
    drop(bytes);

    let missing: Vec<String> = splits.iter().filter(|s| !available.contains(*s)).cloned().collect();
    if !missing.is_empty() {
        let available = available.into_iter().collect();
        return Err(DataError::UnknownSplit { path, missing, available });
    }

    let valid = read_valid(settings)?;
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let (seen, mut example) = (found.len(), String::new());
    let mut is_used = |split: &str, file_name: &str| {
        if !valid.contains(file_name) {
            file_name.clone_into(&mut example);
            return false;
        }
        if settings.max_images == 0 {
            return true;
        }
        let count = counts.entry(split.to_owned()).or_default();
        *count += 1;
        *count <= settings.max_images
    };
    let used = found.into_iter().filter_map(|image| match image {
        Ok(image) => is_used(&image.split, &image.file_name).then_some(Ok(image)),
        Err(bad) => is_used(&bad.split, &bad.file_name).then_some(Err(bad.error)),
    });
    let images: Vec<ImageRecord> = used.collect::<Result<_, _>>()?;
    if images.is_empty() && !splits.is_empty() {
        return Err(DataError::NoValidImage {
            annotations: path,
            valid: PathBuf::from(&settings.valid_images),
            splits: splits.to_vec(),
            images: seen,
            entries: valid.len(),
            example,
        });
    }
    Ok(images)
}

/// What is kept of an entry of the file.
fn record(dataset: Dataset, path: &Path, index: usize, entry: Entry) -> Result<ImageRecord, Box<Misnamed>> {
    let stem = match entry.filename.rsplit_once('.') {
        Some((stem, _)) if !stem.is_empty() => stem.to_owned(),
        _ => entry.filename.clone(),
    };
    match image_id(dataset, path, index, &stem, &entry) {
        Ok(image_id) => {
            let references = entry.sentences.into_iter().map(|sentence| sentence.raw).collect();
            Ok(ImageRecord { stem, file_name: entry.filename, image_id, split: entry.split, references })
        }
        Err(error) => Err(Box::new(Misnamed { file_name: entry.filename, split: entry.split, error })),
    }
}

fn image_id(dataset: Dataset, path: &Path, index: usize, stem: &str, entry: &Entry) -> Result<ImageId, DataError> {
    let no_id = |place: &str, found: String, expected| DataError::ImageId {
        path: path.to_owned(),
        place: format!("`images[{index}].{place}`"),
        found,
        expected,
    };
    Ok(match dataset {
        Dataset::Flickr30k => ImageId::Name(stem.to_owned()),
        Dataset::Coco | Dataset::Vqa2 => ImageId::Number(coco_id(stem).ok_or_else(|| {
            no_id("filename", format!("`{}`", entry.filename), "a name that ends in the number of a COCO image")
        })?),
        Dataset::Cc => ImageId::Number(
            entry.imgid.as_u64().ok_or_else(|| no_id("imgid", describe(Some(&entry.imgid)), "a whole number"))?,
        ),
    })
}

/// An image without an id: an error, should it be used.
struct Misnamed {
    file_name: String,
    split: String,
    error: DataError,
}

/// The number at the end of the name of a COCO image.
pub(super) fn coco_id(stem: &str) -> Option<u64> {
    stem[stem.trim_end_matches(|c: char| c.is_ascii_digit()).len()..].parse().ok()
}

/// The usable file names: the keys of an object, or the strings of an array.
pub(super) fn read_valid(settings: &DataSettings) -> Result<HashSet<String>, DataError> {
    let path = Path::new(&settings.valid_images);
    let bytes = read_file("data.valid_images", "list of valid images", &settings.valid_images)?;
    let layout = |place: String, found: &Value, expected| DataError::Layout {
        path: path.to_owned(),
        place,
        found: describe(Some(found)),
        expected,
        help: "`data.valid_images` must name a JSON file whose keys, or entries, are the usable image file names",
    };
    if let Ok(names) = annotation_file::names(&bytes) {
        return Ok(names);
    }
    match serde_json::from_slice(&bytes).map_err(|error| syntax(path, &error))? {
        Value::Object(names) => Ok(names.into_iter().map(|(name, _)| name).collect()),
        Value::Array(names) => names
            .into_iter()
            .enumerate()
            .map(|(index, name)| match name {
                Value::String(name) => Ok(name),
                other => Err(layout(format!("`[{index}]`"), &other, "a file name (a string)")),
            })
            .collect(),
        other => Err(layout("the whole file".into(), &other, "an object or an array of file names")),
    }
}

/// The error of a file that did not fit [`annotation_file::read`]: its first misfit by place, or the parser's words.
fn explain(path: &Path, bytes: &[u8], error: &serde_json::Error) -> DataError {
    let misfit = serde_json::from_slice::<Value>(bytes).ok().and_then(|value| first_misfit(&value));
    match misfit {
        Some((place, found, expected)) => DataError::Layout {
            path: path.to_owned(),
            place,
            found,
            expected,
            help: "`data.annotations` must name a file in Karpathy's layout: `images[]` with `filename`, `split` and `sentences[].raw`",
        },
        None => syntax(path, error),
    }
}

fn syntax(path: &Path, error: &serde_json::Error) -> DataError {
    let text = error.to_string();
    let message = text.split(" at line ").next().unwrap_or_default().to_owned();
    DataError::Json { path: path.to_owned(), line: error.line(), column: error.column(), message }
}

type Misfit = (String, String, &'static str);

fn first_misfit(file: &Value) -> Option<Misfit> {
    if !file.is_object() {
        return Some(("the whole file".into(), describe(Some(file)), "an object with a list `images`"));
    }
    let Some(images) = file.get("images").and_then(Value::as_array) else {
        return Some(("`images`".into(), describe(file.get("images")), "a list"));
    };
    images.iter().enumerate().find_map(|(index, image)| image_misfit(&format!("images[{index}]"), image))
}

fn image_misfit(place: &str, image: &Value) -> Option<Misfit> {
    if !image.is_object() {
        return Some((format!("`{place}`"), describe(Some(image)), "an object"));
    }
    for key in ["filename", "split"] {
        if !image.get(key).is_some_and(Value::is_string) {
            return Some((format!("`{place}.{key}`"), describe(image.get(key)), "a string"));
        }
    }
    let Some(sentences) = image.get("sentences").and_then(Value::as_array) else {
        return Some((format!("`{place}.sentences`"), describe(image.get("sentences")), "a list"));
    };
    sentences.iter().enumerate().find_map(|(index, sentence)| {
        let raw = sentence.get("raw");
        let bad = !raw.is_some_and(Value::is_string);
        bad.then(|| (format!("`{place}.sentences[{index}].raw`"), describe(raw), "a string"))
    })
}

fn describe(value: Option<&Value>) -> String {
    match value {
        None => "missing".into(),
        Some(Value::Null) => "null or missing".into(),
        Some(Value::Bool(value)) => format!("`{value}`"),
        Some(Value::Number(number)) => format!("the number {number}"),
        Some(Value::String(text)) => format!("the string {text:?}"),
        Some(Value::Array(_)) => "a list".into(),
        Some(Value::Object(_)) => "an object".into(),
    }
}
