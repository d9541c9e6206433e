//! What the machine can do at most, and the memory that the process took.

use std::time::Instant;

use burn::tensor::{Device, Distribution, Tensor};
use rayon::prelude::*;

use super::Part;
use crate::model::host_values;

/// Rows, inner size and columns of the matrix product: the feed-forward layer of a training step.
const PRODUCT: [usize; 3] = [1856, 768, 3072];

/// Numbers that are copied: 128 MB, more than caches hold.
const COPIED: usize = 32 << 20;

/// How often each is tried; the best counts, it is a limit.
const TRIES: usize = 7;

/// The best that was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Matrix products on the device, in 10⁹ operations per second.
    pub matrix_gflops: f64,
    /// Copies in memory by all threads, in 10⁹ bytes per second; what is read and what is written both count.
    pub copy_gb_per_s: f64,
    /// The same by one thread.
    pub copy_gb_per_s_one_thread: f64,
}

/// The peak of a part.
#[derive(Debug, Clone, PartialEq)]
pub struct Memory {
    /// The part.
    pub part: Part,
    /// Which work of it, where its works are measured apart.
    pub work: String,
    /// Samples or images per batch.
    pub batch: Option<usize>,
    /// Beams per image.
    pub beams: Option<usize>,
    /// All that the process had before, in MiB: the program, and what of other parts the system did not take back.
    pub start_mib: u64,
    /// All that the process had at most, in MiB.
    pub mib: u64,
    /// What it is called in the reference's timings.
    pub reference: Option<String>,
}

impl Memory {
    /// Of what begins now; its peak is still to come.
    pub fn start(part: Part, work: &str, batch: Option<usize>, beams: Option<usize>) -> Self {
        forget_peak();
        let start_mib = status_mib("VmRSS:").unwrap_or(0);
        Self { part, work: work.to_owned(), batch, beams, start_mib, mib: start_mib, reference: None }
    }
}

/// Measures the machine.
pub fn rates(device: &Device) -> Rates {
    let [rows, inner, columns] = PRODUCT;
    let random = |shape| Tensor::<2>::random(shape, Distribution::Default, device);
    let (a, b) = (random([rows, inner]), random([inner, columns]));
    let product = || {
        // One number is read back, so that the product is finished.
        let corner = a.clone().matmul(b.clone()).slice([0..1, 0..1]);
        std::hint::black_box(host_values(corner));
    };
    let (from, mut to) = (vec![1f32; COPIED], vec![0f32; COPIED]);
    let one = best(|| {
        to.copy_from_slice(&from);
        std::hint::black_box(&to);
    });
    let all = best(|| {
        let chunk = COPIED.div_ceil(4 * rayon::current_num_threads());
        to.par_chunks_mut(chunk).zip(from.par_chunks(chunk)).for_each(|(to, from)| to.copy_from_slice(from));
        std::hint::black_box(&to);
    });
    Rates {
        matrix_gflops: 2e-9 * (rows * inner * columns) as f64 / best(product),
        copy_gb_per_s: 8e-9 * COPIED as f64 / all,
        copy_gb_per_s_one_thread: 8e-9 * COPIED as f64 / one,
    }
}

fn best(mut work: impl FnMut()) -> f64 {
    let times = (0..TRIES).map(|_| {
        let started = Instant::now();
        work();
        started.elapsed().as_secs_f64()
    });
    times.fold(f64::INFINITY, f64::min)
}

/// Starts to look for a peak: free memory goes back, and Linux forgets the peak before; elsewhere it counts from the start of the process.
fn forget_peak() {
    // SAFETY: the call has no conditions.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    unsafe {
        libc::malloc_trim(0);
    }
    if let Err(error) = std::fs::write("/proc/self/clear_refs", "5") {
        tracing::debug!("the peak of memory counts from the start of the process: {error}");
    }
}

/// The peak of resident memory; none where Linux does not tell.
pub fn peak_mib() -> Option<u64> {
    status_mib("VmHWM:")
}

fn status_mib(key: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib / 1024)
}
