//! The demo world on disk: where it may be written, and the marker file that says it is complete.
//!
//! All files go to a temporary folder beside the target, which is renamed when the marker, the last file, is in place.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::{DemoError, ROUNDS, World, WorldOptions, files, plan};

/// Name of the marker file, below the data root.
pub const MARKER: &str = "demo_world.json";

/// Raised whenever the same seed gives other files than before.
pub const VERSION: u32 = 2;

/// What a demo world holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The data root.
    pub folder: PathBuf,
    /// Images of the COCO-like set, those with unanswered questions included.
    pub coco: usize,
    /// Images of the CC-like set.
    pub cc: usize,
    /// Images of the Flickr-like set.
    pub flickr: usize,
    /// Questions.
    pub questions: usize,
    /// Files, the marker left out.
    pub files: usize,
    /// Bytes in these files.
    pub bytes: u64,
}

/// What [`write()`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The world was written.
    Written(Summary),
    /// It was there already, unchanged.
    UpToDate(Summary),
}

/// Writes the demo world of `options` to `folder`, which is created; an equal world that is already there is left alone.
///
/// # Errors
/// [`DemoError`]: the folder holds something else, another world or a damaged one, or cannot be written.
pub fn write(folder: &Path, options: WorldOptions) -> Result<Outcome, DemoError> {
    if occupied(folder)? {
        return existing(folder, options).map(Outcome::UpToDate);
    }
    let target = std::path::absolute(folder).map_err(|source| io(folder, source))?;
    let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
        return Err(DemoError::BadFolder { folder: folder.into(), reason: "it has no name".into() });
    };
    fs::create_dir_all(parent).map_err(|source| io(parent, source))?;
    let partial = parent.join(format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id()));
    fs::create_dir(&partial).map_err(|source| io(&partial, source))?;
    let written = fill(&partial, options).and_then(|()| {
        // Renaming onto an empty folder replaces it.
        fs::rename(&partial, &target).map_err(|source| io(&target, source))
    });
    if let Err(error) = written {
        // The first error is the one to report.
        let _ = fs::remove_dir_all(&partial);
        return Err(error);
    }
    existing(folder, options).map(Outcome::Written)
}

/// All tokens of the world's `vocab.txt`, in order: control tokens, printable ASCII alone and as continuations, words.
pub fn vocabulary() -> Vec<String> {
    let mut out = vec!["[PAD]".to_string()];
    out.extend((1..100).map(|i| format!("[unused{i}]")));
    out.extend(["[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(String::from));
    let chars = || (33u8..127).map(char::from);
    out.extend(chars().map(String::from));
    out.extend(chars().map(|c| format!("##{c}")));
    out.extend(plan::words());
    out
}

fn fill(root: &Path, options: WorldOptions) -> Result<(), DemoError> {
    let world = World::plan(options);
    let mut written = files::write_all(root, &world)?;
    written.sort();
    let marker = json!({
        "demo_world": VERSION,
        "seed": options.seed,
        "full_size": options.full_size,
        "regions": world.sizes.geometry.regions,
        "region_feature_size": world.sizes.geometry.feature_size,
        "region_classes": world.sizes.geometry.classes,
        "files": written.into_iter().map(|(name, size)| (name, size.into())).collect::<Map<String, Value>>(),
    });
    let path = root.join(MARKER);
    fs::write(&path, format!("{marker:#}\n")).map_err(|source| io(&path, source))
}

/// Whether there is anything in the way; a marker file decides what it is later.
fn occupied(folder: &Path) -> Result<bool, DemoError> {
    let mut entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
            return Err(DemoError::BadFolder { folder: folder.into(), reason: "it is a file".into() });
        }
        Err(source) => return Err(io(folder, source)),
    };
    if folder.join(MARKER).is_file() {
        return Ok(true);
    }
    match entries.next() {
        None => Ok(false),
        Some(entry) => {
            let entry = entry.map_err(|source| io(folder, source))?.file_name().to_string_lossy().into_owned();
            Err(DemoError::Foreign { folder: folder.into(), entry })
        }
    }
}

/// Checks that `folder` holds the world of `options`, whole.
fn existing(folder: &Path, options: WorldOptions) -> Result<Summary, DemoError> {
    let path = folder.join(MARKER);
    let bad = |reason: String| DemoError::Marker { file: path.clone(), reason };
    let text = fs::read_to_string(&path).map_err(|source| io(&path, source))?;
    let marker: Value = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
    let number = |key: &str| marker[key].as_u64().ok_or_else(|| bad(format!("`{key}` is not a number")));
    let full_size = marker["full_size"].as_bool().ok_or_else(|| bad("`full_size` is not true or false".into()))?;
    let describe = |version: u64, seed: u64, full_size: bool| {
        format!("version {version}, seed {seed}, {} size", if full_size { "full" } else { "small" })
    };
    let found = describe(number("demo_world")?, number("seed")?, full_size);
    let expected = describe(VERSION.into(), options.seed, options.full_size);
    if found != expected {
        return Err(DemoError::Different { folder: folder.into(), found, expected });
    }
    let files = marker["files"].as_object().ok_or_else(|| bad("`files` is not a table".into()))?;
    let mut bytes = 0;
    for (name, size) in files {
        let expected = size.as_u64().ok_or_else(|| bad(format!("`files` gives no size for {name}")))?;
        let file = folder.join(name);
        let found = fs::metadata(&file).map(|m| m.len()).ok();
        if found != Some(expected) {
            let found = found.map_or("no file".into(), |n| format!("{n} bytes"));
            return Err(DemoError::Damaged { folder: folder.into(), file, expected, found });
        }
        bytes += expected;
    }
    let sizes = options.sizes();
    let coco = sizes.coco + sizes.test2015;
    Ok(Summary {
        folder: folder.into(),
        coco,
        cc: sizes.cc,
        flickr: sizes.flickr,
        questions: 3 * ROUNDS * coco,
        files: files.len(),
        bytes,
    })
}

pub(super) fn io(path: &Path, source: std::io::Error) -> DemoError {
    DemoError::Io { path: path.into(), source }
}
