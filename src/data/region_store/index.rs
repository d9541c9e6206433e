//! Where the tables of an HDF5 file lie, read from the file's own index.
//!
//! A file made by `h5py` with its defaults keeps the names of its root group in a B-tree: a name is found in it as the library finds
//! it, with nothing read beforehand. Nodes of the tree are kept once they were looked at, 30 bytes for each node of symbols below
//! them, which hold four to eight tables; symbols and headers are read anew each time. (The library's own caches take about 5 kB
//! for each table ever looked up, and one lock for all threads; Conceptual Captions has 3.3 million images in 2001 files.)
//! Everything that is not exactly this layout, damaged files among it, is `None`: the library then finds the table or says what is
//! wrong.
//!
//! Layout: HDF5 File Format Specification 1.1, sections II.A (superblock), III.A.1 (B-tree), III.B, III.C (symbol table), III.D
//! (local heap), IV.A (object header and its messages). Numbers are little-endian, addresses and lengths of 8 bytes.

use std::cmp::Ordering;
use std::fs::File;
use std::sync::OnceLock;

use super::positioned;

/// A table that lies in one piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its shape.
    pub shape: Vec<usize>,
    /// float16, else float32.
    pub half: bool,
    /// Where its numbers begin, in bytes from the start of the file.
    pub offset: usize,
}

const SIGNATURE: &[u8] = b"\x89HDF\r\n\x1a\n";

/// IEEE numbers, low byte first: class and version, bit field, size, and where sign, exponent and mantissa are.
const HALF: [u8; 20] = [0x11, 0x20, 15, 0, 2, 0, 0, 0, 0, 0, 16, 0, 10, 5, 0, 10, 15, 0, 0, 0];
const SINGLE: [u8; 20] = [0x11, 0x20, 31, 0, 4, 0, 0, 0, 0, 0, 32, 0, 23, 8, 0, 23, 127, 0, 0, 0];

/// Levels of a B-tree at most, and blocks of an object header: more is damage.
const DEEPEST: usize = 16;

/// Bytes of the superblock up to the end of the root group's entry.
const SUPERBLOCK: usize = 100;

/// Bytes of an object header that are read at once; a table's has 272 when `h5py` makes it.
const HEADER: usize = 512;

/// Bytes of a block of an object header at most: more is damage, or not a plain table's.
const BLOCK: usize = 1 << 20;

/// The names of a file's root group. Shared by all threads.
#[derive(Debug)]
pub struct Index {
    layout: Layout,
    root: Node,
}

/// Where names are, and how large nodes are.
#[derive(Debug)]
struct Layout {
    /// Start and length of the heap, in which each name is ended by a zero byte.
    heap: (usize, usize),
    /// Symbols of a node at most.
    symbols: usize,
    /// Children of a node of the tree at most.
    children: usize,
}

/// A node of the tree.
#[derive(Debug)]
struct Node {
    /// The last names of the children, one behind the other.
    names: Box<[u8]>,
    /// Per child, where its last name ends.
    ends: Box<[u32]>,
    /// Per child, where it lies in the file.
    addresses: Box<[usize]>,
    /// Levels of nodes below.
    level: u8,
    /// The children, as far as they were looked at; empty where they are nodes of symbols.
    below: Box<[OnceLock<Node>]>,
}

impl Index {
    /// The index of the root group, of which little is read.
    pub fn open(file: &File) -> Option<Self> {
        let start = piece(file, 0, SUPERBLOCK)?;
        // Superblocks of versions 0 and 1 differ by four bytes before the addresses.
        let addresses = match start.get(8)? {
            0 => 24,
            1 => 28,
            _ => return None,
        };
        let plain = start.starts_with(SIGNATURE) && start.get(13..15)? == [8, 8] && number(&start, addresses)? == 0;
        // The root group's symbol table entry, with the addresses of tree and heap at hand.
        let root = addresses + 32;
        if !plain || short(&start, root + 16)? != 1 {
            return None;
        }
        let heap = piece(file, number(&start, root + 32)?, 32)?;
        if !heap.starts_with(b"HEAP") {
            return None;
        }
        let layout = Layout {
            heap: (number(&heap, 24)?, number(&heap, 8)?),
            symbols: 2 * tiny(&start, 16)?,
            children: 2 * tiny(&start, 18)?,
        };
        let root = Node::read(file, &layout, number(&start, root + 24)?)?;
        (usize::from(root.level) < DEEPEST).then_some(Self { layout, root })
    }

    /// The table with this name.
    pub fn find(&self, file: &File, name: &str) -> Option<Found> {
        if name.is_empty() || name.contains(['/', '\0']) || name == "." {
            return None;
        }
        header(file, self.object(file, name.as_bytes())?)
    }

    /// Address of the object header of the entry `name`.
    fn object(&self, file: &File, name: &[u8]) -> Option<usize> {
        let node = piece(file, self.symbols(file, name)?, 8 + 40 * self.layout.symbols)?;
        if !node.starts_with(b"SNOD") {
            return None;
        }
        let at = |symbol: usize| 8 + 40 * symbol;
        let (mut low, mut high) = (0, tiny(&node, 6)?);
        while low < high {
            let middle = usize::midpoint(low, high);
            // One byte more than the name has tells whether it goes on.
            match self.layout.name(file, number(&node, at(middle))?, name.len() + 1)?.as_slice().cmp(name) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return number(&node, at(middle) + 8),
            }
        }
        None
    }

    /// Address of the node of symbols in which the name is.
    fn symbols(&self, file: &File, name: &[u8]) -> Option<usize> {
        let mut node = &self.root;
        loop {
            let child = node.child(name)?;
            let Some(below) = node.below.get(child) else { return Some(node.addresses[child]) };
            node = match below.get() {
                Some(kept) => kept,
                None => {
                    let read = Node::read(file, &self.layout, node.addresses[child])?;
                    if read.level + 1 != node.level {
                        return None;
                    }
                    below.get_or_init(|| read)
                }
            };
        }
    }
}

impl Layout {
    /// The name at this place of the heap, cut after `most` bytes.
    fn name(&self, file: &File, offset: usize, most: usize) -> Option<Vec<u8>> {
        let (start, length) = self.heap;
        let mut bytes = piece(file, start.checked_add(offset)?, most.min(length.checked_sub(offset)?))?;
        match bytes.iter().position(|byte| *byte == 0) {
            Some(end) => bytes.truncate(end),
            None if bytes.len() < most => return None,
            None => {}
        }
        Some(bytes)
    }

    /// The same, whole.
    fn whole_name(&self, file: &File, offset: usize) -> Option<Vec<u8>> {
        let mut most = 64;
        loop {
            let name = self.name(file, offset, most)?;
            if name.len() < most {
                return Some(name);
            }
            most *= 2;
        }
    }
}

impl Node {
    /// The node at this place.
    fn read(file: &File, layout: &Layout, address: usize) -> Option<Self> {
        let node = piece(file, address, 24 + 16 * layout.children + 8)?;
        let (level, entries) = (*node.get(5)?, tiny(&node, 6)?);
        // Type 0 is a group's; a key precedes each child, and one is after the last.
        if !node.starts_with(b"TREE") || node[4] != 0 || entries == 0 {
            return None;
        }
        let (mut names, mut ends, mut addresses) = (Vec::new(), Vec::new(), Vec::new());
        for entry in 0..entries {
            let at = 24 + 16 * entry;
            names.extend(layout.whole_name(file, number(&node, at + 16)?)?);
            ends.push(u32::try_from(names.len()).ok()?);
            addresses.push(number(&node, at + 8)?);
        }
        let below = if level > 0 { entries } else { 0 };
        Some(Self {
            names: names.into(),
            ends: ends.into(),
            addresses: addresses.into(),
            level,
            below: (0..below).map(|_| OnceLock::new()).collect(),
        })
    }

    /// The child in which the name is: the first whose last name is not before it.
    fn child(&self, name: &[u8]) -> Option<usize> {
        let last = |child: usize| {
            let start = child.checked_sub(1).map_or(0, |previous| self.ends[previous] as usize);
            &self.names[start..self.ends[child] as usize]
        };
        let (mut low, mut high) = (0, self.ends.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            if last(middle) < name { low = middle + 1 } else { high = middle }
        }
        (low < self.ends.len()).then_some(low)
    }
}

/// What the messages of a dataset's header (version 1) say; nothing where its numbers are not plainly in one piece.
fn header(file: &File, address: usize) -> Option<Found> {
    let start = piece(file, address, HEADER)?;
    let (mut shape, mut half, mut place) = (None, None, None);
    if start.len() < 16 || start[0] != 1 {
        return None;
    }
    let mut left = tiny(&start, 2)?;
    let mut blocks = vec![(address + 16, short(&start, 8)?)];
    let mut block = 0;
    while let Some(&(at, length)) = blocks.get(block) {
        let at_hand = at.checked_sub(address).and_then(|at| start.get(at..at.checked_add(length)?));
        let read;
        let mut rest = match at_hand {
            Some(bytes) => bytes,
            None => {
                read = piece(file, at, length.min(BLOCK))?;
                read.get(..length)?
            }
        };
        while left > 0 && rest.len() >= 8 {
            let (kind, size, flags) = (tiny(rest, 0)?, tiny(rest, 2)?, rest[4]);
            let message = rest.get(8..8 + size)?;
            match kind {
                // Kept elsewhere, in other files, or filtered.
                0x01 | 0x03 | 0x08 if flags & 2 != 0 => return None,
                0x07 | 0x0b => return None,
                0x01 => shape = Some(dimensions(message)?),
                0x03 if message.starts_with(&HALF) => half = Some(true),
                0x03 if message.starts_with(&SINGLE) => half = Some(false),
                0x08 => place = Some(contiguous(message)?),
                0x10 if blocks.len() < DEEPEST => blocks.push((number(message, 0)?, number(message, 8)?)),
                0x10 => return None,
                _ => {}
            }
            rest = &rest[8 + size..];
            left -= 1;
        }
        block += 1;
    }
    let (shape, half, (offset, length)): (Vec<usize>, bool, (usize, usize)) = (shape?, half?, place?);
    let numbers = shape.iter().try_fold(1usize, |product, n| product.checked_mul(*n))?;
    (numbers.checked_mul(if half { 2 } else { 4 })? == length).then_some(Found { shape, half, offset })
}

fn dimensions(message: &[u8]) -> Option<Vec<usize>> {
    let rank = usize::from(*message.get(1)?);
    let start = match message.first()? {
        1 => 8,
        2 if message.get(3)? == &1 => 4,
        _ => return None,
    };
    (0..rank).map(|dimension| number(message, start + 8 * dimension)).collect()
}

/// Offset and length of numbers in one piece.
fn contiguous(message: &[u8]) -> Option<(usize, usize)> {
    let known = matches!(message.first()?, 3 | 4) && message.get(1)? == &1;
    let offset = number(message, 2)?;
    // All ones: nothing was ever written.
    (known && offset != usize::MAX).then_some((offset, number(message, 10)?))
}

/// At most `most` bytes from this place on, fewer where the file ends; none where it cannot be read.
fn piece(file: &File, at: usize, most: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; most];
    let length = positioned::read(file, at as u64, &mut bytes).ok()?;
    bytes.truncate(length);
    Some(bytes)
}

fn bytes<const N: usize>(of: &[u8], at: usize) -> Option<[u8; N]> {
    of.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn number(of: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u64::from_le_bytes(bytes(of, at)?)).ok()
}

fn short(of: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(bytes(of, at)?)).ok()
}

fn tiny(of: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(u16::from_le_bytes(bytes(of, at)?)))
}

#[cfg(test)]
mod tests {
    use std::fs::File as Plain;

    use half::f16;
    use hdf5::File;

    use super::{Found, Index};

    /// Tables with these names, one in three float16; what the library knows of each.
    fn write(path: &std::path::Path, names: &[String]) -> Vec<Found> {
        let file = File::create(path).unwrap();
        for (i, name) in names.iter().enumerate() {
            if i % 3 == 0 {
                let table = file.new_dataset::<f16>().shape([2, i % 5 + 1]).create(name.as_str()).unwrap();
                table.write_raw(&vec![f16::ONE; 2 * (i % 5 + 1)]).unwrap();
            } else {
                file.new_dataset::<f32>().shape([3]).create(name.as_str()).unwrap().write_raw(&[1f32; 3]).unwrap();
            }
        }
        file.close().unwrap();
        let file = File::open(path).unwrap();
        let known = names.iter().map(|name| file.dataset(name).unwrap());
        let offset = |table: &hdf5::Dataset| usize::try_from(table.offset().unwrap()).unwrap();
        known
            .map(|table| Found {
                shape: table.shape(),
                half: table.dtype().unwrap().size() == 2,
                offset: offset(&table),
            })
            .collect()
    }

    /// As many names as make a tree of several levels, in an order that is not theirs; also by threads that find its nodes together.
    #[test]
    fn equal_to_the_library() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tables.h5");
        let names: Vec<String> = (0..3000).map(|i| format!("{:08}", (i * 7919) % 3000 * 1000 + 7)).collect();
        let known = write(&path, &names);
        let file = Plain::open(&path).unwrap();
        let index = Index::open(&file).unwrap();
        assert!(index.root.level > 0 && index.root.below.iter().all(|node| node.get().is_none()));
        for name in ["", "0", "00000008", "99999999", "a", ".", "/00000007"] {
            assert_eq!(index.find(&file, name), None, "{name}");
        }
        std::thread::scope(|scope| {
            for start in [0, 1000, 2000] {
                let (names, known, index, file) = (&names, &known, &index, &file);
                scope.spawn(move || {
                    for i in (0..names.len()).map(|i| (start + i) % names.len()) {
                        assert_eq!(index.find(file, &names[i]).as_ref(), Some(&known[i]), "{}", names[i]);
                    }
                });
            }
        });
        assert!(index.root.below.iter().all(|node| node.get().is_some()));
    }

    /// Names that begin like others, and longer ones than are read at once.
    #[test]
    fn names_of_all_lengths() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tables.h5");
        let names: Vec<String> = (1..300).map(|length| "é".repeat(length % 100) + &"a".repeat(length)).collect();
        let known = write(&path, &names);
        let file = Plain::open(&path).unwrap();
        let index = Index::open(&file).unwrap();
        for (name, known) in names.iter().zip(&known) {
            assert_eq!(index.find(&file, name).as_ref(), Some(known), "{name}");
            assert_eq!(index.find(&file, &format!("{name}b")), None);
            assert_eq!(
                index.find(&file, &name[..name.len() - 1]).is_some(),
                names.iter().any(|n| *n == name[..name.len() - 1])
            );
        }
    }

    /// Damage anywhere in the metadata finds nothing, or what is there; it never breaks down.
    #[test]
    fn damage() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tables.h5");
        let names: Vec<String> = (0..3000).map(|i| format!("{i:08}")).collect();
        write(&path, &names);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.truncate(100_000);
        for at in (0..60_000).step_by(13) {
            bytes[at] ^= 0xff;
            std::fs::write(&path, &bytes).unwrap();
            bytes[at] ^= 0xff;
            let file = Plain::open(&path).unwrap();
            if let Some(index) = Index::open(&file) {
                names[..3].iter().for_each(|name| drop(index.find(&file, name)));
            }
        }
    }

    #[test]
    fn what_is_left_to_the_library() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tables.h5");
        let file = File::create(&path).unwrap();
        file.new_dataset::<f32>().shape([4, 2]).chunk([2, 2]).create("chunked").unwrap().write_raw(&[1f32; 8]).unwrap();
        file.new_dataset::<f64>().shape([4]).create("double").unwrap().write_raw(&[1f64; 4]).unwrap();
        file.new_dataset::<i32>().shape([4]).create("int").unwrap().write_raw(&[1; 4]).unwrap();
        file.new_dataset::<f32>().shape([4]).create("unwritten").unwrap();
        file.create_group("group").unwrap();
        file.close().unwrap();
        let file = Plain::open(&path).unwrap();
        let index = Index::open(&file).unwrap();
        for name in ["chunked", "double", "int", "unwritten", "group"] {
            assert_eq!(index.find(&file, name), None, "{name}");
        }
        for start in [&b""[..], b"\x89HDF\r\n\x1a\n"] {
            std::fs::write(&path, start).unwrap();
            assert!(Index::open(&Plain::open(&path).unwrap()).is_none());
        }
    }
}
