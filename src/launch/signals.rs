//! SIGINT, SIGTERM and SIGHUP, counted instead of ending the program; and the names of signals for people.

use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use super::LaunchError;

/// SIGINT, SIGTERM and SIGHUP, counted while it lives instead of ending the program.
pub struct Signals {
    previous: Vec<(i32, libc::sigaction)>,
}

/// The handler can reach nothing but statics.
static RECEIVED: AtomicUsize = AtomicUsize::new(0);
static LAST: AtomicI32 = AtomicI32::new(0);

extern "C" fn on_signal(number: i32) {
    LAST.store(number, Ordering::SeqCst);
    RECEIVED.fetch_add(1, Ordering::SeqCst);
}

impl Signals {
    /// From now on signals are counted, from 0.
    pub fn watch() -> Result<Self, LaunchError> {
        RECEIVED.store(0, Ordering::SeqCst);
        let mut signals = Self { previous: Vec::new() };
        for number in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            // SAFETY: a zeroed sigaction is valid; the handler only touches atomics, which is async-signal-safe.
            unsafe {
                let mut old: libc::sigaction = std::mem::zeroed();
                let mut new: libc::sigaction = std::mem::zeroed();
                new.sa_sigaction = on_signal as extern "C" fn(i32) as libc::sighandler_t;
                new.sa_flags = libc::SA_RESTART;
                if libc::sigaction(number, &new, &mut old) != 0 {
                    let source = std::io::Error::last_os_error();
                    return Err(LaunchError::System { action: "watch for signals", source });
                }
                signals.previous.push((number, old));
            }
        }
        Ok(signals)
    }

    /// Signals received.
    pub fn count(&self) -> usize {
        RECEIVED.load(Ordering::SeqCst)
    }

    /// The signal for the processes: a closed terminal asks them to end like SIGTERM does.
    pub fn to_pass_on(&self) -> i32 {
        match LAST.load(Ordering::SeqCst) {
            libc::SIGINT => libc::SIGINT,
            _ => libc::SIGTERM,
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for (number, old) in &self.previous {
            // SAFETY: `old` is what sigaction returned for this signal.
            unsafe { libc::sigaction(*number, old, std::ptr::null_mut()) };
        }
    }
}

/// The usual name of a signal, and what it often means.
pub fn signal_name(number: i32) -> Option<&'static str> {
    Some(match number {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGILL => "SIGILL, an instruction this processor lacks",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL, often the kernel when memory ran out",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGTERM => "SIGTERM",
        _ => return None,
    })
}
