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
}

/// The peak of a part.
#[derive(Debug, Clone, PartialEq)]
pub struct Memory {
    /// The part.
    pub part: Part,
    /// In MiB, all of the process.
    pub mib: u64,
    /// What it is called in the reference's timings.
    pub reference: Option<String>,
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
    let copy = || {
        let chunk = COPIED.div_ceil(4 * rayon::current_num_threads());
        to.par_chunks_mut(chunk).zip(from.par_chunks(chunk)).for_each(|(to, from)| to.copy_from_slice(from));
        std::hint::black_box(&to);
    };
    Rates {
        matrix_gflops: 2e-9 * (rows * inner * columns) as f64 / best(product),
        copy_gb_per_s: 8e-9 * COPIED as f64 / best(copy),
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

/// Starts to look for a peak: Linux forgets the one before, elsewhere it counts from the start of the process.
pub fn forget_peak() {
    if let Err(error) = std::fs::write("/proc/self/clear_refs", "5") {
        tracing::debug!("the peak of memory counts from the start of the process: {error}");
    }
}

/// The peak of resident memory; none where Linux does not tell.
pub fn peak_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib / 1024)
}
