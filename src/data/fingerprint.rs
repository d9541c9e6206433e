//! A short name for the data that an experiment reads, so that a changed data root is noticed.
//!
//! Covered: the whole content of the annotations (in VQA: the question files and the answer vocabulary), the list of valid images and the vocabulary; of the box file and the region
//! files their names, their sizes, and the first and last 64 KiB (of at most 2000 region files, evenly spread in the order of
//! names). Not covered: folders, times, options, and changes in the middle of region files that keep the size.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use rayon::prelude::{IndexedParallelIterator, IntoParallelRefIterator, ParallelIterator};
use sha2::{Digest, Sha256};

use crate::config::{DataSettings, Dataset, RegionFormat};

use super::error::{DataError, RegionProblem, read_file};

/// Bytes read at each end of a large file.
const END: u64 = 64 * 1024;

/// Region files whose content is looked at.
const LOOKED_AT: usize = 2000;

/// The fingerprint: 64 hexadecimal digits. Of VQA's question files those of `splits` are covered.
pub fn fingerprint(settings: &DataSettings, splits: &[String]) -> Result<String, DataError> {
    let mut hash = Sha256::new();
    hash.update(b"vlp data 1");
    let mut whole = vec![
        ("data.valid_images", "list of valid images", &settings.valid_images),
        ("data.vocabulary", "vocabulary", &settings.vocabulary),
    ];
    if settings.dataset == Dataset::Vqa2 {
        whole.push(("data.answers", "answer vocabulary", &settings.answers));
        let files = settings.imdb.iter().filter(|(split, _)| splits.contains(split));
        whole.extend(files.map(|(_, path)| ("data.imdb", "question file (imdb)", path)));
    } else {
        whole.insert(0, ("data.annotations", "annotation file", &settings.annotations));
    }
    for (key, what, path) in whole {
        hash.update(Sha256::digest(read_file(key, what, path)?));
    }
    if settings.boxes.is_empty() {
        return Err(DataError::NotSet { key: "data.boxes", what: "box file" });
    }
    hash.update(ends("data.boxes", Path::new(&settings.boxes), true)?);
    let files = region_files(settings)?;
    let step = files.len().div_ceil(LOOKED_AT).max(1);
    let digests: Result<Vec<[u8; 32]>, DataError> =
        files.par_iter().enumerate().map(|(i, path)| ends("data.region_prefix", path, i % step == 0)).collect();
    for digest in digests? {
        hash.update(digest);
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The region files present, in the order of their names.
fn region_files(settings: &DataSettings) -> Result<Vec<PathBuf>, DataError> {
    const WHAT: &str = "folder of region features";
    if settings.region_prefix.is_empty() {
        return Err(DataError::NotSet { key: "data.region_prefix", what: "region features" });
    }
    let prefix = Path::new(&settings.region_prefix);
    let (folder, name) = match settings.region_format {
        RegionFormat::Npy => (prefix, String::new()),
        RegionFormat::Hdf5 => (
            prefix.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")),
            prefix.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        ),
    };
    let failed = |source| DataError::file("data.region_prefix", WHAT, folder, source);
    let belongs = |path: &Path| {
        let file = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        match settings.region_format {
            RegionFormat::Npy => file.ends_with(".npy"),
            RegionFormat::Hdf5 => file
                .strip_prefix(name.as_str())
                .is_some_and(|rest| (rest.starts_with("_feat") || rest.starts_with("_cls")) && rest.ends_with(".h5")),
        }
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if belongs(&path) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Digest of a file's name and size and, if `look`, of what stands at its ends.
fn ends(key: &'static str, path: &Path, look: bool) -> Result<[u8; 32], DataError> {
    let failed = |error: std::io::Error| {
        let problem = match error.kind() {
            std::io::ErrorKind::NotFound => RegionProblem::NoFile { key },
            _ => RegionProblem::Unreadable(error.to_string()),
        };
        DataError::region(path, "", problem)
    };
    let size = std::fs::metadata(path).map_err(failed)?.len();
    let mut hash = Sha256::new();
    hash.update(path.file_name().unwrap_or_default().as_encoded_bytes());
    hash.update([0]);
    hash.update(size.to_le_bytes());
    if look {
        let mut file = File::open(path).map_err(failed)?;
        let mut bytes = Vec::new();
        file.by_ref().take(END).read_to_end(&mut bytes).map_err(failed)?;
        file.seek(SeekFrom::Start(size.saturating_sub(END))).map_err(failed)?;
        file.take(END).read_to_end(&mut bytes).map_err(failed)?;
        hash.update(&bytes);
    }
    Ok(hash.finalize().into())
}
