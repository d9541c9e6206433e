//! What a plan needs to know about the data and the network of an experiment, without training anything.

use std::collections::BTreeMap;

use super::run::resolved_device;
use crate::config::{Dataset, Settings};
use crate::data::DataError;
use crate::data::fingerprint::fingerprint;
use crate::data::karpathy::read_images;
use crate::data::tokenizer::Tokenizer;
use crate::data::vqa_imdb::answer_vocabulary;
use crate::launch::plan::Facts;
use crate::model::{DataSizes, parameter_count};

/// Counts images and captions of the splits in use, words of the vocabulary, parameters; fingerprints the data.
pub fn facts(settings: &Settings) -> Result<Facts, DataError> {
    let data = &settings.data;
    let vocabulary = Tokenizer::from_file(&data.vocabulary, data.cased)?.vocab_size();
    let answers = match data.dataset {
        Dataset::Vqa2 => answer_vocabulary(data)?.len(),
        _ => 0,
    };
    let training = read_images(data, &data.train_splits)?;
    let mut split_images = BTreeMap::new();
    for split in used_splits(settings) {
        let images = if data.train_splits.contains(&split) {
            training.iter().filter(|image| image.split == split).count()
        } else {
            read_images(data, std::slice::from_ref(&split))?.len()
        };
        split_images.insert(split, images);
    }
    Ok(Facts {
        train_images: training.len(),
        train_samples: training.iter().map(|image| image.references.len()).sum(),
        split_images,
        vocabulary,
        parameters: parameter_count(&settings.model, data_sizes(settings, vocabulary, answers)),
        data_fingerprint: fingerprint(data, &used_splits(settings))?,
        device: resolved_device(settings),
    })
}

/// Sizes of the network that come from the data.
///
/// `answers`: classes of the answer head, 0 for none.
pub fn data_sizes(settings: &Settings, vocabulary: usize, answers: usize) -> DataSizes {
    DataSizes {
        vocabulary,
        region_feature_size: settings.data.region_feature_size,
        num_region_classes: settings.data.num_region_classes,
        answers,
    }
}

/// Splits that training, selection and evaluation read, each once.
pub fn used_splits(settings: &Settings) -> Vec<String> {
    let mut splits = settings.data.train_splits.clone();
    let others = settings.evaluate.splits.iter().chain([&settings.select.split]);
    for split in others.filter(|split| !split.is_empty()) {
        if !splits.contains(split) {
            splits.push(split.clone());
        }
    }
    splits
}
