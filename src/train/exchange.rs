//! The mean gradients of a step over all ranks, exchanged while the backward pass goes on.
//!
//! The gradients of an encoder block are there when the backward pass leaves it (`model::layer_gradients`). They go into buckets, and to a
//! thread that lives as long as the backward pass, has the group for that time, and alone waits for the other ranks. It takes the blocks from the last to
//! the first, whatever order they come in, then all other parameters, so that all ranks exchange the same buckets in the same order.
//! The batches before the last of a step are not exchanged; what they found is added before.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{Device, Tensor};

use super::device_adam::{DeviceGradients, accumulate, device_gradients};
use crate::distributed::{Bucket, Collective, CollectiveError, verify_end};
use crate::model::layer_gradients::Watch;
use crate::model::{Vlp, device};

/// Place of what is exchanged at the end, below that of the first block.
const REST: usize = 0;

/// What one place has: a block its number from 1 on, [`REST`] the parameters outside of the blocks.
type Message = (usize, Vec<Bucket>);

/// The exchange of one step; made before the forward pass of its last batch.
#[derive(Debug)]
pub struct Exchange {
    /// Where the model hands out gradients early.
    watch: Option<Watch>,
    /// The gradients of the batches before.
    before: Arc<Mutex<DeviceGradients>>,
    sender: Sender<Message>,
    receiver: Receiver<Message>,
}

impl Exchange {
    /// Of a step whose earlier batches found `before`.
    pub fn begin(model: &Vlp, before: DeviceGradients) -> Self {
        let (sender, receiver) = channel();
        let before = Arc::new(Mutex::new(before));
        let watch = model.bert.encoder.gradients.as_ref().map(|gradients| {
            let (sender, before) = (sender.clone(), Arc::clone(&before));
            gradients.watch(move |block, found| {
                let buckets = Bucket::pack(with_those_before(&before, found));
                // Where nobody listens any more the exchange has failed, and its error comes out at the end.
                let _ = sender.send((block + 1, buckets));
            })
        });
        Self { watch, before, sender, receiver }
    }

    /// The backward pass of `loss`, and the means of all gradients. `bf16`: the exchange rounds to bfloat16. Gradients end on `home`, or in host
    /// memory for none.
    ///
    /// # Errors
    /// A lost peer; a rank with gradients of other parameters.
    pub fn backward(
        self,
        model: &Vlp,
        loss: Tensor<1>,
        group: &mut dyn Collective,
        bf16: bool,
        home: Option<&Device>,
    ) -> Result<DeviceGradients, CollectiveError> {
        let Self { watch, before, sender, receiver } = self;
        let blocks = model.bert.encoder.layer.len();
        std::thread::scope(|scope| {
            let means = scope.spawn(move || exchanged(group, &receiver, blocks, bf16, home));
            // Both are let go when the backward pass panics, and the thread ends.
            let (watch, sender) = (watch, sender);
            let mut found = loss.backward();
            let mut rest = watch.map(Watch::end).unwrap_or_default();
            accumulate(&mut rest, device_gradients(model, &mut found));
            let mut rest = with_those_before(&before, rest);
            rest.append(&mut before.lock().unwrap_or_else(PoisonError::into_inner));
            let _ = sender.send((REST, Bucket::pack(rest)));
            drop(sender);
            means.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

/// `found`, added to what `before` has of the same parameters, which is taken out of it.
fn with_those_before(before: &Mutex<DeviceGradients>, found: DeviceGradients) -> DeviceGradients {
    let mut before = before.lock().unwrap_or_else(PoisonError::into_inner);
    let mut sum: DeviceGradients = found.keys().filter_map(|name| Some((name.clone(), before.remove(name)?))).collect();
    accumulate(&mut sum, found);
    sum
}

/// The means of what comes until the rest has come.
fn exchanged(
    group: &mut dyn Collective,
    incoming: &Receiver<Message>,
    blocks: usize,
    bf16: bool,
    home: Option<&Device>,
) -> Result<DeviceGradients, CollectiveError> {
    let (mut means, mut count, mut early) = (DeviceGradients::new(), 0, 0);
    let mut exchange = |buckets: Vec<Bucket>| {
        count += buckets.len();
        for bucket in buckets {
            let mean = bucket.all_reduce_mean(group, bf16)?;
            means.extend(mean.into_iter().map(|(name, values)| (name, at_home(values, home))));
        }
        Ok::<_, CollectiveError>(())
    };
    // Blocks that came before one behind them, which has to go first.
    let mut waiting = BTreeMap::new();
    let mut next = blocks;
    for (place, buckets) in incoming {
        waiting.insert(place, buckets);
        if place == REST {
            // A block that is missing by now has no gradients, or had them at the end.
            waiting.into_values().rev().try_for_each(&mut exchange)?;
            verify_end(group, count)?;
            tracing::debug!(buckets = count, early, "gradients exchanged");
            return Ok(means);
        }
        while let Some(buckets) = waiting.remove(&next) {
            early += buckets.len();
            exchange(buckets)?;
            next -= 1;
        }
    }
    // The backward pass has failed.
    Ok(means)
}

/// `values` on `home`, or in host memory for none.
fn at_home(values: Tensor<1>, home: Option<&Device>) -> Tensor<1> {
    let lies = values.device();
    match home {
        Some(home) if lies != *home => Tensor::from_data(values.into_data(), home),
        None if device::is_gpu(&lies) => Tensor::from_data(values.into_data(), &Device::flex()),
        _ => values,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distributed::{Flat, Single};
    use crate::model::host_values;

    /// A group of one that notes the lengths of what it exchanges.
    struct Noted(Vec<usize>);

    impl Collective for Noted {
        fn rank(&self) -> usize {
            0
        }

        fn world_size(&self) -> usize {
            1
        }

        fn all_reduce_mean(&mut self, values: &mut [f32]) -> Result<(), CollectiveError> {
            Single.all_reduce_mean(values)
        }

        fn all_reduce_mean_flat(&mut self, values: Flat, bf16: bool) -> Result<Tensor<1>, CollectiveError> {
            let mean = Single.all_reduce_mean_flat(values, bf16)?;
            self.0.push(mean.dims()[0]);
            Ok(mean)
        }

        fn broadcast(&mut self, values: &mut [f32], root: usize) -> Result<(), CollectiveError> {
            Single.broadcast(values, root)
        }

        fn gather_bytes(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
            Single.gather_bytes(bytes)
        }

        fn wait_for_rank_0(&mut self) -> Result<(), CollectiveError> {
            Single.wait_for_rank_0()
        }
    }

    /// The order in which places of as many floats as their number, and one more, are exchanged when they come in this one.
    fn order(places: &[usize]) -> Vec<usize> {
        let (sender, receiver) = channel();
        for place in places {
            let values = Tensor::ones([place + 1], &Device::flex());
            sender.send((*place, Bucket::pack(BTreeMap::from([(place.to_string(), values)])))).unwrap();
        }
        drop(sender);
        let mut group = Noted(Vec::new());
        let means = exchanged(&mut group, &receiver, 4, false, None).unwrap();
        assert!(
            means.iter().all(|(name, mean)| host_values(mean.clone()) == vec![1.0; name.parse::<usize>().unwrap() + 1])
        );
        assert_eq!(means.len(), group.0.len());
        group.0
    }

    #[test]
    fn blocks_go_from_the_last_to_the_first_and_the_rest_behind_them() {
        assert_eq!(order(&[4, 3, 2, 1, REST]), [5, 4, 3, 2, 1]);
        assert_eq!(order(&[2, 4, 1, 3, REST]), [5, 4, 3, 2, 1]);
        // The third has no gradients of its own: those below it wait for the end.
        assert_eq!(order(&[4, 2, 1, REST]), [5, 3, 2, 1]);
        assert_eq!(order(&[REST]), [1]);
        // The backward pass ended early.
        assert_eq!(order(&[4, 2]), [5]);
    }
}
