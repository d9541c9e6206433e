//! Named vectors as few large buckets: what a transport does well is long messages.
//!
//! The layout follows from names and lengths alone, so that it is the same on every rank and in every run; a rank with
//! another layout is an error, not a wrong sum.

use std::collections::BTreeMap;

use burn::tensor::Tensor;

use super::collective::{Collective, CollectiveError, verify_equal};
use super::flat::Flat;

/// Floats of a full bucket: 25 MB, the size that PyTorch's DistributedDataParallel uses.
pub const BUCKET_FLOATS: usize = 25 * 1024 * 1024 / 4;

/// What the ranks compare before the values of a bucket of gradients are exchanged.
const GRADIENTS: &str = "the names and sizes of the gradients";

/// Vectors of some names as one, ready for the exchange.
#[derive(Debug)]
pub struct Bucket {
    /// Names and lengths, in the order of the values.
    members: Vec<(String, usize)>,
    values: Flat,
}

impl Bucket {
    /// Vectors without graph, of one device, in as many buckets as it takes. A GPU is only told to fill them.
    pub fn pack(vectors: BTreeMap<String, Tensor<1>>) -> Vec<Self> {
        let sizes: Vec<usize> = vectors.values().map(|vector| vector.dims()[0]).collect();
        let mut vectors = vectors.into_iter();
        let buckets = layout(&sizes, BUCKET_FLOATS).into_iter();
        buckets
            .map(|range| {
                let (names, own): (Vec<String>, Vec<_>) = vectors.by_ref().take(range.len()).unzip();
                let members = names.into_iter().zip(sizes[range].iter().copied()).collect();
                Self { members, values: Flat::new(Tensor::cat(own, 0)) }
            })
            .collect()
    }

    /// The mean of each vector over all ranks: where the vectors were, or in host memory ([`Collective::all_reduce_mean_flat`]).
    ///
    /// # Errors
    /// A lost peer; a rank with other names or lengths.
    pub fn all_reduce_mean(
        self,
        group: &mut dyn Collective,
        bf16: bool,
    ) -> Result<BTreeMap<String, Tensor<1>>, CollectiveError> {
        let layout = layout_hash(self.members.iter().map(|(name, length)| (name.as_str(), *length)));
        verify_equal(group, GRADIENTS, &layout)?;
        let mean = group.all_reduce_mean_flat(self.values, bf16)?;
        let mut start = 0;
        let split = self.members.into_iter().map(|(name, length)| {
            start += length;
            (name, mean.clone().slice(start - length..start))
        });
        Ok(split.collect())
    }
}

/// Behind the last bucket of a step: an error on every rank unless all have exchanged `count` of them.
///
/// # Errors
/// A lost peer; a rank that has more buckets, or fewer.
pub fn verify_end(group: &mut dyn Collective, count: usize) -> Result<(), CollectiveError> {
    verify_equal(group, GRADIENTS, &format!("buckets: {count}"))
}

/// Replaces each vector by that of rank 0.
///
/// # Errors
/// A lost peer; a rank with other names or lengths.
pub fn broadcast_all(
    group: &mut dyn Collective,
    vectors: &mut BTreeMap<String, Vec<f32>>,
) -> Result<(), CollectiveError> {
    if group.world_size() == 1 {
        return Ok(());
    }
    let layout_of_all = layout_hash(vectors.iter().map(|(name, values)| (name.as_str(), values.len())));
    verify_equal(group, "the names and sizes of the parameters", &layout_of_all)?;
    let mut members: Vec<&mut Vec<f32>> = vectors.values_mut().collect();
    let sizes: Vec<usize> = members.iter().map(|m| m.len()).collect();
    let mut flat = Vec::new();
    for range in layout(&sizes, BUCKET_FLOATS) {
        let members = &mut members[range];
        flat.clear();
        members.iter().for_each(|m| flat.extend_from_slice(m));
        group.broadcast(&mut flat, 0)?;
        let mut rest = &flat[..];
        for member in members {
            let (own, others) = rest.split_at(member.len());
            member.copy_from_slice(own);
            rest = others;
        }
    }
    Ok(())
}

/// Consecutive members whose sizes add up to `limit` at most; one that is larger has a bucket of its own.
fn layout(sizes: &[usize], limit: usize) -> Vec<std::ops::Range<usize>> {
    let mut buckets = Vec::new();
    let (mut start, mut filled) = (0, 0);
    for (index, size) in sizes.iter().enumerate() {
        if filled + size > limit && index > start {
            buckets.push(start..index);
            (start, filled) = (index, 0);
        }
        filled += size;
    }
    if start < sizes.len() {
        buckets.push(start..sizes.len());
    }
    buckets
}

/// FNV-1a over names and lengths, and their number: enough to tell mistakes apart.
fn layout_hash<'a>(vectors: impl IntoIterator<Item = (&'a str, usize)>) -> String {
    let (mut hash, mut count) = (0xcbf2_9ce4_8422_2325u64, 0);
    let mut add = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    };
    for (name, length) in vectors {
        add(name.as_bytes());
        add(&[0]);
        add(&length.to_le_bytes());
        count += 1;
    }
    format!("{hash:016x} of {count} vectors")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_filled_in_order() {
        assert_eq!(layout(&[4, 4, 4, 20, 1, 1], 8), [0..2, 2..3, 3..4, 4..6]);
        assert_eq!(layout(&[0, 0, 9], 8), [0..2, 2..3]);
        assert!(layout(&[], 8).is_empty());
    }

    #[test]
    fn names_and_lengths_make_the_layout() {
        let of = |entries: [(&'static str, usize); 2]| layout_hash(entries);
        assert_eq!(of([("a", 3), ("b", 4)]), of([("a", 3), ("b", 4)]));
        assert_ne!(of([("a", 3), ("b", 4)]), of([("a", 4), ("b", 3)]));
        assert_ne!(of([("a", 3), ("b", 4)]), of([("a", 3), ("c", 4)]));
    }
}
