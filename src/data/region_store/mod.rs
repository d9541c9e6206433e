//! Region features, class scores and boxes of images, wherever they lie.
//!
//! [`RegionStore`] hands out one image's tables as f32 and its position vectors. Every HDF5 file is opened once; tables are
//! found in the files' own indices when they are asked for. Values are not judged here (see `verify`), only presence, shape and element type.

mod boxes;
mod hdf5;
mod index;
mod npy;
mod positioned;

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use half::f16;

use crate::config::{DataSettings, RegionFormat};

use super::error::{DataError, RegionProblem};
use super::positions::{BOX_COLUMNS, box_parts, class_parts};

use boxes::BoxFile;
use hdf5::Hdf5Tables;
use npy::NpyTables;

/// Which of an image's three tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Table {
    /// Region features `[regions, feature size]`.
    Features,
    /// Class scores `[regions, classes]`.
    Classes,
    /// Boxes `[regions, 6]`: x1 y1 x2 y2 class confidence, in pixels.
    Boxes,
}

impl Table {
    /// Options that decide its shape.
    fn keys(self) -> &'static str {
        match self {
            Self::Features => "`data.num_regions` and `data.region_feature_size`",
            Self::Classes => "`data.num_regions` and `data.num_region_classes`",
            Self::Boxes => "`data.num_regions`, and 6 columns x1 y1 x2 y2 class confidence,",
        }
    }
}

/// The region tables of a collection. Shared by all loader threads.
#[derive(Debug)]
pub struct RegionStore {
    regions: usize,
    feature_size: usize,
    classes: usize,
    tables: Tables,
    boxes: BoxFile,
}

#[derive(Debug)]
enum Tables {
    Hdf5(Hdf5Tables),
    Npy(NpyTables),
}

impl RegionStore {
    /// Opens the box file, and the folder of the features; feature files follow when they are needed.
    pub fn open(settings: &DataSettings) -> Result<Self, DataError> {
        if settings.region_prefix.is_empty() {
            return Err(DataError::NotSet { key: "data.region_prefix", what: "region features" });
        }
        let tables = match settings.region_format {
            RegionFormat::Hdf5 => Tables::Hdf5(Hdf5Tables::open(&settings.region_prefix)?),
            RegionFormat::Npy => Tables::Npy(NpyTables::open(&settings.region_prefix)?),
        };
        Ok(Self {
            regions: settings.num_regions,
            feature_size: settings.region_feature_size,
            classes: settings.num_region_classes,
            tables,
            boxes: BoxFile::open(&settings.boxes)?,
        })
    }

    /// Regions per image.
    pub fn regions(&self) -> usize {
        self.regions
    }

    /// Numbers per region feature.
    pub fn feature_size(&self) -> usize {
        self.feature_size
    }

    /// Numbers per region position vector: 6 + classes.
    pub fn position_size(&self) -> usize {
        BOX_COLUMNS + self.classes
    }

    /// Features and position vectors of the image with this file stem.
    ///
    /// `regions · feature_size` numbers are added to `features`, `regions · (6 + classes)` to `positions`; after an error fewer, of no use.
    pub fn read(&self, stem: &str, features: &mut Vec<f32>, positions: &mut Vec<f32>) -> Result<(), DataError> {
        thread_local! {
            static BOXES: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
        }
        // A few rows at a time, from the caches to where they stay: memory is what threads wait for.
        self.read_rows(Table::Features, stem, &mut |rows| features.extend_from_slice(rows))?;
        let (start, width) = (positions.len(), self.position_size());
        self.read_rows(Table::Classes, stem, &mut |rows| {
            let place = positions.len();
            positions.resize(place + rows.len() / self.classes.max(1) * width, 0.0);
            class_parts(rows, self.classes, &mut positions[place..]);
        })?;
        BOXES.with_borrow_mut(|boxes| {
            self.read_table(Table::Boxes, stem, boxes)?;
            box_parts(boxes, width, &mut positions[start..]);
            Ok(())
        })
    }

    /// One table of an image, row-major, in place of what was in `out`.
    pub fn read_table(&self, table: Table, stem: &str, out: &mut Vec<f32>) -> Result<(), DataError> {
        out.clear();
        self.read_rows(table, stem, &mut |rows| out.extend_from_slice(rows))
    }

    /// Finds a table and checks its shape and element type, without reading its numbers; of npy files only whether they are there.
    pub fn check_table(&self, table: Table, stem: &str) -> Result<(), DataError> {
        let shape = self.shape(table);
        match (table, &self.tables) {
            (Table::Boxes, _) => self.boxes.check(stem, shape),
            (_, Tables::Hdf5(files)) => files.check(table, stem, shape),
            (_, Tables::Npy(files)) => files.check(table, stem),
        }
    }

    /// Rows and columns of a table.
    pub fn shape(&self, table: Table) -> [usize; 2] {
        let columns = match table {
            Table::Features => self.feature_size,
            Table::Classes => self.classes,
            Table::Boxes => BOX_COLUMNS,
        };
        [self.regions, columns]
    }

    /// File and dataset in which a table lies (dataset empty for npy files).
    pub fn locate(&self, table: Table, stem: &str) -> Result<(PathBuf, String), DataError> {
        match (table, &self.tables) {
            (Table::Boxes, _) => Ok((self.boxes.path().to_owned(), stem.to_owned())),
            (_, Tables::Hdf5(files)) => Ok((files.path(table, stem)?, stem.to_owned())),
            (_, Tables::Npy(files)) => Ok((files.path(table, stem), String::new())),
        }
    }

    /// Shows `take` the table, some whole rows at a time.
    fn read_rows(&self, table: Table, stem: &str, take: Take) -> Result<(), DataError> {
        let shape = self.shape(table);
        match (table, &self.tables) {
            (Table::Boxes, _) => self.boxes.read(stem, shape, take),
            (_, Tables::Hdf5(files)) => files.read(table, stem, shape, take),
            (_, Tables::Npy(files)) => files.read(table, stem, shape, take),
        }
    }
}

/// What is done with some rows of a table.
type Take<'a> = &'a mut dyn FnMut(&[f32]);

/// Numbers that are decoded at a time: they stay in a core's nearest cache.
const DECODED: usize = 4 << 10;

/// Shows `take` numbers of `width` bytes each, some whole rows of `columns` at a time.
fn decoded(bytes: &[u8], width: usize, columns: usize, take: Take) {
    thread_local! {
        static NUMBERS: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    }
    let rows = (DECODED / columns.max(1)).max(1);
    NUMBERS.with_borrow_mut(|numbers| {
        for bytes in bytes.chunks((rows * columns * width).max(1)) {
            numbers.resize(bytes.len() / width, 0.0);
            match width {
                2 => decode_half(bytes, numbers),
                _ => decode_single(bytes, numbers),
            }
            take(numbers);
        }
    });
}

/// An error unless a table's shape is the expected one.
fn check_shape(
    path: &Path,
    dataset: &str,
    table: Table,
    found: &[usize],
    expected: [usize; 2],
) -> Result<(), DataError> {
    if found == expected {
        return Ok(());
    }
    let problem = RegionProblem::Shape { found: found.to_vec(), expected: expected.to_vec(), keys: table.keys() };
    Err(DataError::region(path, dataset, problem))
}

/// Little-endian IEEE half-precision numbers to f32; the slices fit, and the bytes need no alignment.
fn decode_half(bytes: &[u8], out: &mut [f32]) {
    let numbers = bytes.as_chunks::<2>().0;
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("f16c") && is_x86_feature_detected!("avx") {
        // SAFETY: the processor has the instructions.
        return unsafe { decode_half_f16c(numbers, out) };
    }
    decode_half_plain(numbers, out);
}

/// Number by number.
fn decode_half_plain(numbers: &[[u8; 2]], out: &mut [f32]) {
    for (to, from) in out.iter_mut().zip(numbers) {
        *to = f16::from_le_bytes(*from).to_f32();
    }
}

/// Eight numbers at a time, from the file's bytes straight to their place.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "f16c,avx")]
fn decode_half_f16c(numbers: &[[u8; 2]], out: &mut [f32]) {
    use std::arch::x86_64::{_mm_loadu_si128, _mm256_cvtph_ps, _mm256_storeu_ps};
    let (from, rest) = numbers.as_chunks::<8>();
    let (to, rest_of_out) = out.as_chunks_mut::<8>();
    for (to, from) in to.iter_mut().zip(from) {
        // SAFETY: sixteen bytes are read and eight numbers written, as many as there are; neither needs alignment.
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(from.as_ptr().cast()))) };
    }
    decode_half_plain(rest, rest_of_out);
}

/// Little-endian f32 numbers; the slices fit, and the bytes need no alignment.
fn decode_single(bytes: &[u8], out: &mut [f32]) {
    for (number, from) in out.iter_mut().zip(bytes.chunks_exact(4)) {
        *number = f32::from_le_bytes([from[0], from[1], from[2], from[3]]);
    }
}

#[cfg(test)]
mod tests {
    use super::{decode_half, decode_half_plain};

    /// Every half-precision number, at every alignment, in lengths that are no multiple of a vector.
    #[test]
    fn vector_instructions_change_no_bit() {
        let all: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        for skip in 0..17 {
            let bytes = &all[skip..];
            let (mut fast, mut plain) = (vec![0.0; bytes.len() / 2], vec![0.0; bytes.len() / 2]);
            decode_half(bytes, &mut fast);
            decode_half_plain(bytes.as_chunks().0, &mut plain);
            assert_eq!(bits(&fast), bits(&plain), "from byte {skip}");
        }
    }
}
