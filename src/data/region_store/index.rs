//! Where the tables of an HDF5 file lie, read from the file's own index through its memory map.
//!
//! A file made by `h5py` with its defaults keeps the names of its root group in a B-tree: a name is found in it as the library finds
//! it, with nothing read beforehand and nothing kept. (The library's own caches take about 5 kB for each table ever looked up,
//! and one lock for all threads; Conceptual Captions has 3.3 million images in 2001 files.) Everything that is not exactly
//! this layout, damaged files among it, is `None`: the library then finds the table or says what is wrong.
//!
//! Layout: HDF5 File Format Specification 1.1, sections II.A (superblock), III.A.1 (B-tree), III.B, III.C (symbol table), III.D
//! (local heap), IV.A (object header and its messages). Numbers are little-endian, addresses and lengths of 8 bytes.

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

/// The table with this name.
pub fn find(file: &[u8], name: &str) -> Option<Found> {
    if name.is_empty() || name.contains(['/', '\0']) || name == "." {
        return None;
    }
    header(file, object(file, name.as_bytes())?)
}

/// Address of the object header of the root group's entry `name`.
fn object(file: &[u8], name: &[u8]) -> Option<usize> {
    // Superblocks of versions 0 and 1 differ by four bytes before the addresses.
    let version = *file.get(8)?;
    let addresses = match version {
        0 => 24,
        1 => 28,
        _ => return None,
    };
    let plain = file.starts_with(SIGNATURE) && file[13..15] == [8, 8] && number(file, addresses)? == 0;
    // The root group's symbol table entry, with the addresses of tree and heap at hand.
    let root = addresses + 32;
    if !plain || short(file, root + 16)? != 1 {
        return None;
    }
    let (mut node, heap) = (number(file, root + 24)?, number(file, root + 32)?);
    let names = names(file, heap)?;
    for _ in 0..DEEPEST {
        match file.get(node..node.checked_add(4)?)? {
            b"TREE" => node = child(file, node, names, name)?,
            b"SNOD" => return leaf(file, node, names, name),
            _ => return None,
        }
    }
    None
}

/// The names of a group, each ended by a zero byte.
fn names(file: &[u8], heap: usize) -> Option<&[u8]> {
    let header = file.get(heap..heap.checked_add(32)?)?;
    let (length, start) = (number(header, 8)?, number(header, 24)?);
    if !header.starts_with(b"HEAP") {
        return None;
    }
    file.get(start..start.checked_add(length)?)
}

fn name_at(names: &[u8], offset: usize) -> Option<&[u8]> {
    let rest = names.get(offset..)?;
    Some(&rest[..rest.iter().position(|byte| *byte == 0)?])
}

/// The child of a B-tree's node in which the name is: the first whose last name is not before it.
fn child(file: &[u8], node: usize, names: &[u8], name: &[u8]) -> Option<usize> {
    let entries = usize::from(u16::from_le_bytes(bytes(file, node + 6)?));
    // Type 0 is a group's; a key precedes each child, and one is after the last.
    if file.get(node + 4)? != &0 || entries == 0 {
        return None;
    }
    let at = |entry: usize| node + 24 + 16 * entry;
    let entry = first(entries, |entry| Some(name_at(names, number(file, at(entry + 1))?)? < name))?;
    (entry < entries).then(|| number(file, at(entry) + 8)).flatten()
}

/// The object header of a name in a node of symbols.
fn leaf(file: &[u8], node: usize, names: &[u8], name: &[u8]) -> Option<usize> {
    let symbols = usize::from(u16::from_le_bytes(bytes(file, node + 6)?));
    let at = |symbol: usize| node + 8 + 40 * symbol;
    let found = |symbol| name_at(names, number(file, at(symbol))?);
    let symbol = first(symbols, |symbol| Some(found(symbol)? < name))?;
    (symbol < symbols && found(symbol)? == name).then(|| number(file, at(symbol) + 8)).flatten()
}

/// How many of the first `count` places are `before`, where those that are come first.
fn first(count: usize, before: impl Fn(usize) -> Option<bool>) -> Option<usize> {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = usize::midpoint(low, high);
        if before(middle)? { low = middle + 1 } else { high = middle }
    }
    Some(low)
}

/// What the messages of a dataset's header (version 1) say; nothing where its numbers are not plainly in one piece.
fn header(file: &[u8], address: usize) -> Option<Found> {
    let prefix = file.get(address..address.checked_add(16)?)?;
    let (mut shape, mut half, mut place) = (None, None, None);
    if prefix[0] != 1 {
        return None;
    }
    let mut left = usize::from(u16::from_le_bytes(bytes(prefix, 2)?));
    let mut blocks = vec![(address + 16, short(prefix, 8)?)];
    let mut block = 0;
    while let Some(&(start, length)) = blocks.get(block) {
        let mut rest = file.get(start..start.checked_add(length)?)?;
        while left > 0 && rest.len() >= 8 {
            let (kind, size, flags) =
                (u16::from_le_bytes(bytes(rest, 0)?), u16::from_le_bytes(bytes(rest, 2)?), rest[4]);
            let message = rest.get(8..8 + usize::from(size))?;
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
            rest = &rest[8 + usize::from(size)..];
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

fn bytes<const N: usize>(of: &[u8], at: usize) -> Option<[u8; N]> {
    of.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn number(of: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u64::from_le_bytes(bytes(of, at)?)).ok()
}

fn short(of: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(bytes(of, at)?)).ok()
}

#[cfg(test)]
mod tests {
    use half::f16;
    use hdf5::File;

    use super::{Found, find};

    /// As many names as make a tree of several levels, in an order that is not theirs.
    #[test]
    fn equal_to_the_library() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tables.h5");
        let names: Vec<String> = (0..3000).map(|i| format!("{:08}", (i * 7919) % 3000 * 1000 + 7)).collect();
        let file = File::create(&path).unwrap();
        for (i, name) in names.iter().enumerate() {
            if i % 3 == 0 {
                file.new_dataset::<f16>()
                    .shape([2, i % 5 + 1])
                    .create(name.as_str())
                    .unwrap()
                    .write_raw(&vec![f16::ONE; 2 * (i % 5 + 1)])
                    .unwrap();
            } else {
                file.new_dataset::<f32>().shape([3]).create(name.as_str()).unwrap().write_raw(&[1f32; 3]).unwrap();
            }
        }
        file.close().unwrap();
        let (bytes, file) = (std::fs::read(&path).unwrap(), File::open(&path).unwrap());
        for name in &names {
            let known = file.dataset(name).unwrap();
            let offset = usize::try_from(known.offset().unwrap()).unwrap();
            let half = known.dtype().unwrap().size() == 2;
            assert_eq!(find(&bytes, name), Some(Found { shape: known.shape(), half, offset }), "{name}");
        }
        for name in ["", "0", "00000008", "99999999", "a", ".", "/00000007"] {
            assert_eq!(find(&bytes, name), None, "{name}");
        }
        // Damage anywhere in the metadata finds nothing, or what is there; it never breaks down.
        for at in (0..bytes.len().min(60_000)).step_by(13) {
            let mut damaged = bytes.clone();
            damaged.truncate(100_000);
            if let Some(byte) = damaged.get_mut(at) {
                *byte ^= 0xff;
            }
            names[..3].iter().for_each(|name| drop(find(&damaged, name)));
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
        let bytes = std::fs::read(&path).unwrap();
        for name in ["chunked", "double", "int", "unwritten", "group"] {
            assert_eq!(find(&bytes, name), None, "{name}");
        }
        assert_eq!(find(b"", "chunked"), None);
        assert_eq!(find(b"\x89HDF\r\n\x1a\n", "chunked"), None);
    }
}
