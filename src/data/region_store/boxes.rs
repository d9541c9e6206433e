//! The box file: one HDF5 file with a small table per image, for all formats of features.
//!
//! COCO's has 123,000 datasets, that of Conceptual Captions 3.3 million: they are looked up one by one, never listed.

use std::path::Path;

use crate::data::error::DataError;

use super::hdf5::TableFile;
use super::{Table, Take};

/// The open box file.
#[derive(Debug)]
pub struct BoxFile(TableFile);

impl BoxFile {
    /// Opens the file that `data.boxes` names.
    pub fn open(path: &str) -> Result<Self, DataError> {
        const KEY: &str = "data.boxes";
        if path.is_empty() {
            return Err(DataError::NotSet { key: KEY, what: "box file" });
        }
        Ok(Self(TableFile::open(KEY, Path::new(path))?))
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Shows `take` an image's boxes `[regions, 6]`, some whole rows at a time.
    pub fn read(&self, stem: &str, shape: [usize; 2], take: Take) -> Result<(), DataError> {
        self.0.read(Table::Boxes, stem, shape, take)
    }

    /// As [`Self::read`], without the numbers.
    pub fn check(&self, stem: &str, shape: [usize; 2]) -> Result<(), DataError> {
        self.0.check(Table::Boxes, stem, shape)
    }
}
