//! Reading bytes, lengths and lines of a pickle in order; never beyond its end, whatever lengths it claims.

use super::super::error::Fault;

/// A place in the bytes.
pub(super) struct Cursor<'s> {
    pub(super) bytes: &'s [u8],
    /// Next byte.
    pub(super) at: usize,
}

impl<'s> Cursor<'s> {
    /// Bytes after this place.
    pub(super) fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    /// The next `length` bytes.
    pub(super) fn take(&mut self, length: usize, what: &str) -> Result<&'s [u8], Fault> {
        let bytes: &'s [u8] = self.bytes;
        let rest = bytes.get(self.at..).unwrap_or_default();
        let Some(taken) = rest.get(..length) else {
            let left = rest.len();
            return Err(Fault::damaged(match left {
                0 => format!("the file ends where {what} should go on"),
                _ => format!("{what} of {length} bytes, of which only {left} are there"),
            }));
        };
        self.at += length;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Fault> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, what)?);
        Ok(array)
    }

    /// A length of `width` bytes.
    pub(super) fn length(&mut self, width: usize, what: &str) -> Result<usize, Fault> {
        let mut wide = [0; 8];
        wide[..width].copy_from_slice(self.take(width, what)?);
        usize::try_from(u64::from_le_bytes(wide)).map_err(|_| Fault::damaged("a length beyond this machine's memory"))
    }

    pub(super) fn line(&mut self, what: &str) -> Result<&'s [u8], Fault> {
        let bytes: &'s [u8] = self.bytes;
        let rest = bytes.get(self.at..).unwrap_or_default();
        let end = rest.iter().position(|b| *b == b'\n');
        let end = end.ok_or_else(|| Fault::damaged(format!("the file ends before the line of {what} does")))?;
        self.at += end + 1;
        Ok(&rest[..end])
    }
}
