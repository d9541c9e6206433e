//! The threads on which loops over values in host memory run: those of the engine whose matrix products they stand between.
//!
//! LibTorch's products run on OpenMP's threads, which go on spinning for a while when a product is done, and take the processors from any
//! other threads. So loops between its products run on the same: OpenMP's entry point is looked up in the process, where LibTorch has
//! brought it along. `flex` computes its products with rayon.

use std::any::Any;
use std::ffi::{c_uint, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use burn::tensor::Device;
use rayon::prelude::*;

use super::device::is_libtorch_cpu;

/// A set of threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pool {
    /// Rayon's.
    Rayon,
    /// OpenMP's; rayon's in a process without.
    OpenMp,
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

fn on_team(parallel: Parallel, work: Work) {
    // SAFETY: `enter` reads `work` as what it is, and nobody does once this call is back. It does not unwind: see `Pool::each`.
    unsafe { parallel(enter, (&raw const work).cast_mut().cast(), 0, 0) }
}

impl Pool {
    /// The threads of the products on `device`.
    pub fn of(device: &Device) -> Self {
        if is_libtorch_cpu(device) { Self::OpenMp } else { Self::Rayon }
    }

    /// `work` on each of `pieces`, by all threads.
    pub fn each<T: Send>(self, pieces: impl Iterator<Item = T>, work: impl Fn(T) + Sync + Send) {
        let pieces: Vec<T> = pieces.collect();
        let parallel = match self {
            Self::Rayon => None,
            Self::OpenMp => openmp(),
        };
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
    pub fn gather<T: Send, R: Send>(
        self,
        pieces: impl ExactSizeIterator<Item = T>,
        work: impl Fn(T) -> R + Sync + Send,
    ) -> Vec<R> {
        let mut results: Vec<Option<R>> = (0..pieces.len()).map(|_| None).collect();
        self.each(pieces.zip(&mut results), |(piece, result)| *result = Some(work(piece)));
        results.into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_worked_on_once_and_results_keep_their_order() {
        for pool in [Pool::Rayon, Pool::OpenMp] {
            for count in [0, 1, 2, 1000] {
                let mut values = vec![1u32; count];
                pool.each(values.iter_mut().enumerate(), |(i, value)| *value += i as u32);
                let expected: Vec<u32> = (0..count as u32).map(|i| i + 1).collect();
                assert_eq!(values, expected, "{pool:?}");
                assert_eq!(pool.gather(values.into_iter(), |value| value * 2), pool_doubles(&expected), "{pool:?}");
            }
        }
    }

    fn pool_doubles(values: &[u32]) -> Vec<u32> {
        values.iter().map(|value| value * 2).collect()
    }

    #[test]
    fn a_panic_reaches_the_caller_when_all_have_done() {
        for pool in [Pool::Rayon, Pool::OpenMp] {
            let done = AtomicUsize::new(0);
            let caught = catch_unwind(AssertUnwindSafe(|| {
                pool.each(0..100, |i| {
                    assert!(i != 30, "thirty");
                    done.fetch_add(1, Ordering::Relaxed);
                });
            }));
            assert_eq!(caught.unwrap_err().downcast_ref::<&str>(), Some(&"thirty"), "{pool:?}");
            if pool == Pool::OpenMp && openmp().is_some() {
                assert_eq!(done.into_inner(), 99);
            }
        }
    }

    #[test]
    fn openmp_is_there_with_libtorch() {
        #[cfg(feature = "tch")]
        assert!(openmp().is_some());
    }
}
