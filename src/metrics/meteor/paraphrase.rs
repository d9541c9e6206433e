//! The paraphrase table: which phrases mean the same, as an index that is compiled once and then mapped into memory.
//!
//! The table (`paraphrase-en.gz`, 5.3 million pairs) takes a JVM 8 seconds to read. The index takes microseconds to open: an automaton (crate `fst`) numbers
//! all phrases in the order of their bytes, and each phrase has a list of the numbers of its paraphrases. Probabilities are not kept: METEOR does not use them.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use fst::raw::{CompiledAddr, Fst, Output};
use memmap2::Mmap;
use rayon::prelude::*;

use super::MeteorError;

/// First bytes of an index; the last one is the version of the format.
const MAGIC: &[u8; 8] = b"METEORP1";
/// Magic number, then lengths of the automaton (bytes), the phrases and the pairs, eight bytes each, lowest first.
const HEADER: usize = 32;

/// The paraphrase table.
pub struct Paraphrases {
    phrases: Fst<Part>,
    /// `phrases + 1` positions in `targets`.
    offsets: Part,
    /// Numbers of phrases, ascending within each list.
    targets: Part,
}

/// A phrase of the table inside a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Phrase {
    pub number: u32,
    pub start: usize,
    pub length: usize,
}

/// A place in the automaton behind the first words of a phrase.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opening {
    node: CompiledAddr,
    output: Output,
}

/// A part of the index.
struct Part {
    map: Arc<Mmap>,
    range: Range<usize>,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.map[self.range.clone()]
    }
}

impl Part {
    fn numbers(&self) -> Numbers<'_> {
        Numbers(self.as_ref().as_chunks().0)
    }
}

/// A list of numbers in the index.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Numbers<'a>(&'a [[u8; 4]]);

impl<'a> Numbers<'a> {
    fn get(self, at: usize) -> Option<usize> {
        self.0.get(at).map(|bytes| u32::from_le_bytes(*bytes) as usize)
    }

    /// Those of `phrases` whose number is in this list. Both are in ascending order of number.
    pub(crate) fn select(self, phrases: &[Phrase]) -> impl Iterator<Item = &Phrase> {
        let mut rest = self.0;
        phrases.iter().filter(move |phrase| {
            let skip = rest.partition_point(|bytes| u32::from_le_bytes(*bytes) < phrase.number);
            rest = &rest[skip..];
            rest.first().is_some_and(|bytes| u32::from_le_bytes(*bytes) == phrase.number)
        })
    }
}

impl Paraphrases {
    /// Opens the index of `table` in the folder `cache`; compiles it first if it is not there (about 10 seconds and 800 MB of memory).
    ///
    /// The index is named after the table's checksum, so that another table gets another index.
    ///
    /// # Errors
    /// [`MeteorError`] if the table cannot be read or is damaged, or the cache cannot be written.
    pub fn open(table: &Path, cache: &Path) -> Result<Self, MeteorError> {
        let path = cache.join(index_name(table)?);
        if let Some(index) = Self::map(&path)? {
            return Ok(index);
        }
        tracing::info!(table = %table.display(), index = %path.display(), "compiling the paraphrase table of METEOR, once");
        compile(table, &path)?;
        Self::map(&path)?.ok_or_else(|| MeteorError::cache(&path, "is damaged although it was just written"))
    }

    /// `None` if there is no index, or not a whole one of this version.
    fn map(path: &Path) -> Result<Option<Self>, MeteorError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(MeteorError::cache(path, error)),
        };
        // SAFETY: the file is replaced by renaming, never changed in place.
        let map = unsafe { Mmap::map(&file) }.map_err(|error| MeteorError::cache(path, error))?;
        Ok(Self::from_map(Arc::new(map)))
    }

    fn from_map(map: Arc<Mmap>) -> Option<Self> {
        if !map.starts_with(MAGIC) {
            return None;
        }
        let field = |at: usize| {
            let bytes = map.get(8 * at..8 * at + 8)?.first_chunk()?;
            usize::try_from(u64::from_le_bytes(*bytes)).ok()
        };
        let (automaton, phrases, pairs) = (field(1)?, field(2)?, field(3)?);
        let offsets = HEADER.checked_add(automaton)?;
        let targets = offsets.checked_add(phrases.checked_add(1)?.checked_mul(4)?)?;
        let end = targets.checked_add(pairs.checked_mul(4)?)?;
        if end != map.len() {
            return None;
        }
        let part = |range| Part { map: Arc::clone(&map), range };
        let phrases = Fst::new(part(HEADER..offsets)).ok()?;
        Some(Self { phrases, offsets: part(offsets..targets), targets: part(targets..end) })
    }

    /// Where the phrases that begin with a word go on; none when no phrase does.
    pub(crate) fn opening(&self, word: &str) -> Option<Opening> {
        self.follow(Opening { node: self.phrases.root().addr(), output: Output::zero() }, b"", word)
    }

    /// The place behind `separator` and `word`.
    fn follow(&self, from: Opening, separator: &[u8], word: &str) -> Option<Opening> {
        let mut node = self.phrases.node(from.node);
        let mut output = from.output;
        for &byte in separator.iter().chain(word.as_bytes()) {
            let transition = node.transition(node.find_input(byte)?);
            output = output.cat(transition.out);
            node = self.phrases.node(transition.addr);
        }
        Some(Opening { node: node.addr(), output })
    }

    /// The phrases of the table that occur in a sentence of `length` words, by first word, the shorter first. `word` gives
    /// the words by position, `opening` what [`Self::opening`] says of each.
    pub(crate) fn phrases<'a>(
        &self,
        length: usize,
        word: impl Fn(usize) -> &'a str,
        opening: impl Fn(usize) -> Option<Opening>,
    ) -> Vec<Phrase> {
        let mut found = Vec::new();
        for start in 0..length {
            let mut place = opening(start);
            let mut end = start + 1;
            while let Some(at) = place {
                let node = self.phrases.node(at.node);
                if node.is_final() {
                    let number = at.output.cat(node.final_output()).value() as u32;
                    found.push(Phrase { number, start, length: end - start });
                }
                if end == length {
                    break;
                }
                place = self.follow(at, b" ", word(end));
                end += 1;
            }
        }
        found
    }

    /// Numbers of the paraphrases of a phrase, ascending.
    pub(crate) fn of(&self, phrase: u32) -> Numbers<'_> {
        let at = phrase as usize;
        let offsets = self.offsets.numbers();
        let (Some(start), Some(end)) = (offsets.get(at), offsets.get(at + 1)) else { return Numbers(&[]) };
        Numbers(self.targets.numbers().0.get(start..end).unwrap_or_default())
    }
}

/// Named after checksum and length of the unpacked table, which are the last eight bytes of a gzip file.
fn index_name(table: &Path) -> Result<String, MeteorError> {
    let read = || {
        let mut file = File::open(table)?;
        file.seek(SeekFrom::End(-8))?;
        let mut trailer = [0; 8];
        file.read_exact(&mut trailer)?;
        Ok(trailer)
    };
    let trailer: [u8; 8] = read().map_err(|error: std::io::Error| MeteorError::read(table, error))?;
    Ok(format!(
        "{}.v1.index",
        trailer.iter().fold("meteor-paraphrases-".to_owned(), |name, byte| format!("{name}{byte:02x}"))
    ))
}

fn compile(table: &Path, path: &Path) -> Result<(), MeteorError> {
    let mut text = Vec::new();
    let file = File::open(table).map_err(|error| MeteorError::read(table, error))?;
    MultiGzDecoder::new(file).read_to_end(&mut text).map_err(|error| MeteorError::read(table, error))?;
    let pairs = parse(&text).map_err(|line| MeteorError::BadParaphrases { path: table.to_owned(), line })?;
    let mut phrases: Vec<&[u8]> = pairs.iter().flat_map(|&(phrase, paraphrase)| [phrase, paraphrase]).collect();
    phrases.par_sort_unstable();
    phrases.dedup();
    let numbers: HashMap<&[u8], u32> = phrases.iter().copied().zip(0..).collect();
    let mut numbered: Vec<(u32, u32)> = pairs.par_iter().map(|(from, to)| (numbers[from], numbers[to])).collect();
    drop(numbers);
    drop(pairs);
    numbered.par_sort_unstable();
    let damaged = |error: fst::Error| MeteorError::cache(path, error);
    let mut builder = fst::raw::Builder::memory();
    for (at, phrase) in (0..).zip(&phrases) {
        builder.insert(phrase, at).map_err(damaged)?;
    }
    let automaton = builder.into_inner().map_err(damaged)?;
    let mut index = Vec::with_capacity(HEADER + automaton.len() + 4 * (phrases.len() + 1 + numbered.len()));
    index.extend(MAGIC);
    for length in [automaton.len(), phrases.len(), numbered.len()] {
        index.extend((length as u64).to_le_bytes());
    }
    index.extend(automaton);
    let mut at = 0;
    for phrase in 0..=phrases.len() as u32 {
        at += numbered[at..].partition_point(|&(from, _)| from < phrase);
        index.extend((at as u32).to_le_bytes());
    }
    numbered.iter().for_each(|&(_, to)| index.extend(to.to_le_bytes()));
    store(path, &index).map_err(|error| MeteorError::cache(path, error))
}

/// A phrase and its paraphrase.
type Pair<'a> = (&'a [u8], &'a [u8]);

/// The pairs of the table: three lines each, a probability, a phrase and its paraphrase. Fails with the number of a line, from 1.
fn parse(text: &[u8]) -> Result<Vec<Pair<'_>>, usize> {
    let mut lines = text.strip_suffix(b"\n").unwrap_or(text).split(|&byte| byte == b'\n');
    let mut pairs = Vec::new();
    while let Some(probability) = lines.next() {
        let line = 3 * pairs.len() + 1;
        let number = std::str::from_utf8(probability).ok().and_then(|text| text.trim().parse::<f64>().ok());
        number.ok_or(line)?;
        let mut phrase = |line: usize| lines.next().filter(|phrase| !phrase.is_empty()).ok_or(line);
        pairs.push((phrase(line + 1)?, phrase(line + 2)?));
    }
    Ok(pairs)
}

/// Writes a file that appears under its name when it is complete.
fn store(path: &Path, content: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(name);
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().inspect_err(|_| drop(std::fs::remove_file(&temporary)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "0.5\nin front of\nbefore\n0.25\nin\nwithin\n0.25\nin\nat\n";

    fn table(folder: &Path, text: &str) -> PathBuf {
        let path = folder.join("table.gz");
        let mut packer = flate2::write::GzEncoder::new(File::create(&path).unwrap(), flate2::Compression::fast());
        packer.write_all(text.as_bytes()).unwrap();
        packer.finish().unwrap();
        path
    }

    fn indexes(folder: &Path) -> Vec<PathBuf> {
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    #[test]
    fn finds_phrases_and_their_paraphrases() {
        let folder = tempfile::tempdir().unwrap();
        let paraphrases = Paraphrases::open(&table(folder.path(), TABLE), &folder.path().join("cache")).unwrap();
        // In byte order: at, before, in, in front of, within.
        let phrases = |words: &[&'static str]| {
            paraphrases.phrases(words.len(), |at| words[at], |at| paraphrases.opening(words[at]))
        };
        let found = phrases(&["in", "front", "of", "x", "within", "in"]);
        let found: Vec<_> = found.iter().map(|phrase| (phrase.number, phrase.start, phrase.length)).collect();
        assert_eq!(found, [(2, 0, 1), (3, 0, 3), (4, 4, 1), (2, 5, 1)]);
        let mut there = phrases(&["before", "within", "at", "before"]);
        there.sort_unstable();
        let starts = |phrase| paraphrases.of(phrase).select(&there).map(|found| found.start).collect::<Vec<_>>();
        assert_eq!([starts(2), starts(3), starts(4)], [vec![2, 1], vec![0, 3], vec![]]);
        assert!(starts(99).is_empty());
        assert!(phrases(&[]).is_empty());
    }

    #[test]
    fn compiles_once_and_again_if_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let (table, cache) = (table(folder.path(), TABLE), folder.path().join("cache"));
        Paraphrases::open(&table, &cache).unwrap();
        let index = indexes(&cache).pop().unwrap();
        let content = std::fs::read(&index).unwrap();
        for damaged in [&content[..content.len() - 1], b"", b"METEORP1"] {
            std::fs::write(&index, damaged).unwrap();
            Paraphrases::open(&table, &cache).unwrap();
            assert_eq!(std::fs::read(&index).unwrap(), content);
        }
        assert_eq!(indexes(&cache), [index]);
    }

    #[test]
    fn refuses_a_damaged_table() {
        let folder = tempfile::tempdir().unwrap();
        let message = |text: &str| {
            let result = Paraphrases::open(&table(folder.path(), text), folder.path());
            result.map(|_| ()).unwrap_err().to_string()
        };
        for (text, line) in [("0.5\na\nb\nc\n", 4), ("0.5\na\n", 3), ("0.5\n\nb\n", 2), ("", 1)] {
            let found = message(text);
            assert!(
                found.contains(&format!("table of METEOR 1.5: line {line} is not what it should be ")),
                "{text:?}: {found}"
            );
        }
    }
}
