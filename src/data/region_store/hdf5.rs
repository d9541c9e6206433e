//! Tables in HDF5 files.
//!
//! Contiguous, uncompressed float16 and float32 tables (as `create_dataset(name, data=…)` makes them) are found (see `index`) and
//! read piece by piece without the library and its global lock; chunked, compressed and big-endian ones go through the
//! library. Files are not mapped: each piece of a map costs a fault of page, mapped pages count as the process's memory until they are
//! given back, which threads have to wait for, and a file that is cut short meanwhile ends the process.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use ::hdf5::datatype::ByteOrder;
use ::hdf5::types::{FloatSize, TypeDescriptor};
use ::hdf5::{Datatype, File};
use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::data::error::{DataError, RegionProblem};

use super::index::Index;
use super::{Table, Take, check_shape, decoded, positioned};

/// Open files at most: features and class scores for each of the 1000 endings, boxes, and what the process needs besides.
const OPEN_FILES: u64 = 2 * 1000 + 1 + 500;

/// Bytes that are read at a time, or one row: these stay in a core's cache.
const PIECE: usize = 64 << 10;

/// The feature and class files `<prefix>_featNNN.h5` and `<prefix>_clsNNN.h5`, NNN = the last three characters of the stem.
#[derive(Debug)]
pub struct Hdf5Tables {
    prefix: String,
    files: RwLock<HashMap<PathBuf, Arc<TableFile>>>,
}

impl Hdf5Tables {
    /// Notes the prefix; files are opened at first use and then stay open.
    pub fn open(prefix: &str) -> Result<Self, DataError> {
        allow_open_files();
        Ok(Self { prefix: prefix.to_owned(), files: RwLock::default() })
    }

    /// The file in which a table lies.
    pub fn path(&self, table: Table, stem: &str) -> Result<PathBuf, DataError> {
        let kind = if table == Table::Features { "feat" } else { "cls" };
        let ending = stem.char_indices().rev().nth(2).map(|(at, _)| &stem[at..]);
        match ending {
            Some(ending) => Ok(PathBuf::from(format!("{}_{kind}{ending}.h5", self.prefix))),
            None => Err(DataError::region(Path::new(&self.prefix), stem, RegionProblem::ShortName)),
        }
    }

    /// Shows `take` a table of an image, some whole rows at a time.
    pub fn read(&self, table: Table, stem: &str, shape: [usize; 2], take: Take) -> Result<(), DataError> {
        self.file(self.path(table, stem)?)?.read(table, stem, shape, take)
    }

    /// As [`Self::read`], without the numbers.
    pub fn check(&self, table: Table, stem: &str, shape: [usize; 2]) -> Result<(), DataError> {
        self.file(self.path(table, stem)?)?.check(table, stem, shape)
    }

    fn file(&self, path: PathBuf) -> Result<Arc<TableFile>, DataError> {
        if let Some(file) = self.files.read().unwrap_or_else(PoisonError::into_inner).get(&path) {
            return Ok(Arc::clone(file));
        }
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = files.get(&path) {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(TableFile::open("data.region_prefix", &path)?);
        files.insert(path, Arc::clone(&file));
        Ok(file)
    }
}

/// An HDF5 file whose datasets are tables named after images. Kept are some 8 bytes of each table that `index` finds; of others
/// that are in use about 90 bytes each, and what the library keeps.
#[derive(Debug)]
pub struct TableFile {
    path: PathBuf,
    file: std::fs::File,
    /// None where the file is laid out in another way.
    index: Option<Index>,
    /// Opened when a table needs it.
    library: OnceLock<File>,
    places: RwLock<HashMap<Box<str>, Place>>,
}

/// How a table is read; its shape and element type have been checked.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// float16 at this offset of the file.
    Half(usize),
    /// float32 at this offset of the file.
    Single(usize),
    /// float16 by the library, converted here.
    LibraryHalf,
    /// By the library, which converts to float32.
    Library,
}

impl TableFile {
    /// Opens the file; `key` is the option that leads to it.
    pub fn open(key: &'static str, path: &Path) -> Result<Self, DataError> {
        let unreadable = |message: String| DataError::region(path, "", RegionProblem::Unreadable(message));
        let file = std::fs::File::open(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => DataError::region(path, "", RegionProblem::NoFile { key }),
            _ => unreadable(error.to_string()),
        })?;
        if !has_signature(&file).map_err(|error| unreadable(error.to_string()))? {
            return Err(DataError::region(path, "", RegionProblem::NotHdf5));
        }
        // The library looks at the file as a whole, and lets go of it.
        open(path).map_err(|error| unreadable(error.to_string()))?;
        let index = Index::open(&file);
        Ok(Self { path: path.to_owned(), file, index, library: OnceLock::new(), places: RwLock::default() })
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Shows `take` the table `dataset`, which must have this shape, some whole rows at a time.
    pub fn read(&self, table: Table, dataset: &str, shape: [usize; 2], take: Take) -> Result<(), DataError> {
        match self.place(table, dataset, shape)? {
            Place::Half(offset) => self.numbers(dataset, offset, 2, shape, take)?,
            Place::Single(offset) => self.numbers(dataset, offset, 4, shape, take)?,
            Place::LibraryHalf => {
                let numbers = self.library()?.dataset(dataset).and_then(|d| d.read_raw::<f16>());
                take(&numbers.map_err(|error| self.unreadable(dataset, &error))?.to_f32_vec());
            }
            Place::Library => {
                let numbers = self.library()?.dataset(dataset).and_then(|d| d.read_raw::<f32>());
                take(&numbers.map_err(|error| self.unreadable(dataset, &error))?);
            }
        }
        Ok(())
    }

    /// As [`Self::read`], without the numbers.
    pub fn check(&self, table: Table, dataset: &str, shape: [usize; 2]) -> Result<(), DataError> {
        self.place(table, dataset, shape).map(drop)
    }

    /// How a table is read, having checked it.
    fn place(&self, table: Table, dataset: &str, shape: [usize; 2]) -> Result<Place, DataError> {
        if let Some(found) = self.index.as_ref().and_then(|index| index.find(&self.file, dataset)) {
            check_shape(&self.path, dataset, table, &found.shape, shape)?;
            return Ok(if found.half { Place::Half(found.offset) } else { Place::Single(found.offset) });
        }
        if let Some(place) = self.places.read().unwrap_or_else(PoisonError::into_inner).get(dataset) {
            return Ok(*place);
        }
        let place = self.find(table, dataset, shape)?;
        self.places.write().unwrap_or_else(PoisonError::into_inner).insert(dataset.into(), place);
        Ok(place)
    }

    fn library(&self) -> Result<&File, DataError> {
        if let Some(file) = self.library.get() {
            return Ok(file);
        }
        let file = open(&self.path)
            .map_err(|error| DataError::region(&self.path, "", RegionProblem::Unreadable(error.to_string())))?;
        Ok(self.library.get_or_init(|| file))
    }

    /// Opens a dataset by the library to check it and to see how it can be read.
    fn find(&self, table: Table, dataset: &str, shape: [usize; 2]) -> Result<Place, DataError> {
        let file = self.library()?;
        if !file.link_exists(dataset) {
            return Err(DataError::region(&self.path, dataset, RegionProblem::NoDataset));
        }
        let inspect = || -> ::hdf5::Result<(Vec<usize>, Datatype, Option<u64>, bool)> {
            let found = file.dataset(dataset)?;
            let whole = found.dcpl()?.filters().is_empty();
            Ok((found.shape(), found.dtype()?, found.offset(), whole))
        };
        let (found, element, offset, whole) = inspect().map_err(|error| self.unreadable(dataset, &error))?;
        check_shape(&self.path, dataset, table, &found, shape)?;
        let half = element == Datatype::from_type::<f16>().map_err(|error| self.unreadable(dataset, &error))?;
        let single = element.is::<f32>();
        let offset = offset.filter(|_| whole && cfg!(target_endian = "little")).and_then(|o| usize::try_from(o).ok());
        match (offset, half, single) {
            (Some(offset), true, _) => Ok(Place::Half(offset)),
            (Some(offset), _, true) => Ok(Place::Single(offset)),
            (None, true, _) => Ok(Place::LibraryHalf),
            _ if matches!(element.to_descriptor(), Ok(TypeDescriptor::Float(FloatSize::U2 | FloatSize::U4))) => {
                Ok(Place::Library)
            }
            _ => Err(DataError::region(&self.path, dataset, RegionProblem::ElementType { found: name(&element) })),
        }
    }

    /// Numbers of `width` bytes each that lie from `offset` on.
    fn numbers(
        &self,
        dataset: &str,
        offset: usize,
        width: usize,
        [rows, columns]: [usize; 2],
        take: Take,
    ) -> Result<(), DataError> {
        thread_local! {
            static BYTES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        let row = columns * width;
        if rows * row > PIECE {
            positioned::announce(&self.file, offset, rows * row);
        }
        let at_once = (PIECE / row.max(1)).clamp(1, rows.max(1));
        BYTES.with_borrow_mut(|bytes| {
            bytes.resize(bytes.len().max(at_once * row), 0);
            let mut at = offset as u64;
            for first in (0..rows).step_by(at_once) {
                let bytes = &mut bytes[..at_once.min(rows - first) * row];
                match positioned::read(&self.file, at, bytes) {
                    Ok(length) if length == bytes.len() => decoded(bytes, width, columns, take),
                    Ok(_) => return Err(DataError::region(&self.path, dataset, RegionProblem::CutShort)),
                    Err(error) => {
                        let problem = RegionProblem::Unreadable(error.to_string());
                        return Err(DataError::region(&self.path, dataset, problem));
                    }
                }
                at += bytes.len() as u64;
            }
            Ok(())
        })
    }

    fn unreadable(&self, dataset: &str, error: &::hdf5::Error) -> DataError {
        DataError::region(&self.path, dataset, RegionProblem::Unreadable(error.to_string()))
    }
}

/// Opens a file by the library. No locks: many file systems of clusters have none, and nobody writes.
fn open(path: &Path) -> ::hdf5::Result<File> {
    let mut options = File::with_options();
    options.with_fapl(|access| access.file_locking(false));
    options.open(path)
}

/// HDF5's signature stands at the start of a file, or at 512, 1024, 2048, … after a block of the user's.
fn has_signature(file: &std::fs::File) -> std::io::Result<bool> {
    let length = file.metadata()?.len();
    let places = std::iter::once(0).chain(std::iter::successors(Some(512), |at: &u64| at.checked_mul(2)));
    for at in places.take_while(|at| *at < length) {
        let mut start = [0; 8];
        if positioned::read(file, at, &mut start)? == 8 && start == *b"\x89HDF\r\n\x1a\n" {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Name of an element type, as numpy calls it where numpy has it.
fn name(element: &Datatype) -> String {
    let order = if element.byte_order() == ByteOrder::BigEndian { "big-endian " } else { "" };
    match element.to_descriptor() {
        Ok(TypeDescriptor::Integer(size)) => format!("{order}int{}", 8 * size as usize),
        Ok(TypeDescriptor::Unsigned(size)) => format!("{order}uint{}", 8 * size as usize),
        Ok(TypeDescriptor::Float(size)) => format!("{order}float{}", 8 * size as usize),
        Ok(other) => other.to_string(),
        Err(_) => format!("{} bytes each that HDF5 cannot describe", element.size()),
    }
}

/// Raises the soft limit of open files, as far as the hard one allows: many systems start programs with 1024.
#[cfg(unix)]
fn allow_open_files() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls read or write the one struct that they are given.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 && limit.rlim_cur < OPEN_FILES {
            limit.rlim_cur = OPEN_FILES.min(limit.rlim_max);
            if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) != 0 {
                tracing::warn!("cannot raise the limit of open files to {}", limit.rlim_cur);
            }
        }
    }
}

#[cfg(not(unix))]
fn allow_open_files() {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tables of one and several pieces, the last one not full; then with the file cut within the last.
    #[test]
    fn pieces_are_the_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tables.h5");
        let file = File::create(&path).unwrap();
        let values = |count: usize| (0..count).map(|i| (i % 2039) as f32 - 1000.0).collect::<Vec<_>>();
        let sizes = [1, PIECE / 4, PIECE / 2, PIECE / 2 + 1, 3 * PIECE + 7];
        for size in sizes {
            let (single, half) = (values(size), values(size).into_iter().map(f16::from_f32).collect::<Vec<_>>());
            file.new_dataset::<f32>()
                .shape([size, 1])
                .create(format!("single{size}").as_str())
                .unwrap()
                .write_raw(&single)
                .unwrap();
            file.new_dataset::<f16>()
                .shape([size, 1])
                .create(format!("half{size}").as_str())
                .unwrap()
                .write_raw(&half)
                .unwrap();
        }
        file.close().unwrap();
        let tables = TableFile::open("data.boxes", &path).unwrap();
        let read = |name: &str, size: usize| {
            let mut out = Vec::new();
            tables.read(Table::Boxes, name, [size, 1], &mut |rows| out.extend_from_slice(rows)).map(|()| out)
        };
        let names = |size: usize| [format!("single{size}"), format!("half{size}")];
        for (size, name) in sizes.into_iter().flat_map(|size| names(size).map(|name| (size, name))) {
            assert_eq!(read(&name, size).unwrap(), values(size), "{name}");
        }
        assert!(tables.library.get().is_none());
        let largest = 3 * PIECE + 7;
        let offset = File::open(&path).unwrap().dataset(&format!("half{largest}")).unwrap().offset().unwrap();
        let plain = std::fs::File::options().write(true).open(&path).unwrap();
        plain.set_len(offset + 2 * largest as u64 - 1).unwrap();
        let error = read(&format!("half{largest}"), largest).unwrap_err();
        let help =
            "the file may be damaged or incompletely copied; fetch it again (`vlp data verify` checks all files)";
        let what = format!("`{}`, dataset `half{largest}`: the file ends within the table", path.display());
        assert_eq!(error.to_string(), format!("{what}\n  help: {help}"));
        assert_eq!(read(&format!("single{largest}"), largest).unwrap(), values(largest));
    }
}
