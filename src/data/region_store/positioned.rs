//! Reads at given places of a file, which many threads can do at once.

use std::fs::File;
use std::io::{ErrorKind, Result};

/// Fills `out` from this place of the file on. How many bytes it could; fewer than all only where the file ends.
pub fn read(file: &File, at: u64, out: &mut [u8]) -> Result<usize> {
    let mut length = 0;
    while length < out.len() {
        match read_some(file, &mut out[length..], at.saturating_add(length as u64)) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

#[cfg(unix)]
fn read_some(file: &File, out: &mut [u8], at: u64) -> Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, out, at)
}

#[cfg(windows)]
fn read_some(file: &File, out: &mut [u8], at: u64) -> Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, out, at)
}

/// Tells the system that a piece will be read: one request to the disk, not many. A hint, where the system takes it.
pub fn announce(file: &File, at: usize, length: usize) {
    #[cfg(target_os = "linux")]
    if let (Ok(at), Ok(length)) = (at.try_into(), length.try_into()) {
        use std::os::fd::AsRawFd;
        // SAFETY: the call changes nothing but what the system reads ahead.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), at, length, libc::POSIX_FADV_WILLNEED) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (file, at, length);
}
