//! Tables in numpy files: `<folder>/<stem>.npy` (features) and `<folder>/<stem>_cls_prob.npy` (class scores), as Flickr30k has them.
//!
//! float16 and float32 in C order; each file is read whole.

use std::path::{Path, PathBuf};

use npyz::{DType, Endianness, NpyFile, Order, TypeChar};

use crate::data::error::{DataError, RegionProblem};

use super::{Table, Take, check_shape, decoded};

/// The folder of the files.
#[derive(Debug)]
pub struct NpyTables {
    folder: PathBuf,
}

impl NpyTables {
    /// The folder must exist.
    pub fn open(folder: &str) -> Result<Self, DataError> {
        let folder = PathBuf::from(folder);
        match std::fs::read_dir(&folder) {
            Ok(_) => Ok(Self { folder }),
            Err(source) => Err(DataError::file("data.region_prefix", "folder of region features", &folder, source)),
        }
    }

    /// The file of a table.
    pub fn path(&self, table: Table, stem: &str) -> PathBuf {
        let suffix = if table == Table::Features { "" } else { "_cls_prob" };
        self.folder.join(format!("{stem}{suffix}.npy"))
    }

    /// Whether the file of a table is there.
    pub fn check(&self, table: Table, stem: &str) -> Result<(), DataError> {
        let path = self.path(table, stem);
        let missing = || DataError::region(&path, "", RegionProblem::NoFile { key: "data.region_prefix" });
        if path.is_file() { Ok(()) } else { Err(missing()) }
    }

    /// Shows `take` a table of an image, some whole rows at a time.
    pub fn read(&self, table: Table, stem: &str, shape: [usize; 2], take: Take) -> Result<(), DataError> {
        let path = self.path(table, stem);
        let problem = |problem| DataError::region(&path, "", problem);
        let bytes = std::fs::read(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => problem(RegionProblem::NoFile { key: "data.region_prefix" }),
            _ => problem(RegionProblem::Unreadable(error.to_string())),
        })?;
        let file =
            NpyFile::new(bytes.as_slice()).map_err(|error| problem(RegionProblem::Unreadable(error.to_string())))?;
        let found: Vec<usize> = file.shape().iter().map(|n| usize::try_from(*n).unwrap_or(usize::MAX)).collect();
        let (element, order) = (file.dtype(), file.order());
        check_shape(&path, "", table, &found, shape)?;
        let width = element_width(&path, &element)?;
        if order != Order::C {
            return Err(problem(RegionProblem::FortranOrder));
        }
        let data = file.into_inner();
        let data = data.get(..width * shape[0] * shape[1]).ok_or_else(|| problem(RegionProblem::CutShort))?;
        decoded(data, width, shape[1], take);
        Ok(())
    }
}

/// 2 for little-endian float16, 4 for little-endian float32.
fn element_width(path: &Path, element: &DType) -> Result<usize, DataError> {
    if let DType::Plain(plain) = element
        && plain.type_char() == TypeChar::Float
        && plain.endianness() == Endianness::Little
        && matches!(plain.size_field(), 2 | 4)
    {
        return Ok(plain.size_field() as usize);
    }
    let found = match element {
        DType::Plain(plain) => format!("`{plain}`"),
        _ => "records".into(),
    };
    Err(DataError::region(path, "", RegionProblem::ElementType { found }))
}
