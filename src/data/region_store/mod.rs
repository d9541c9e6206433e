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
use super::positions::{BOX_COLUMNS, region_positions};

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
    /// `features` holds `regions · feature_size` numbers, `positions` `regions · (6 + classes)`; both are overwritten.
    ///
    /// # Panics
    /// When a slice has another length: that is the caller's mistake, no input can cause it.
    pub fn read(&self, stem: &str, features: &mut [f32], positions: &mut [f32]) -> Result<(), DataError> {
        thread_local! {
            static SCRATCH: RefCell<(Vec<f32>, Vec<f32>)> = const { RefCell::new((Vec::new(), Vec::new())) };
        }
        assert_eq!(features.len(), self.regions * self.feature_size, "length of features");
        assert_eq!(positions.len(), self.regions * self.position_size(), "length of positions");
        self.fill(Table::Features, stem, features)?;
        SCRATCH.with_borrow_mut(|(classes, boxes)| {
            self.read_table(Table::Classes, stem, classes)?;
            self.read_table(Table::Boxes, stem, boxes)?;
            region_positions(boxes, classes, positions);
            Ok(())
        })
    }

    /// One table of an image, row-major; `out` is resized to it.
    pub fn read_table(&self, table: Table, stem: &str, out: &mut Vec<f32>) -> Result<(), DataError> {
        let [rows, columns] = self.shape(table);
        out.resize(rows * columns, 0.0);
        self.fill(table, stem, out)
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

    fn fill(&self, table: Table, stem: &str, out: &mut [f32]) -> Result<(), DataError> {
        let shape = self.shape(table);
        match (table, &self.tables) {
            (Table::Boxes, _) => self.boxes.read(stem, shape, out),
            (_, Tables::Hdf5(files)) => files.read(table, stem, shape, out),
            (_, Tables::Npy(files)) => files.read(table, stem, shape, out),
        }
    }
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
