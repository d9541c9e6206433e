//! JSON files of many entries, read entry by entry, all mistakes in one pass.
//!
//! A mistake is named by its place, as `jq` writes it (`annotations[3].caption`; the first entry is 0). What the entries
//! mean is for the callers.

use std::cell::Cell;
use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::fmt::{self, Display, Formatter};
use std::hash::Hash;
use std::path::{Path, PathBuf};

use serde::de::{DeserializeSeed, Deserializer as _, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::super::context::{Failure, exit};
use crate::data::karpathy::ImageId;

/// So many mistakes, or ids, are printed; the rest is counted.
const SHOWN: usize = 10;

/// A file that cannot be scored.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system refused.
    #[error("cannot read `{}`: {source}\n  help: check the path given with `{flag}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The flag that named it.
        flag: &'static str,
        /// The answer of the operating system.
        source: std::io::Error,
    },
    /// Bytes outside any entry.
    #[error("`{}` is not UTF-8: {problem}\n  help: JSON files are UTF-8; convert it, e.g. with `iconv -t UTF-8`", path.display())]
    Encoding {
        /// The file.
        path: PathBuf,
        /// Where.
        problem: String,
    },
    /// Not the layout.
    #[error("`{}` is not {}: {problem}\n  help: {}", path.display(), layout.name, layout.help)]
    Layout {
        /// The file.
        path: PathBuf,
        /// What was expected.
        layout: &'static Layout,
        /// What is wrong.
        problem: String,
    },
    /// Entries that cannot be used.
    #[error("`{}` has {}\n  help: {}", path.display(), list(mistakes, "mistake"), layout.help)]
    Entries {
        /// The file.
        path: PathBuf,
        /// What was expected.
        layout: &'static Layout,
        /// Place and problem of each.
        mistakes: Vec<String>,
    },
    /// Ids of one file that another lacks.
    #[error("{problem}: {}\n  help: {help}", some(ids))]
    Ids {
        /// How many, of which file, and what lacks them.
        problem: String,
        /// The ids.
        ids: Vec<String>,
        /// What to do.
        help: &'static str,
    },
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        Self::new(exit::DATA, error)
    }
}

fn list(mistakes: &[String], what: &str) -> String {
    let plural = if mistakes.len() == 1 { "" } else { "s" };
    let mut text = format!("{} {what}{plural}", mistakes.len());
    for mistake in mistakes.iter().take(SHOWN) {
        text.push_str(&format!("\n  {mistake}"));
    }
    if mistakes.len() > SHOWN {
        text.push_str(&format!("\n  … and {} more", mistakes.len() - SHOWN));
    }
    text
}

/// An id as it stands in the file: a name in quotes.
pub fn quoted(id: &ImageId) -> String {
    match id {
        ImageId::Number(number) => number.to_string(),
        ImageId::Name(name) => format!("{name:?}"),
    }
}

/// The first of some ids.
pub fn some(ids: &[String]) -> String {
    let shown = ids.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if ids.len() > SHOWN { format!("{shown}, … ({} more)", ids.len() - SHOWN) } else { shown }
}

/// What a file should look like.
#[derive(Debug)]
pub struct Layout {
    /// E.g. `a COCO results file`.
    pub name: &'static str,
    /// What the list of entries is called; empty when the file is the list.
    pub key: &'static str,
    /// Whether a file without the list is right too.
    pub optional: bool,
    /// What to do.
    pub help: &'static str,
}

/// The text of a file, decoded.
pub struct Document {
    path: PathBuf,
    text: String,
    /// Where bytes were not UTF-8, and the character that the text has in their places.
    broken: Option<(usize, char)>,
}

impl Document {
    /// Reads a file named by `flag`. Bytes that are not UTF-8 are complained about with the entry they are in.
    pub fn read(path: &Path, flag: &'static str) -> Result<Self, FileError> {
        let mut bytes =
            std::fs::read(path).map_err(|source| FileError::Read { path: path.to_owned(), flag, source })?;
        if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
            return Err(FileError::Encoding { path: path.to_owned(), problem: "it starts as UTF-16 does".into() });
        }
        if bytes.starts_with(b"\xef\xbb\xbf") {
            bytes.drain(..3);
        }
        Ok(match String::from_utf8(bytes) {
            Ok(text) => Self { path: path.to_owned(), text, broken: None },
            Err(error) => {
                let (valid_up_to, bytes) = (error.utf8_error().valid_up_to(), error.into_bytes());
                let lossy = String::from_utf8_lossy(&bytes);
                let mark =
                    ('\u{e000}'..='\u{f8ff}').find(|c| !lossy.contains(*c)).unwrap_or(char::REPLACEMENT_CHARACTER);
                let mut text = String::with_capacity(bytes.len());
                for chunk in bytes.utf8_chunks() {
                    text.push_str(chunk.valid());
                    if !chunk.invalid().is_empty() {
                        text.push(mark);
                    }
                }
                Self { path: path.to_owned(), text, broken: Some((valid_up_to, mark)) }
            }
        })
    }

    /// The file's name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Calls `use_entry` with each entry; then all complaints together, if there are any.
    pub fn each(&self, layout: &'static Layout, mut use_entry: impl FnMut(&mut Entry)) -> Result<(), FileError> {
        let mark = self.broken.map(|(_, mark)| mark);
        let mut mistakes = Vec::new();
        let mut sink = |index, value| {
            let place = format!("{}[{index}]", layout.key);
            match value {
                Value::Object(object) => use_entry(&mut Entry { place, index, object, mark, mistakes: &mut mistakes }),
                other => mistakes.push(format!("{place}: is {}; expected an object", describe(&other))),
            }
        };
        let mut deserializer = serde_json::Deserializer::from_str(&self.text);
        let reading = Cell::new(None);
        let list = List { sink: &mut sink, reading: &reading };
        let result = if layout.key.is_empty() {
            deserializer.deserialize_any(list)
        } else {
            deserializer.deserialize_any(Top { layout, list })
        };
        let result = result.and_then(|()| deserializer.end());
        let path = self.path.clone();
        match (result, self.broken) {
            (Ok(()), _) if !mistakes.is_empty() => Err(FileError::Entries { path, layout, mistakes }),
            (_, Some((at, _))) => Err(FileError::Encoding { path, problem: format!("byte {at} is wrong") }),
            (Err(error), None) => {
                let entry = reading.get().map_or(String::new(), |index| format!(" (entry {}[{index}])", layout.key));
                Err(FileError::Layout { path, layout, problem: format!("{error}{entry}") })
            }
            (Ok(()), None) => Ok(()),
        }
    }
}

/// Hands the entries of a list on, one at a time.
struct List<'a, F> {
    sink: &'a mut F,
    /// The entry that is being read, for errors.
    reading: &'a Cell<Option<usize>>,
}

impl<'de, F: FnMut(usize, Value)> DeserializeSeed<'de> for List<'_, F> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, F: FnMut(usize, Value)> Visitor<'de> for List<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str("a list of entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        for index in 0.. {
            self.reading.set(Some(index));
            let Some(value) = list.next_element()? else { break };
            (self.sink)(index, value);
        }
        self.reading.set(None);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Err(A::Error::custom("found an object, expected a list of entries"))
    }
}

/// The object around a list.
struct Top<'a, F> {
    layout: &'static Layout,
    list: List<'a, F>,
}

impl<'de, F: FnMut(usize, Value)> Visitor<'de> for Top<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str("an object with lists")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { layout, list: List { sink, reading } } = self;
        let mut found = layout.optional;
        while let Some(key) = map.next_key::<String>()? {
            if key == layout.key {
                map.next_value_seed(List { sink: &mut *sink, reading })?;
                found = true;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        if found { Ok(()) } else { Err(A::Error::custom(format_args!("it has no list `{}`", layout.key))) }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Err(A::Error::custom("found a list, expected an object with lists"))
    }
}

/// One entry; fields that are not as expected become mistakes and read as none.
pub struct Entry<'a> {
    place: String,
    /// Its number in the list, from 0.
    pub index: usize,
    object: Map<String, Value>,
    mark: Option<char>,
    mistakes: &'a mut Vec<String>,
}

impl Entry<'_> {
    /// A string.
    pub fn text(&mut self, key: &str) -> Option<String> {
        match self.object.get(key) {
            Some(Value::String(text)) if self.mark.is_some_and(|mark| text.contains(mark)) => {
                self.complain(key, "is not valid UTF-8")
            }
            Some(Value::String(text)) => Some(text.clone()),
            other => self.unexpected(key, other.map(describe), "a string"),
        }
    }

    /// A whole number, 0 or more.
    pub fn number(&mut self, key: &str) -> Option<u64> {
        match self.object.get(key) {
            Some(Value::Number(number)) if number.is_u64() => number.as_u64(),
            other => self.unexpected(key, other.map(describe), "a whole number, 0 or more"),
        }
    }

    /// An image's id.
    pub fn id(&mut self, key: &str) -> Option<ImageId> {
        match self.object.get(key) {
            Some(Value::Number(number)) if number.is_u64() => number.as_u64().map(ImageId::Number),
            Some(Value::String(_)) => self.text(key).map(ImageId::Name),
            other => self.unexpected(key, other.map(describe), "a whole number, 0 or more, or a string"),
        }
    }

    /// Whether the entry has a field.
    pub fn has(&self, key: &str) -> bool {
        self.object.contains_key(key)
    }

    /// The entries of a list within the entry; none if there is no such list.
    pub fn list(&mut self, key: &str, mut use_entry: impl FnMut(&mut Entry)) -> Option<()> {
        let values = match self.object.remove(key) {
            Some(Value::Array(values)) => values,
            other => return self.unexpected(key, other.as_ref().map(describe), "a list"),
        };
        for (index, value) in values.into_iter().enumerate() {
            let place = format!("{}.{key}[{index}]", self.place);
            match value {
                Value::Object(object) => {
                    use_entry(&mut Entry { place, index, object, mark: self.mark, mistakes: self.mistakes });
                }
                other => self.mistakes.push(format!("{place}: is {}; expected an object", describe(&other))),
            }
        }
        Some(())
    }

    /// All fields but one, as one text that does not depend on their order.
    pub fn all_but(&self, key: &str) -> String {
        let mut fields: Vec<_> = self.object.iter().filter(|(name, _)| *name != key).collect();
        fields.sort_by_key(|(name, _)| *name);
        fields.iter().map(|(name, value)| format!("{name}={value};")).collect()
    }

    /// Notes a mistake in a field.
    pub fn complain<T>(&mut self, key: &str, problem: impl Display) -> Option<T> {
        self.mistakes.push(format!("{}.{key}: {problem}", self.place));
        None
    }

    fn unexpected<T>(&mut self, key: &str, found: Option<String>, expected: &str) -> Option<T> {
        match found {
            Some(found) => self.complain(key, format_args!("is {found}; expected {expected}")),
            None => self.complain(key, format_args!("is missing; expected {expected}")),
        }
    }

    /// Notes where an id is; a second one is a mistake.
    pub fn once<I: Hash + Eq + Display>(&mut self, key: &str, id: I, seen: &mut HashMap<I, usize>) -> Option<()> {
        let text = id.to_string();
        match seen.entry(id) {
            Slot::Vacant(slot) => {
                slot.insert(self.index);
                Some(())
            }
            Slot::Occupied(first) => {
                let first = *first.get();
                self.complain(key, format_args!("{text} again; entry {first} has it already"))
            }
        }
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) if text.chars().count() > 40 => "a string".into(),
        Value::String(text) => format!("the string {text:?}"),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
    }
}
