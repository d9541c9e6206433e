//! Annotation files in Karpathy's layout and lists of valid images, read an image at a time: Conceptual Captions has 3.3 million.
//!
//! What is not asked for is read over. Says no more of a misfit than the parser does (see `karpathy`).

use std::collections::{BTreeSet, HashSet};
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// An image of the file.
#[derive(Deserialize)]
pub(super) struct Entry {
    pub(super) filename: String,
    pub(super) split: String,
    pub(super) sentences: Vec<Sentence>,
    #[serde(default)]
    pub(super) imgid: Value,
}

/// A caption.
#[derive(Deserialize)]
pub(super) struct Sentence {
    pub(super) raw: String,
}

/// What was read.
pub(super) struct Read<T> {
    /// What was made of the images of the splits, in order.
    pub(super) images: Vec<T>,
    /// All splits there are.
    pub(super) splits: BTreeSet<String>,
}

/// Calls `make` with place and entry of each image of `splits`.
pub(super) fn read<T>(
    bytes: &[u8],
    splits: &[String],
    make: impl FnMut(usize, Entry) -> T,
) -> serde_json::Result<Read<T>> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let read = reader.deserialize_map(File(Images { splits, make }))?;
    reader.end()?;
    Ok(read)
}

/// The keys of an object, or the strings of an array.
pub(super) fn names(bytes: &[u8]) -> serde_json::Result<HashSet<String>> {
    serde_json::from_slice(bytes).map(|Names(names)| names)
}

struct File<'a, F>(Images<'a, F>);

impl<'de, T, F: FnMut(usize, Entry) -> T> Visitor<'de> for File<'_, F> {
    type Value = Read<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a list `images`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Read<T>, A::Error> {
        let (mut images, mut read) = (Some(self.0), None);
        while let Some(key) = map.next_key::<String>()? {
            if key != "images" {
                map.next_value::<IgnoredAny>()?;
            } else if let Some(images) = images.take() {
                read = Some(map.next_value_seed(images)?);
            } else {
                return Err(A::Error::duplicate_field("images"));
            }
        }
        read.ok_or_else(|| A::Error::missing_field("images"))
    }
}

struct Images<'a, F> {
    splits: &'a [String],
    make: F,
}

impl<'de, T, F: FnMut(usize, Entry) -> T> DeserializeSeed<'de> for Images<'_, F> {
    type Value = Read<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Read<T>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, T, F: FnMut(usize, Entry) -> T> Visitor<'de> for Images<'_, F> {
    type Value = Read<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<Read<T>, A::Error> {
        let mut read = Read { images: Vec::new(), splits: BTreeSet::new() };
        let mut index = 0;
        while let Some(entry) = list.next_element::<Entry>()? {
            if !read.splits.contains(&entry.split) {
                read.splits.insert(entry.split.clone());
            }
            if self.splits.contains(&entry.split) {
                read.images.push((self.make)(index, entry));
            }
            index += 1;
        }
        Ok(read)
    }
}

struct Names(HashSet<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NamesVisitor)
    }
}

struct NamesVisitor;

impl<'de> Visitor<'de> for NamesVisitor {
    type Value = Names;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array of file names")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Names, A::Error> {
        let mut names = HashSet::new();
        while let Some((name, IgnoredAny)) = map.next_entry()? {
            names.insert(name);
        }
        Ok(Names(names))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Names, A::Error> {
        let mut names = HashSet::new();
        while let Some(name) = list.next_element()? {
            names.insert(name);
        }
        Ok(Names(names))
    }
}

#[cfg(test)]
mod tests {
    use super::{Read, names, read};

    fn found(text: &str) -> Result<Read<(usize, String)>, String> {
        read(text.as_bytes(), &["b".to_owned()], |index, entry| (index, entry.filename))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn images_of_the_splits_with_their_places() {
        let image = |name: &str, split: &str| {
            format!("{{\"sentids\": [1], \"filename\": \"{name}\", \"split\": \"{split}\", \"sentences\": []}}")
        };
        let images = [image("1", "a"), image("2", "b"), image("3", "b")].join(", ");
        let Read { images, splits } =
            found(&format!("{{\"dataset\": {{}}, \"images\": [{images}], \"x\": 1}}")).unwrap();
        assert_eq!(images, [(1, "2".to_owned()), (2, "3".to_owned())]);
        assert_eq!(splits.into_iter().collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn misfits() {
        for (text, expected) in [
            ("{}", "missing field `images`"),
            ("[]", "invalid type: sequence, expected an object with a list `images`"),
            ("{\"images\": [], \"images\": []}", "duplicate field `images`"),
            ("{\"images\": 3}", "invalid type: integer `3`, expected a list"),
            ("{\"images\": []} x", "trailing characters"),
        ] {
            let message = found(text).map(|_| ()).map_err(|error| error.split(" at line ").next().map(str::to_owned));
            assert_eq!(message, Err(Some(expected.to_owned())), "{text}");
        }
    }

    #[test]
    fn lists_of_names() {
        for text in ["{\"a\": [1, {}], \"b\": null}", "[\"a\", \"b\", \"a\"]"] {
            let mut found: Vec<_> = names(text.as_bytes()).unwrap().into_iter().collect();
            found.sort();
            assert_eq!(found, ["a", "b"]);
        }
        assert!(names(b"[1]").is_err() && names(b"3").is_err());
    }
}
