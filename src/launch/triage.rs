//! Why a process failed: from how it ended and what it said last, to a cause, to what can be done.
//!
//! The words looked for are those of this program's own errors, of the kernel, of Rust's runtime and of LibTorch.

use std::path::{Path, PathBuf};

use super::signals::signal_name;
use crate::track::tail;

/// Lines of the rank log that a failure quotes.
const QUOTED_LINES: usize = 12;

/// Exit codes of this program that say what was wrong.
const CODE_CONFIG: i32 = 2;
const CODE_DATA: i32 = 3;

/// A process that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RankFailure {
    /// Its rank.
    pub rank: usize,
    /// How it ended.
    pub ending: Ending,
    /// Why, as far as one can tell.
    pub cause: Cause,
    /// Its log file.
    pub log: PathBuf,
    /// The last lines of its log.
    pub last_lines: Vec<String>,
}

/// How a process ended that did not end well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Exit code.
    Code(i32),
    /// Number of the signal that killed it.
    Signal(i32),
    /// Stopped by the launcher after so many seconds without progress.
    Hung(u64),
}

/// Classes of causes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The settings.
    Configuration,
    /// The data on disk.
    Data,
    /// A loss that is no number.
    NotFinite,
    /// No memory was left.
    OutOfMemory,
    /// No shared memory was left.
    SharedMemory,
    /// The disk is full or may not be written to.
    Disk,
    /// Another rank did not answer.
    Network,
    /// A signal from outside, or a crash.
    Killed(i32),
    /// No progress.
    Hung,
    /// None of these.
    Unknown,
}

impl Cause {
    /// Whether the same thing would happen again: another attempt from the same checkpoint is of no use.
    pub fn recurs(self) -> bool {
        !matches!(self, Self::OutOfMemory | Self::SharedMemory | Self::Network | Self::Killed(_) | Self::Hung)
    }

    /// What to do.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Configuration => "correct the settings",
            Self::Data => "mend the data",
            Self::NotFinite => "lower `train.learning_rate`, or look for values in the data that are not finite",
            Self::OutOfMemory => {
                "lower `train.batch_size` and raise `train.gradient_accumulation_steps` by the same factor, or run fewer processes"
            }
            Self::SharedMemory => "give the machine or container more shared memory (`docker run --shm-size=8g`)",
            Self::Disk => "make room on the disk of the run folder, or make it writable",
            Self::Network => "look at the logs of the other ranks and at the network between them",
            Self::Killed(_) => "find out who sent the signal (`dmesg`, the scheduler's log)",
            Self::Hung => {
                "look at the last lines of all ranks; raise `launch.hang_timeout_s` if a step may take that long"
            }
            Self::Unknown => "mend the cause",
        }
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Configuration => f.write_str("configuration"),
            Self::Data => f.write_str("data"),
            Self::NotFinite => f.write_str("NaN"),
            Self::OutOfMemory => f.write_str("out of memory"),
            Self::SharedMemory => f.write_str("shared memory"),
            Self::Disk => f.write_str("disk"),
            Self::Network => f.write_str("network"),
            Self::Killed(number) => write!(f, "killed by signal {number}"),
            Self::Hung => f.write_str("no progress"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "ended with exit code {code}"),
            Self::Signal(number) => match signal_name(*number) {
                Some(name) => write!(f, "was killed by signal {number} ({name})"),
                None => write!(f, "was killed by signal {number}"),
            },
            Self::Hung(seconds) => write!(f, "made no progress for {seconds} s and was stopped"),
        }
    }
}

impl std::fmt::Display for RankFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.headline())?;
        if !self.last_lines.is_empty() {
            write!(f, "; last lines of {}:", self.log.display())?;
            let lines = self.last_lines.iter().flat_map(|line| line.lines());
            lines.into_iter().try_for_each(|line| write!(f, "\n    {line}"))?;
        }
        Ok(())
    }
}

impl RankFailure {
    /// Who failed, how and why, in one line.
    pub fn headline(&self) -> String {
        match self.cause {
            Cause::Unknown => format!("rank {} {}", self.rank, self.ending),
            cause => format!("rank {} {}; cause: {cause}", self.rank, self.ending),
        }
    }

    /// Reads the log of a process that ended; `oom_kills`: whether the kernel killed for memory meanwhile.
    pub fn read(rank: usize, ending: Ending, log: &Path, oom_kills: bool) -> Self {
        let last_lines = tail(log, QUOTED_LINES);
        let cause = classify(ending, &last_lines.join("\n"), oom_kills);
        Self { rank, ending, cause, log: log.to_path_buf(), last_lines }
    }
}

/// Texts of a cause, looked for in the last lines of a log.
const WORDS: [(Cause, &[&str]); 5] = [
    (Cause::SharedMemory, &["/dev/shm", "shared memory", "shm_open"]),
    (
        Cause::OutOfMemory,
        &[
            "memory allocation of",
            "out of memory",
            "can't allocate memory",
            "Cannot allocate memory",
            "std::bad_alloc",
            "CUDA_ERROR_OUT_OF_MEMORY",
            "CUBLAS_STATUS_ALLOC_FAILED",
        ],
    ),
    (Cause::Disk, &["No space left on device", "Read-only file system", "Disk quota exceeded", "os error 28"]),
    (Cause::NotFinite, &["the loss is NaN", "the loss is inf", "the loss is -inf"]),
    (Cause::Network, &["lost its group during", "could not join its group"]),
];

fn classify(ending: Ending, last_words: &str, oom_kills: bool) -> Cause {
    match ending {
        Ending::Hung(_) => return Cause::Hung,
        Ending::Code(CODE_CONFIG) => return Cause::Configuration,
        Ending::Code(CODE_DATA) => return Cause::Data,
        Ending::Signal(libc::SIGKILL) if oom_kills => return Cause::OutOfMemory,
        Ending::Signal(libc::SIGBUS) => return Cause::SharedMemory,
        // Only what a process says when it gives up by itself belongs to its end.
        Ending::Signal(number) if number != libc::SIGABRT => return Cause::Killed(number),
        Ending::Signal(_) | Ending::Code(_) => {}
    }
    let said = WORDS.iter().find(|(_, words)| words.iter().any(|word| last_words.contains(word)));
    match (said, ending) {
        (Some((cause, _)), _) => *cause,
        (None, Ending::Signal(number)) => Cause::Killed(number),
        (None, _) => Cause::Unknown,
    }
}

/// The memory of a GPU in bytes, as LibTorch tells it when there is none left:
/// `CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB of which …`.
pub fn gpu_capacity(last_words: &str) -> Option<u64> {
    let mut words = last_words.split_once("has a total capacity of ")?.1.split_whitespace();
    let number: f64 = words.next()?.parse().ok()?;
    let unit = match words.next()? {
        "GiB" => 1u64 << 30,
        "MiB" => 1 << 20,
        _ => return None,
    };
    (number > 0.0).then_some((number * unit as f64) as u64)
}

/// Kills for memory in this control group so far; 0 where the kernel does not count them.
pub fn oom_kills() -> u64 {
    let text = std::fs::read_to_string("/sys/fs/cgroup/memory.events").unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_gpu_is_read_off_the_message() {
        let words = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.50 GiB of which 1.2 GiB is free.";
        assert_eq!(gpu_capacity(words), Some(159 << 29));
        assert_eq!(gpu_capacity("GPU 0 has a total capacity of 512.00 MiB"), Some(512 << 20));
        assert_eq!(gpu_capacity("CUDA out of memory"), None);
        assert_eq!(gpu_capacity("has a total capacity of many GiB"), None);
    }

    #[test]
    fn causes_are_told_by_ending_and_last_words() {
        for (ending, words, oom, cause) in [
            (Ending::Code(2), "", false, Cause::Configuration),
            (Ending::Code(3), "lost its group during", false, Cause::Data),
            (Ending::Code(4), "17:00:00 ERROR the loss is NaN at epoch 1, step 1", false, Cause::NotFinite),
            (Ending::Code(4), "rank 0 lost its group during all-reduce: rank 1: …", false, Cause::Network),
            (Ending::Code(4), "cannot write x: No space left on device (os error 28)", false, Cause::Disk),
            (Ending::Code(4), "No space left on device: /dev/shm/torch_1", false, Cause::SharedMemory),
            (Ending::Code(101), "DefaultCPUAllocator: can't allocate memory", false, Cause::OutOfMemory),
            (Ending::Code(101), "Torch(\"CUDA out of memory. Tried to allocate 2.00 GiB.", false, Cause::OutOfMemory),
            (Ending::Code(101), "CUBLAS_STATUS_ALLOC_FAILED when calling", false, Cause::OutOfMemory),
            (Ending::Code(101), "index out of bounds", false, Cause::Unknown),
            (Ending::Signal(6), "memory allocation of 123 bytes failed", false, Cause::OutOfMemory),
            (Ending::Signal(6), "", false, Cause::Killed(6)),
            (Ending::Signal(7), "", false, Cause::SharedMemory),
            (Ending::Signal(9), "", true, Cause::OutOfMemory),
            (Ending::Signal(9), "memory allocation of 123 bytes failed", false, Cause::Killed(9)),
            (Ending::Signal(11), "", true, Cause::Killed(11)),
            (Ending::Hung(900), "the loss is NaN", false, Cause::Hung),
        ] {
            assert_eq!(classify(ending, words, oom), cause, "{ending:?} {words}");
        }
    }
}
