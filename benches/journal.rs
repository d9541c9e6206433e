//! What the journal costs at 1,000 points per second, in processor time: `cargo bench --bench journal`.
//!
//! Plain timings, like the other benchmarks. Fails when it takes more than 1 % of a core.

use std::time::{Duration, Instant};

use vlp::track::{Entry, Journal, LOSS};

/// Points per second.
const RATE: u64 = 1000;

/// Share of a core at most.
const LIMIT: f64 = 0.01;

fn main() {
    // `cargo test --benches` starts benchmarks too; then a moment shows that it runs.
    let measured = std::env::args().any(|arg| arg == "--bench");
    let seconds = if measured { 10 } else { 1 };
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = folder.join(format!("journal-{}.jsonl", std::process::id()));
    let journal = Journal::open(&path).unwrap();
    let (started, before) = (Instant::now(), processor_time());
    for second in 0..seconds {
        for point in 0..RATE {
            let step = second * RATE + point;
            journal.append(&Entry::metric(LOSS, 1.0 / (step + 1) as f64, step, second + 1)).unwrap();
        }
        // The next second's points; sleeping costs nothing.
        let next = started + Duration::from_secs(second + 1);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    let (wall, used) = (started.elapsed().as_secs_f64(), processor_time() - before);
    let size = std::fs::metadata(&path).unwrap().len();
    std::fs::remove_file(&path).unwrap();
    let share = used / wall;
    println!(
        "{} points in {wall:.1} s, {size} bytes: {:.2} us of processor time a point, {:.2} % of a core",
        seconds * RATE,
        used / (seconds * RATE) as f64 * 1e6,
        share * 100.0
    );
    assert!(!measured || share < LIMIT, "more than {} % of a core", LIMIT * 100.0);
}

/// Processor time of this process, user and system, in seconds.
fn processor_time() -> f64 {
    // SAFETY: a zeroed timespec is valid, and the call only writes to it.
    let time = unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        assert_eq!(libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time), 0);
        time
    };
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
