//! The order of an epoch, and batches prepared ahead of their use.
//!
//! [`epoch_order`] decides who gets which sample when; [`Prefetcher`] makes things on threads and hands them out strictly in
//! order. What a batch contains is `batch`'s business, and depends on neither.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::config::DataSettings;

use super::batch::{Batch, BatchSource, ImageBatch};
use super::error::DataError;
use super::karpathy::CaptionData;
use super::random::Draw;
use super::region_store::RegionStore;

/// The samples of one process in one epoch.
///
/// One permutation of `0..samples` per seed and epoch is dealt out to the processes in turn; it is continued from its start
/// until all `world_size` shares are equally long, as PyTorch's DistributedSampler does.
pub fn epoch_order(samples: usize, seed: u64, epoch: u64, rank: usize, world_size: usize) -> Vec<usize> {
    let mut draw = Draw::new("order", &[seed, epoch]);
    let order = draw.choose((0..samples).collect(), samples);
    let share = samples.div_ceil(world_size.max(1));
    (0..share).map(|turn| order[(turn * world_size + rank) % samples]).collect()
}

/// `items` in batches of `batch_size`; the last may be smaller.
pub fn in_batches(items: &[usize], batch_size: usize) -> Vec<Vec<usize>> {
    items.chunks(batch_size.max(1)).map(<[usize]>::to_vec).collect()
}

/// The training batches of an epoch from the one numbered `first` on.
pub fn training_batches(
    source: BatchSource,
    epoch: u64,
    plan: Vec<Vec<usize>>,
    first: usize,
    settings: &DataSettings,
) -> Prefetcher<Batch> {
    let count = plan.len().saturating_sub(first);
    let make = move |index: usize| source.batch(epoch, &plan[first + index]);
    Prefetcher::new(count, settings.workers, settings.prefetch, make)
}

/// All samples of a source in order, `batch_size` at a time, with nothing masked.
pub fn unmasked_batches(source: BatchSource, batch_size: usize, settings: &DataSettings) -> Prefetcher<Batch> {
    let plan = in_batches(&(0..source.data.samples.len()).collect::<Vec<_>>(), batch_size);
    let count = plan.len();
    Prefetcher::new(count, settings.workers, settings.prefetch, move |index: usize| source.unmasked(&plan[index]))
}

/// The regions of all images of `data`, in order, `batch_size` at a time.
pub fn image_batches(
    data: &Arc<CaptionData>,
    store: &Arc<RegionStore>,
    batch_size: usize,
    settings: &DataSettings,
) -> Prefetcher<ImageBatch> {
    let (data, store) = (Arc::clone(data), Arc::clone(store));
    let plan = in_batches(&(0..data.images.len()).collect::<Vec<_>>(), batch_size);
    let count = plan.len();
    let make = move |index: usize| ImageBatch::read(&data, &store, &plan[index]);
    Prefetcher::new(count, settings.workers, settings.prefetch, make)
}

/// Makes `count` things on threads, at most `ahead` of them before they are asked for, and yields them in order.
///
/// An error is yielded in its place and is the last thing that comes; a panic of the maker is such an error. Dropping the
/// prefetcher stops the threads after what they are at.
#[derive(Debug)]
pub struct Prefetcher<T> {
    shared: Arc<Shared<T>>,
    threads: Vec<JoinHandle<()>>,
    count: usize,
    started: Instant,
    waited: Duration,
}

#[derive(Debug)]
struct Shared<T> {
    state: Mutex<State<T>>,
    /// Something was made, or a thread may start on something.
    changed: Condvar,
}

#[derive(Debug)]
struct State<T> {
    /// Next thing that no thread has begun.
    unclaimed: usize,
    /// Things handed out.
    delivered: usize,
    ready: BTreeMap<usize, Result<T, DataError>>,
    stopped: bool,
}

/// What a prefetcher has done so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoaderStats {
    /// Things handed out.
    pub delivered: usize,
    /// Things made and not yet handed out.
    pub ready: usize,
    /// Time that the consumer waited for things.
    pub waited: Duration,
    /// Time since the prefetcher was made.
    pub elapsed: Duration,
}

impl<T: Send + 'static> Prefetcher<T> {
    /// Starts `workers` threads that call `make(0)`, `make(1)`, … `make(count − 1)`.
    pub fn new<F>(count: usize, workers: usize, ahead: usize, make: F) -> Self
    where
        F: Fn(usize) -> Result<T, DataError> + Send + Sync + 'static,
    {
        let state = State { unclaimed: 0, delivered: 0, ready: BTreeMap::new(), stopped: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let (make, ahead) = (Arc::new(make), ahead.max(1));
        let start = |number: usize| {
            let (shared, make) = (Arc::clone(&shared), Arc::clone(&make));
            let thread = std::thread::Builder::new().name(format!("loader {number}"));
            thread.spawn(move || shared.work(count, ahead, make.as_ref()))
        };
        let mut threads = Vec::new();
        for number in 0..workers.max(1).min(count) {
            match start(number) {
                Ok(thread) => threads.push(thread),
                Err(error) if threads.is_empty() => {
                    let refused = DataError::Worker { index: 0, message: format!("no thread can be started: {error}") };
                    shared.lock().ready.insert(0, Err(refused));
                    break;
                }
                Err(error) => {
                    tracing::warn!("only {} of {workers} loader threads could be started: {error}", threads.len());
                    break;
                }
            }
        }
        Self { shared, threads, count, started: Instant::now(), waited: Duration::ZERO }
    }
}

impl<T> Prefetcher<T> {
    /// Share of the time since the start that the consumer spent waiting, 0 to 1.
    pub fn wait_share(&self) -> f64 {
        let elapsed = self.started.elapsed().as_secs_f64();
        if elapsed > 0.0 { (self.waited.as_secs_f64() / elapsed).min(1.0) } else { 0.0 }
    }

    /// Counters and times.
    pub fn stats(&self) -> LoaderStats {
        let state = self.shared.lock();
        LoaderStats {
            delivered: state.delivered,
            ready: state.ready.len(),
            waited: self.waited,
            elapsed: self.started.elapsed(),
        }
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State<T>>) -> MutexGuard<'a, State<T>> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    /// A thread's life: claim the next thing, make it, put it down, until all are made or the prefetcher stops.
    fn work(&self, count: usize, ahead: usize, make: &(dyn Fn(usize) -> Result<T, DataError> + Send + Sync)) {
        loop {
            let mut state = self.lock();
            while !state.stopped && state.unclaimed < count && state.unclaimed >= state.delivered + ahead {
                state = self.wait(state);
            }
            if state.stopped || state.unclaimed >= count {
                return;
            }
            let index = state.unclaimed;
            state.unclaimed += 1;
            drop(state);
            let made = catch_unwind(AssertUnwindSafe(|| make(index)))
                .unwrap_or_else(|panic| Err(DataError::Worker { index, message: panic_message(&*panic) }));
            let mut state = self.lock();
            if made.is_err() {
                // Nothing after this is ever handed out; what others are at before it still is.
                state.unclaimed = count;
            }
            state.ready.insert(index, made);
            drop(state);
            self.changed.notify_all();
        }
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panic without a message".into())
}

impl<T> Iterator for Prefetcher<T> {
    type Item = Result<T, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut state = self.shared.lock();
        if state.stopped || state.delivered >= self.count {
            return None;
        }
        let asked = Instant::now();
        let index = state.delivered;
        let item = loop {
            match state.ready.remove(&index) {
                Some(item) => break item,
                None => state = self.shared.wait(state),
            }
        };
        state.delivered += 1;
        state.stopped = item.is_err();
        drop(state);
        self.waited += asked.elapsed();
        self.shared.changed.notify_all();
        Some(item)
    }
}

impl<T> Drop for Prefetcher<T> {
    fn drop(&mut self) {
        self.shared.stop();
        for thread in self.threads.drain(..) {
            let _ = thread.join(); // a maker's panic was caught; there is nothing left to report
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use proptest::prelude::proptest;

    use super::{Prefetcher, epoch_order, in_batches};
    use crate::data::DataError;

    fn failure(index: usize) -> DataError {
        DataError::Worker { index, message: "on purpose".into() }
    }

    #[test]
    fn order_does_not_depend_on_threads_or_prefetch() {
        for (workers, ahead) in [(1, 1), (2, 1), (3, 8), (8, 2), (8, 64)] {
            let items: Vec<usize> = Prefetcher::new(200, workers, ahead, |i| Ok(i * i)).map(Result::unwrap).collect();
            assert_eq!(items, (0..200).map(|i| i * i).collect::<Vec<_>>(), "{workers} workers, {ahead} ahead");
        }
    }

    #[test]
    fn at_most_the_given_number_is_made_ahead() {
        let made = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&made);
        let mut items = Prefetcher::new(100, 4, 3, move |i| {
            counter.fetch_add(1, Ordering::SeqCst);
            Ok(i)
        });
        for taken in 0..100 {
            assert!(made.load(Ordering::SeqCst) <= taken + 3);
            assert_eq!(items.next().map(Result::unwrap), Some(taken));
        }
        assert!(items.next().is_none());
        assert_eq!(made.load(Ordering::SeqCst), 100);
        assert_eq!(items.stats().delivered, 100);
        assert!((0.0..=1.0).contains(&items.wait_share()));
    }

    #[test]
    fn an_error_comes_in_its_place_and_ends_it() {
        for workers in [1, 2, 7] {
            let make = |i| if i == 5 || i == 6 { Err(failure(i)) } else { Ok(i) };
            let items: Vec<Result<usize, String>> =
                Prefetcher::new(50, workers, 16, make).map(|item| item.map_err(|e| e.to_string())).collect();
            assert_eq!(items.len(), 6);
            assert!(items[..5].iter().enumerate().all(|(i, item)| *item == Ok(i)));
            assert_eq!(items[5], Err(failure(5).to_string()));
        }
    }

    #[test]
    fn a_panic_is_an_error() {
        let mut items = Prefetcher::new(3, 2, 4, |i| if i == 1 { panic!("boom {i}") } else { Ok(i) });
        assert_eq!(items.next().map(Result::unwrap), Some(0));
        let message = items.next().map(|item| item.unwrap_err().to_string());
        assert_eq!(
            message.as_deref(),
            Some(
                "a loader thread broke down at batch 1: boom 1\n  help: this is a defect of vlp; please report it with the lines above"
            )
        );
        assert!(items.next().is_none());
    }

    #[test]
    fn dropping_it_joins_the_threads() {
        let alive = Arc::new(());
        for taken in [0, 1, 5] {
            let shared = Arc::clone(&alive);
            let items = Prefetcher::new(1_000_000, 4, 2, move |i| {
                let _keep = &shared;
                Ok(i)
            });
            let mut items = items;
            assert_eq!(items.by_ref().take(taken).count(), taken);
            drop(items);
            assert_eq!(Arc::strong_count(&alive), 1, "a thread is left");
        }
    }

    #[test]
    fn nothing_to_do_is_no_hang() {
        assert_eq!(Prefetcher::new(0, 2, 2, Ok).count(), 0);
        assert!(epoch_order(0, 1, 1, 0, 4).is_empty());
    }

    #[test]
    fn the_order_is_frozen_and_differs_by_epoch() {
        let first = epoch_order(8, 1, 1, 0, 1);
        assert_eq!(first, [1, 6, 0, 2, 4, 7, 5, 3]);
        assert_ne!(epoch_order(8, 1, 2, 0, 1), first);
        assert_eq!(in_batches(&[5, 6, 7], 2), [vec![5, 6], vec![7]]);
    }

    proptest! {
        #[test]
        fn shares_are_equally_long_and_cover_everything(samples in 1usize..60, world_size in 1usize..9, epoch in 0u64..5) {
            let shares: Vec<Vec<usize>> = (0..world_size).map(|rank| epoch_order(samples, 3, epoch, rank, world_size)).collect();
            proptest::prop_assert!(shares.iter().all(|share| share.len() == samples.div_ceil(world_size)));
            let all: BTreeSet<usize> = shares.iter().flatten().copied().collect();
            proptest::prop_assert_eq!(all, (0..samples).collect::<BTreeSet<_>>());
            // No sample comes more often than the wrapping needs.
            let total = samples.div_ceil(world_size) * world_size;
            for sample in 0..samples {
                let times = shares.iter().flatten().filter(|s| **s == sample).count();
                proptest::prop_assert!((total / samples..=total.div_ceil(samples)).contains(&times));
            }
        }
    }
}
