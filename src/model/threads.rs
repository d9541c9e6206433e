//! The threads on which loops over values in host memory run.

use burn::tensor::Device;
use rayon::prelude::*;

/// A set of threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pool {
    /// Rayon's.
    Rayon,
}

impl Pool {
    /// The threads for values on `device`.
    pub fn of(_device: &Device) -> Self {
        Self::Rayon
    }

    /// `work` on each of `pieces`, by all threads.
    pub fn each<T: Send>(self, pieces: impl Iterator<Item = T>, work: impl Fn(T) + Sync + Send) {
        pieces.collect::<Vec<T>>().into_par_iter().for_each(work);
    }

    /// What `work` makes of each of `pieces`, in their order.
    pub fn gather<T: Send, R: Send>(
        self,
        pieces: impl ExactSizeIterator<Item = T>,
        work: impl Fn(T) -> R + Sync + Send,
    ) -> Vec<R> {
        pieces.collect::<Vec<T>>().into_par_iter().map(work).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_worked_on_once_and_results_keep_their_order() {
        for count in [0, 1, 2, 1000] {
            let mut values = vec![1u32; count];
            Pool::Rayon.each(values.iter_mut().enumerate(), |(i, value)| *value += i as u32);
            let expected: Vec<u32> = (0..count as u32).map(|i| i + 1).collect();
            assert_eq!(values, expected);
            let doubles: Vec<u32> = expected.iter().map(|value| value * 2).collect();
            assert_eq!(Pool::Rayon.gather(values.into_iter(), |value| value * 2), doubles);
        }
    }
}
