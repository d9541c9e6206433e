//! Times and memory of finding things at the size of Conceptual Captions: 3.3 million images.
//!
//! Files in the original's layout are written first, which takes minutes and 5 GB of disk: the box file of all images and the
//! files of features and class scores of some endings, with places for numbers that nobody wrote; annotations and list
//! of valid images with made-up captions.

use std::fs::File as Plain;
use std::io::{BufWriter, Write};

use half::f16;
use hdf5::plist::dataset_create::{AllocTime, FillTime};
use hdf5::plist::file_access::MetadataCacheConfig;
use hdf5::{File, H5Type};

use super::super::context::{Failure, exit};
use super::Part;
use super::clock::{Clock, Row};
use super::world::{Scratch, Size, World, unwritable};
use crate::config::{DataSettings, Dataset};
use crate::data::DataError;
use crate::data::karpathy::CaptionData;
use crate::data::random::Draw;
use crate::data::region_store::{RegionStore, Table};

/// Words of each caption, as many as a caption of Conceptual Captions has.
const WORDS: usize = 10;

/// The files, and what is in them.
#[derive(Debug)]
pub struct Index<'a> {
    world: &'a World,
    settings: DataSettings,
    images: usize,
    /// For images with which last three digits, from 000 on, there are features and class scores.
    endings: usize,
    _folder: Scratch,
}

impl<'a> Index<'a> {
    /// Writes the files.
    pub fn new(world: &'a World) -> Result<Self, Failure> {
        let folder = Scratch::new()?;
        let (images, endings) = match world.size {
            Size::Base => (3_318_333, 20),
            Size::Tiny => (3000, 2),
        };
        let place = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        let settings = DataSettings {
            dataset: Dataset::Cc,
            annotations: place("dataset_cc.json"),
            valid_images: place("cc_valid_jpgs.json"),
            region_prefix: place("regions"),
            boxes: place("boxes.h5"),
            ..world.settings.data.clone()
        };
        let index = Self { world, settings, images, endings, _folder: folder };
        let failure = |error: &dyn std::fmt::Display| unwritable(index._folder.path(), error);
        index.write_regions().map_err(|error| failure(&error))?;
        index.write_captions().map_err(|error| failure(&error))?;
        Ok(index)
    }

    fn write_regions(&self) -> hdf5::Result<()> {
        let Self { settings, .. } = self;
        let mut options = File::with_options();
        options.with_fapl(|access| access.mdc_config(&all_names_at_hand()));
        let boxes = options.create(&settings.boxes)?;
        (0..self.images).try_for_each(|image| table::<f32>(&boxes, &stem(image), settings.num_regions, 6))?;
        for ending in 0..self.endings {
            for (kind, columns) in [("feat", settings.region_feature_size), ("cls", settings.num_region_classes)] {
                let file = File::create(format!("{}_{kind}{ending:03}.h5", settings.region_prefix))?;
                let mut images = (ending..self.images).step_by(1000);
                images.try_for_each(|image| table::<f16>(&file, &stem(image), settings.num_regions, columns))?;
            }
        }
        Ok(())
    }

    fn write_captions(&self) -> std::io::Result<()> {
        let create = |path: &str| Plain::create(path).map(BufWriter::new);
        let (mut captions, mut valid) = (create(&self.settings.annotations)?, create(&self.settings.valid_images)?);
        let (mut draw, control) = (Draw::new("bench index", &[]), self.world.layout.mask as usize + 1);
        let words = self.world.tokenizer.vocab_size() - control;
        write!(captions, "{{\"images\": [")?;
        write!(valid, "{{")?;
        for image in 0..self.images {
            let (stem, comma) = (stem(image), if image > 0 { ", " } else { "" });
            write!(captions, "{comma}{{\"filename\": \"{stem}.jpg\", \"imgid\": {image}, \"split\": \"train\", ")?;
            write!(captions, "\"sentences\": [{{\"raw\": \"a")?;
            for _ in 1..WORDS {
                write!(captions, " word{}", control + draw.below(words))?;
            }
            write!(captions, "\", \"imgid\": {image}, \"sentid\": {image}}}], \"sentids\": [{image}]}}")?;
            write!(valid, "{comma}\"{stem}.jpg\": 1")?;
        }
        writeln!(captions, "]}}")?;
        writeln!(valid, "}}")?;
        captions.flush()?;
        valid.flush()
    }

    /// Finds all boxes, in an order that is not the file's.
    pub fn boxes(&self, repetitions: usize) -> Result<Vec<Row>, Failure> {
        // Coprime to both numbers of images.
        const STRIDE: usize = 1_000_003;
        self.find(repetitions, "boxes", self.images, |store| {
            (0..self.images).try_for_each(|i| store.check_table(Table::Boxes, &stem(i * STRIDE % self.images)))
        })
    }

    /// Finds features and class scores.
    pub fn regions(&self, repetitions: usize) -> Result<Vec<Row>, Failure> {
        let images = || (0..self.images).filter(|image| image % 1000 < self.endings);
        self.find(repetitions, "features and class scores", 2 * images().count(), |store| {
            images().try_for_each(|image| {
                store.check_table(Table::Features, &stem(image))?;
                store.check_table(Table::Classes, &stem(image))
            })
        })
    }

    fn find(
        &self,
        repetitions: usize,
        work: &'static str,
        tables: usize,
        find: impl Fn(&RegionStore) -> Result<(), DataError>,
    ) -> Result<Vec<Row>, Failure> {
        let mut clock = Clock::new(Part::Index, tables);
        for _ in 0..=repetitions {
            let all = || RegionStore::open(&self.settings).and_then(|store| find(&store));
            clock.time(work, all).map_err(|error| Failure::new(exit::DATA, error))?;
        }
        Ok(clock.rows(|_| (None, Vec::new())))
    }

    /// Reads annotations and list of valid images, and splits the captions into word pieces.
    pub fn captions(&self, repetitions: usize) -> Result<Vec<Row>, Failure> {
        let mut clock = Clock::new(Part::Index, self.images);
        for _ in 0..=repetitions {
            let load = || CaptionData::load(&self.settings, &["train".to_owned()], &self.world.tokenizer);
            let data = clock.time("annotations", load).map_err(|error| Failure::new(exit::DATA, error))?;
            std::hint::black_box(data.samples.len());
        }
        Ok(clock.rows(|_| (None, Vec::new())))
    }
}

/// A cache of the library that holds the names of all boxes, 53 MB: with less they are read and written again for each table.
fn all_names_at_hand() -> MetadataCacheConfig {
    const SIZE: usize = 128 << 20;
    MetadataCacheConfig { initial_size: SIZE, max_size: SIZE, min_size: SIZE, ..MetadataCacheConfig::default() }
}

fn stem(image: usize) -> String {
    format!("{image:08}")
}

/// A table with a place in the file, and no numbers.
fn table<T: H5Type>(file: &File, name: &str, rows: usize, columns: usize) -> hdf5::Result<()> {
    let table = file.new_dataset::<T>().shape([rows, columns]);
    table.alloc_time(Some(AllocTime::Early)).fill_time(FillTime::Never).create(name).map(drop)
}
