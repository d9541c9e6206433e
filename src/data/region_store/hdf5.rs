//! Tables in HDF5 files.
//!
//! Contiguous, uncompressed float16 and float32 tables (as `create_dataset(name, data=…)` makes them) are found (see `index`) and
//! read through a memory map of the file, without the library and its global lock; chunked, compressed and big-endian ones go
//! through the library. Files are taken to be at rest: one that is cut short while it is mapped ends the process.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use ::hdf5::datatype::ByteOrder;
use ::hdf5::types::{FloatSize, TypeDescriptor};
use ::hdf5::{Datatype, File};
use half::f16;
use half::slice::HalfFloatSliceExt;
use memmap2::Mmap;

use crate::data::error::{DataError, RegionProblem};

use super::{Table, check_shape, decode_half, decode_single, index};

/// Open files at most: features and class scores for each of the 1000 endings, boxes, and what the process needs besides.
const OPEN_FILES: u64 = 2 * 1000 + 1 + 500;

/// How many tables are read from files before the pages mapped for them are given back: at most 400 MB of the largest.
const READS_BETWEEN_RELEASES: usize = 1024;

/// The feature and class files `<prefix>_featNNN.h5` and `<prefix>_clsNNN.h5`, NNN = the last three characters of the stem.
#[derive(Debug)]
pub struct Hdf5Tables {
    prefix: String,
    files: RwLock<HashMap<PathBuf, Arc<TableFile>>>,
    reads: Reads,
}

/// Counts reads; what was mapped counts as memory of the process until it is given back, though the system could take it any time.
#[derive(Debug, Default)]
pub struct Reads(AtomicUsize);

impl Reads {
    /// Notes one more, and whether it is time to give pages back.
    pub fn is_full(&self) -> bool {
        self.0.fetch_add(1, Ordering::Relaxed) % READS_BETWEEN_RELEASES == READS_BETWEEN_RELEASES - 1
    }
}

impl Hdf5Tables {
    /// Notes the prefix; files are opened at first use and then stay open.
    pub fn open(prefix: &str) -> Result<Self, DataError> {
        allow_open_files();
        Ok(Self { prefix: prefix.to_owned(), files: RwLock::default(), reads: Reads::default() })
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

    /// A table of an image.
    pub fn read(&self, table: Table, stem: &str, shape: [usize; 2], out: &mut [f32]) -> Result<(), DataError> {
        self.file(self.path(table, stem)?)?.read(table, stem, shape, out)?;
        self.count();
        Ok(())
    }

    /// As [`Self::read`], without the numbers.
    pub fn check(&self, table: Table, stem: &str, shape: [usize; 2]) -> Result<(), DataError> {
        self.file(self.path(table, stem)?)?.check(table, stem, shape)?;
        self.count();
        Ok(())
    }

    fn count(&self) {
        if self.reads.is_full() {
            self.files.read().unwrap_or_else(PoisonError::into_inner).values().for_each(|file| file.release());
        }
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

/// An HDF5 file whose datasets are tables named after images. Nothing is kept of tables that `index` finds; of others that are
/// in use about 90 bytes each, and what the library keeps.
#[derive(Debug)]
pub struct TableFile {
    path: PathBuf,
    map: Mmap,
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
        let plain = std::fs::File::open(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => DataError::region(path, "", RegionProblem::NoFile { key }),
            _ => unreadable(error.to_string()),
        })?;
        // SAFETY: the map is read only, and the module's contract is that nobody writes the file meanwhile.
        let map = unsafe { Mmap::map(&plain) }.map_err(|error| unreadable(error.to_string()))?;
        if !has_signature(&map) {
            return Err(DataError::region(path, "", RegionProblem::NotHdf5));
        }
        // The library looks at the file as a whole, and lets go of it.
        open(path).map_err(|error| unreadable(error.to_string()))?;
        Ok(Self { path: path.to_owned(), map, library: OnceLock::new(), places: RwLock::default() })
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The table `dataset`, which must have this shape; `out` holds as many numbers.
    pub fn read(&self, table: Table, dataset: &str, shape: [usize; 2], out: &mut [f32]) -> Result<(), DataError> {
        let place = self.place(table, dataset, shape)?;
        match place {
            Place::Half(offset) => decode_half(self.bytes(dataset, offset, 2 * out.len())?, out),
            Place::Single(offset) => decode_single(self.bytes(dataset, offset, 4 * out.len())?, out),
            Place::LibraryHalf => {
                let numbers = self.library()?.dataset(dataset).and_then(|d| d.read_raw::<f16>());
                numbers.map_err(|error| self.unreadable(dataset, &error))?.convert_to_f32_slice(out);
            }
            Place::Library => {
                let count = self.library()?.dataset(dataset).and_then(|d| d.read_into_raw(out));
                count.map_err(|error| self.unreadable(dataset, &error))?;
            }
        }
        Ok(())
    }

    /// As [`Self::read`], without the numbers.
    pub fn check(&self, table: Table, dataset: &str, shape: [usize; 2]) -> Result<(), DataError> {
        self.place(table, dataset, shape).map(drop)
    }

    /// Gives back the pages that were mapped; the system's cache of the file stays.
    pub fn release(&self) {
        #[cfg(unix)]
        // SAFETY: the map is of a file and read only: what is looked at again, also by another thread now, is mapped again with the same bytes.
        let _ = unsafe { self.map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
    }

    /// How a table is read, having checked it.
    fn place(&self, table: Table, dataset: &str, shape: [usize; 2]) -> Result<Place, DataError> {
        if let Some(found) = index::find(&self.map, dataset) {
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

    fn bytes(&self, dataset: &str, offset: usize, length: usize) -> Result<&[u8], DataError> {
        let range = offset..offset.saturating_add(length);
        let bytes =
            self.map.get(range).ok_or_else(|| DataError::region(&self.path, dataset, RegionProblem::CutShort))?;
        #[cfg(unix)]
        let _ = self.map.advise_range(memmap2::Advice::WillNeed, offset, length); // a hint: one request to the disk, not many
        Ok(bytes)
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
fn has_signature(bytes: &[u8]) -> bool {
    let places = std::iter::once(0).chain(std::iter::successors(Some(512), |at: &usize| at.checked_mul(2)));
    places.take_while(|at| *at < bytes.len()).any(|at| bytes[at..].starts_with(b"\x89HDF\r\n\x1a\n"))
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
