//! The threads on which loops over values in host memory run: those of the engine whose matrix products they stand between.
//!
//! LibTorch's products run on OpenMP's threads, which go on spinning for a while when a product is done, and take the processors from any
//! other threads. So loops between its products run on the same: OpenMP's entry point is looked up in the process, where LibTorch has
//! brought it along. `flex` computes its products with rayon.

use std::any::Any;
use std::ffi::{c_uint, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use rayon::prelude::*;

/// Whether the engine that was opened last computes its products on OpenMP's threads.
static OPENMP: AtomicBool = AtomicBool::new(false);

/// From now on loops run on OpenMP's threads, or on rayon's. The results are the same.
pub(super) fn run_on_openmp(openmp: bool) {
    OPENMP.store(openmp, Ordering::Relaxed);
}

/// `GOMP_parallel` of GNU's and LLVM's OpenMP: calls the function with the data on each thread of a team (0: as many as products have),
/// and comes back when all have done.
type Parallel = unsafe extern "C" fn(extern "C" fn(*mut c_void), *mut c_void, c_uint, c_uint);

fn openmp() -> Option<Parallel> {
    static FOUND: OnceLock<Option<Parallel>> = OnceLock::new();
    *FOUND.get_or_init(|| {
        // SAFETY: looks a name up.
        let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"GOMP_parallel".as_ptr()) };
        // SAFETY: the function of this name has this type; a null pointer becomes none.
        unsafe { std::mem::transmute::<*mut c_void, Option<Parallel>>(found) }
    })
}

/// What each thread of a team does.
type Work<'a> = &'a (dyn Fn() + Sync);

extern "C" fn enter(data: *mut c_void) {
    // SAFETY: `on_team` passes a pointer to work that lives until the team has done.
    let work = unsafe { &*data.cast::<Work>() };
    work();
}

/// Work that does not unwind, on each thread of a team.
fn on_team(parallel: Parallel, work: Work) {
    // SAFETY: `enter` reads `work` as what it is, and nobody does once this call is back.
    unsafe { parallel(enter, (&raw const work).cast_mut().cast(), 0, 0) }
}

/// `work` on each of `pieces`, by all threads. A panic of `work` goes on in the caller, at the latest when every piece is done.
pub fn each<T: Send>(pieces: impl Iterator<Item = T>, work: impl Fn(T) + Sync + Send) {
    let mut pieces: Vec<T> = pieces.collect();
    if pieces.len() < 2 {
        pieces.pop().into_iter().for_each(work);
        return;
    }
    each_on(OPENMP.load(Ordering::Relaxed).then(openmp).flatten(), pieces, work);
}

fn each_on<T: Send>(parallel: Option<Parallel>, pieces: Vec<T>, work: impl Fn(T) + Sync + Send) {
    let Some(parallel) = parallel else {
        pieces.into_par_iter().for_each(work);
        return;
    };
    let pieces: Vec<Mutex<Option<T>>> = pieces.into_iter().map(|piece| Mutex::new(Some(piece))).collect();
    let next = AtomicUsize::new(0);
    let panic: Mutex<Option<Box<dyn Any + Send>>> = Mutex::new(None);
    on_team(parallel, &|| {
        while let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
            let piece = piece.lock().unwrap_or_else(PoisonError::into_inner).take();
            let done = catch_unwind(AssertUnwindSafe(|| piece.into_iter().for_each(&work)));
            if let Err(payload) = done {
                panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(payload);
            }
        }
    });
    if let Some(payload) = panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
        resume_unwind(payload);
    }
}

/// What `work` makes of each of `pieces`, in their order.
pub fn map<T: Send, R: Send>(pieces: impl ExactSizeIterator<Item = T>, work: impl Fn(T) -> R + Sync + Send) -> Vec<R> {
    let mut results: Vec<Option<R>> = (0..pieces.len()).map(|_| None).collect();
    each(pieces.zip(&mut results), |(piece, result)| *result = Some(work(piece)));
    results.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_worked_on_once() {
        for parallel in [None, openmp()] {
            for count in [0, 1, 2, 1000] {
                let mut values = vec![1u32; count];
                each_on(parallel, values.iter_mut().enumerate().collect(), |(i, value)| *value += i as u32);
                let expected: Vec<u32> = (0..count as u32).map(|i| i + 1).collect();
                assert_eq!(values, expected, "{parallel:?}");
            }
        }
    }

    #[test]
    fn results_keep_their_order() {
        let expected: Vec<u32> = (0..1000).map(|value| value * 2).collect();
        assert_eq!(map(0..1000, |value| value * 2), expected);
    }

    #[test]
    fn a_panic_reaches_the_caller_when_all_have_done() {
        for parallel in [None, openmp()] {
            let done = AtomicUsize::new(0);
            let caught = catch_unwind(AssertUnwindSafe(|| {
                each_on(parallel, (0..100).collect(), |i| {
                    assert!(i != 30, "thirty");
                    done.fetch_add(1, Ordering::Relaxed);
                });
            }));
            assert_eq!(caught.unwrap_err().downcast_ref::<&str>(), Some(&"thirty"), "{parallel:?}");
            if parallel.is_some() {
                assert_eq!(done.into_inner(), 99);
            }
        }
    }

    #[test]
    fn openmp_is_there_with_libtorch() {
        assert_eq!(openmp().is_some(), cfg!(feature = "tch"));
    }
}
