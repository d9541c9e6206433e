//! Times of data loading: training batches from files as the original lays them out, by one thread and by the threads of a training, the
//! files in the page cache.
//!
//! 200 images as in the reference's timings, each loaded five times; unlike there, the samples are put together to batches.

use std::path::Path;
use std::sync::Arc;

use half::f16;
use hdf5::{File, H5Type};

use super::Part;
use super::clock::{Clock, Row};
use super::world::{Scratch, Size, World, numbers, unwritable};
use crate::cli::context::{Failure, exit};
use crate::config::DataSettings;
use crate::data::DataError;
use crate::data::batch::BatchSource;
use crate::data::karpathy::{CaptionData, ImageId, ImageRecord, Sample};
use crate::data::loader::{in_batches, training_batches};
use crate::data::random::Draw;
use crate::data::region_store::RegionStore;
use crate::data::sample::Sampler;

/// Images.
const IMAGES: usize = 200;

/// How often each is loaded in a repetition.
const ROUNDS: usize = 5;

/// Word pieces of each caption.
const PIECES: usize = 11;

/// Loads all samples, in batches of `size`: one batch after the other, and ahead of their use by each of these numbers of threads.
pub fn loader(world: &World, size: usize, threads: &[u16], repetitions: usize) -> Result<Vec<Row>, Failure> {
    let folder = Scratch::new()?;
    let settings = write(folder.path(), &world.settings.data).map_err(|error| unwritable(folder.path(), &error))?;
    let data_error = |error: DataError| Failure::new(exit::DATA, error);
    let source = BatchSource {
        data: Arc::new(captions(world)),
        store: Arc::new(RegionStore::open(&settings).map_err(data_error)?),
        sampler: Sampler::new(&settings, &world.settings.objective, 0, &world.tokenizer),
    };
    let samples: Vec<usize> = (0..ROUNDS).flat_map(|_| 0..IMAGES).collect();
    let batches = in_batches(&samples, size);
    let mut clock = Clock::new(Part::Loader, samples.len());
    for repetition in 0..=repetitions {
        clock
            .time("batches", || {
                batches.iter().try_for_each(|batch| {
                    std::hint::black_box(source.batch(repetition as u64, batch)?);
                    Ok(())
                })
            })
            .map_err(data_error)?;
    }
    let reference = match world.size {
        Size::Base => vec![format!("loader: {} samples, one process, no collation", samples.len())],
        Size::Tiny => Vec::new(),
    };
    let mut rows = clock.rows(|_| (None, reference.clone()));
    for workers in threads {
        let settings = DataSettings { workers: usize::from(*workers), ..settings.clone() };
        let mut clock = Clock::new(Part::Loader, samples.len());
        for repetition in 0..=repetitions {
            let load = || {
                let mut made = training_batches(source.clone(), repetition as u64, batches.clone(), 0, &settings);
                made.try_for_each(|batch| batch.map(|batch| drop(std::hint::black_box(batch))))
            };
            clock.time("ahead", load).map_err(data_error)?;
        }
        let name = if *workers == 1 { "by 1 thread".to_owned() } else { format!("by {workers} threads") };
        rows.extend(clock.rows(|_| (None, Vec::new())).into_iter().map(|row| Row { work: name.clone(), ..row }));
    }
    let bytes = samples.len() * bytes_of_a_sample(&settings);
    rows.iter_mut().for_each(|row| row.bytes = Some(bytes as f64));
    Ok(rows)
}

/// What is read of the files for a sample, and written to its batch.
fn bytes_of_a_sample(data: &DataSettings) -> usize {
    let (features, classes) = (data.region_feature_size, data.num_region_classes);
    let (read, written) = (2 * (features + classes) + 4 * 6, 4 * (features + 6 + classes));
    data.num_regions * (read + written)
}

fn stem(image: usize) -> String {
    format!("COCO_val2014_{:012}", 42 + 613 * image)
}

fn captions(world: &World) -> CaptionData {
    let mut draw = Draw::new("bench captions", &[]);
    let control = world.layout.mask as usize + 1;
    let words = world.tokenizer.vocab_size() - control;
    let image = |image: usize| ImageRecord {
        stem: stem(image),
        file_name: format!("{}.jpg", stem(image)),
        image_id: ImageId::Number(image as u64),
        split: "train".into(),
        references: Vec::new(),
    };
    let mut sample =
        |image| Sample { image, pieces: (0..PIECES).map(|_| (control + draw.below(words)) as u32).collect() };
    CaptionData { images: (0..IMAGES).map(image).collect(), samples: (0..IMAGES).map(&mut sample).collect() }
}

/// Files of features and class scores by the last three digits, float16, and one file of boxes; what is returned leads to them.
fn write(folder: &Path, data: &DataSettings) -> hdf5::Result<DataSettings> {
    let prefix = folder.join("regions");
    let boxes = folder.join("boxes.h5");
    let settings = DataSettings {
        region_prefix: prefix.to_string_lossy().into_owned(),
        boxes: boxes.to_string_lossy().into_owned(),
        ..data.clone()
    };
    let boxes = File::create(&boxes)?;
    let mut draw = Draw::new("bench regions", &[]);
    for image in 0..IMAGES {
        let name = stem(image);
        for (kind, columns) in [("feat", data.region_feature_size), ("cls", data.num_region_classes)] {
            let file = File::append(format!("{}_{kind}{}.h5", prefix.display(), &name[name.len() - 3..]))?;
            let values = numbers(&mut draw, data.num_regions * columns, true);
            table(&file, &name, columns, &values.into_iter().map(f16::from_f32).collect::<Vec<_>>())?;
        }
        let values = numbers(&mut draw, data.num_regions * 6, true);
        table(&boxes, &name, 6, &values.into_iter().map(|value| value * 300.0).collect::<Vec<f32>>())?;
    }
    Ok(settings)
}

fn table<T: H5Type>(file: &File, name: &str, columns: usize, values: &[T]) -> hdf5::Result<()> {
    file.new_dataset::<T>().shape([values.len() / columns, columns]).create(name)?.write_raw(values)
}
