//! The bytes of a file: mapped for its structure, read by position for the bulk of its numbers.
//!
//! Mapped pages count as memory of the process once touched. Numbers are therefore read with positioned reads straight
//! into small buffers, which also turns a file that shrinks meanwhile into an error instead of a signal.

use std::fs::File;
use std::ops::Deref;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::error::FormatError;

/// An open file.
#[derive(Debug)]
pub(super) struct Source {
    path: PathBuf,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Mapped(File, Mmap),
    Owned(Vec<u8>),
}

impl Source {
    /// Opens and maps a regular file.
    pub(super) fn open(path: &Path) -> Result<Self, FormatError> {
        let failed = |source| FormatError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            return Err(failed(std::io::ErrorKind::IsADirectory.into()));
        }
        if !metadata.is_file() {
            return Err(failed(std::io::Error::other("not a regular file")));
        }
        let content = if metadata.len() == 0 {
            Content::Owned(Vec::new())
        } else {
            // SAFETY: weights and data files are not changed in place while they are read.
            let map = unsafe { Mmap::map(&file) }.map_err(failed)?;
            Content::Mapped(file, map)
        };
        Ok(Self { path: path.to_owned(), content })
    }

    /// Bytes in memory, named `path` in errors.
    pub(super) fn owned(path: &Path, bytes: Vec<u8>) -> Self {
        Self { path: path.to_owned(), content: Content::Owned(bytes) }
    }

    /// Where the bytes come from.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Copies `buffer.len()` bytes from position `start`.
    pub(super) fn read_at(&self, start: usize, buffer: &mut [u8]) -> Result<(), FormatError> {
        let failed = |source| FormatError::Read { path: self.path.clone(), source };
        match &self.content {
            Content::Mapped(file, _) => file.read_exact_at(buffer, start as u64).map_err(failed),
            Content::Owned(bytes) => {
                let part = start.checked_add(buffer.len()).and_then(|end| bytes.get(start..end));
                let part = part.ok_or_else(|| failed(std::io::ErrorKind::UnexpectedEof.into()))?;
                buffer.copy_from_slice(part);
                Ok(())
            }
        }
    }
}

impl Deref for Source {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.content {
            Content::Mapped(_, map) => map,
            Content::Owned(bytes) => bytes,
        }
    }
}
