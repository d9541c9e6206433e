//! The directory of a zip archive, as far as PyTorch's container needs it: entries that lie in the file uncompressed.
//!
//! Compressed and encrypted entries are refused, checksums are not verified.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

use super::error::printable;

/// Names of the entries and where their bytes lie.
#[derive(Debug)]
pub(super) struct Directory {
    entries: HashMap<String, Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// 0 is stored.
    method: u16,
    header: u64,
    size: u64,
}

/// Why an archive cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// Against the rules.
    Damaged {
        /// Byte of the file.
        at: usize,
        /// Which rule.
        reason: String,
    },
    /// Compressed or encrypted.
    Packed {
        /// Name of the entry.
        name: String,
    },
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged { at, reason } => write!(f, "{reason} (byte {at})"),
            Self::Packed { name } => write!(f, "the entry `{}` is compressed or encrypted", printable(name)),
        }
    }
}

fn broken(at: usize, reason: impl Into<String>) -> Broken {
    Broken::Damaged { at, reason: reason.into() }
}

const END: u32 = 0x0605_4b50;
const END_64: u32 = 0x0606_4b50;
const END_64_LOCATOR: u32 = 0x0706_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const LOCAL: u32 = 0x0403_4b50;

impl Directory {
    /// Reads the directory at the end of `bytes`.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Broken> {
        let end = find_end(bytes)?;
        let mut entries_claimed = u64::from(u16_at(bytes, end + 10)?);
        let mut length = u64::from(u32_at(bytes, end + 12)?);
        let mut start = u64::from(u32_at(bytes, end + 16)?);
        if let Some(locator) = end.checked_sub(20).filter(|at| u32_at(bytes, *at) == Ok(END_64_LOCATOR)) {
            let at = position(u64_at(bytes, locator + 8)?, locator)?;
            if u32_at(bytes, at) != Ok(END_64) {
                return Err(broken(at, "the zip64 directory of the archive is not where its end says"));
            }
            entries_claimed = u64_at(bytes, at + 32)?;
            length = u64_at(bytes, at + 40)?;
            start = u64_at(bytes, at + 48)?;
        }
        let (start, length) = (position(start, end)?, position(length, end)?);
        let stop = start.checked_add(length).filter(|stop| *stop <= end);
        let stop = stop.ok_or_else(|| broken(end, "the directory of the archive lies outside the file"))?;

        let mut entries = HashMap::new();
        let mut at = start;
        while at < stop {
            if u32_at(bytes, at)? != CENTRAL {
                return Err(broken(at, "the directory of the archive is damaged"));
            }
            let (name, entry, next) = central_entry(bytes, at)?;
            entries.insert(name, entry);
            at = next;
        }
        if (entries.len() as u64) < entries_claimed {
            let found = entries.len();
            return Err(broken(at, format!("the archive has {found} entries where {entries_claimed} are announced")));
        }
        Ok(Self { entries })
    }

    /// All names.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Where the bytes of the entry `name` lie; `Ok(None)` if there is no such entry.
    pub(super) fn find(&self, bytes: &[u8], name: &str) -> Result<Option<Range<usize>>, Broken> {
        let Some(entry) = self.entries.get(name) else { return Ok(None) };
        let header = position(entry.header, 0)?;
        if u32_at(bytes, header) != Ok(LOCAL) {
            return Err(broken(
                header,
                format!("the entry `{}` of the archive is not where the directory says", printable(name)),
            ));
        }
        if entry.method != 0 || u16_at(bytes, header + 6)? & 1 != 0 {
            return Err(Broken::Packed { name: name.to_owned() });
        }
        let skip = usize::from(u16_at(bytes, header + 26)?) + usize::from(u16_at(bytes, header + 28)?);
        let start = header + 30 + skip;
        let end = position(entry.size, header)?.checked_add(start).filter(|end| *end <= bytes.len());
        match end {
            Some(end) => Ok(Some(start..end)),
            None => {
                let left = bytes.len().saturating_sub(start);
                let size = entry.size;
                let name = printable(name);
                Err(broken(header, format!("the entry `{name}` has {size} bytes, of which only {left} are there")))
            }
        }
    }
}

fn find_end(bytes: &[u8]) -> Result<usize, Broken> {
    // The end record has 22 bytes and a comment of at most 65,535.
    let last = bytes.len().saturating_sub(22);
    let first = last.saturating_sub(0xffff);
    let found = (first..=last).rev().find(|at| {
        u32_at(bytes, *at) == Ok(END)
            && u16_at(bytes, at + 20).is_ok_and(|comment| at + 22 + usize::from(comment) == bytes.len())
    });
    found.ok_or_else(|| broken(bytes.len(), "the archive ends without its directory"))
}

fn central_entry(bytes: &[u8], at: usize) -> Result<(String, Entry, usize), Broken> {
    let method = u16_at(bytes, at + 10)?;
    let packed = u32_at(bytes, at + 20)?;
    let mut size = u64::from(u32_at(bytes, at + 24)?);
    let [name, extra, comment] = [28, 30, 32].map(|part| u16_at(bytes, at + part));
    let (name, extra, comment) = (usize::from(name?), usize::from(extra?), usize::from(comment?));
    let mut header = u64::from(u32_at(bytes, at + 42)?);
    let extra_at = at + 46 + name;
    let name = slice(bytes, at + 46, name)?;
    let name = String::from_utf8(name.to_vec()).map_err(|_| broken(at, "an entry whose name is not UTF-8"))?;

    let mut rest = slice(bytes, extra_at, extra)?;
    while let [a, b, c, d, tail @ ..] = rest {
        let (id, length) = (u16::from_le_bytes([*a, *b]), usize::from(u16::from_le_bytes([*c, *d])));
        let Some((field, next)) = tail.split_at_checked(length) else { break };
        if id == 1 {
            // zip64: only the values that did not fit, in this order.
            let mut wide = field.as_chunks::<8>().0.iter().map(|b| u64::from_le_bytes(*b));
            if size == u64::from(u32::MAX) {
                size = wide.next().unwrap_or(size);
            }
            if packed == u32::MAX {
                wide.next();
            }
            if header == u64::from(u32::MAX) {
                header = wide.next().unwrap_or(header);
            }
        }
        rest = next;
    }
    Ok((name, Entry { method, header, size }, extra_at + extra + comment))
}

fn position(value: u64, at: usize) -> Result<usize, Broken> {
    // Far from overflow when small numbers are added.
    usize::try_from(value)
        .ok()
        .filter(|v| *v < usize::MAX / 4)
        .ok_or_else(|| broken(at, format!("a position of {value}")))
}

fn slice(bytes: &[u8], at: usize, length: usize) -> Result<&[u8], Broken> {
    let end = at.checked_add(length);
    end.and_then(|end| bytes.get(at..end)).ok_or_else(|| broken(at, "the directory of the archive is cut short"))
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Broken> {
    let mut array = [0; N];
    array.copy_from_slice(slice(bytes, at, N)?);
    Ok(array)
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, Broken> {
    number(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, Broken> {
    number(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64, Broken> {
    number(bytes, at).map(u64::from_le_bytes)
}
