//! How the processes that compute ask the system for memory.

/// Keeps what is freed for the next allocation, in one heap, in place of giving it back to the system.
///
/// A training step allocates and frees gigabytes in pieces of megabytes, which the C library takes from the system one by one and
/// gives back at once; each page then comes anew, and the system clears it first. For processes that do nothing else
/// but such steps; to be called before they start threads. No effect with another C library than glibc.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: these set numbers of the allocator, and are safe to call at any time.
    unsafe {
        libc::mallopt(libc::M_MMAP_MAX, 0);
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_TRIM_THRESHOLD, -1); // never
        libc::mallopt(libc::M_TOP_PAD, 64 << 20);
    }
}
