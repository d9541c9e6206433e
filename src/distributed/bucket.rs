//! Named vectors as few large buckets: what a transport does well is long messages.
//!
//! The layout follows from names and lengths alone, so that it is the same on every rank and in every run; a rank with
//! another layout is an error, not a wrong sum.

use std::collections::BTreeMap;

use super::collective::{Collective, CollectiveError, verify_equal};

/// Floats of a full bucket: 25 MB, the size that PyTorch's DistributedDataParallel uses.
pub const BUCKET_FLOATS: usize = 25 * 1024 * 1024 / 4;

/// Replaces each vector by its mean over all ranks; `bf16`: the exchange rounds to bfloat16.
///
/// # Errors
/// A lost peer; a rank with other names or lengths.
pub fn all_reduce_mean_of(
    group: &mut dyn Collective,
    vectors: &mut BTreeMap<String, Vec<f32>>,
    bf16: bool,
) -> Result<(), CollectiveError> {
    in_buckets(group, "the names and sizes of the gradients", vectors, &|group, bucket| match bf16 {
        true => group.all_reduce_mean_bf16(bucket),
        false => group.all_reduce_mean(bucket),
    })
}

/// Replaces each vector by that of rank 0.
///
/// # Errors
/// A lost peer; a rank with other names or lengths.
pub fn broadcast_all(
    group: &mut dyn Collective,
    vectors: &mut BTreeMap<String, Vec<f32>>,
) -> Result<(), CollectiveError> {
    in_buckets(group, "the names and sizes of the parameters", vectors, &|group, bucket| group.broadcast(bucket, 0))
}

/// What is done with one bucket.
type Exchange<'a> = &'a dyn Fn(&mut dyn Collective, &mut [f32]) -> Result<(), CollectiveError>;

fn in_buckets(
    group: &mut dyn Collective,
    what: &'static str,
    vectors: &mut BTreeMap<String, Vec<f32>>,
    exchange: Exchange,
) -> Result<(), CollectiveError> {
    if group.world_size() == 1 {
        return Ok(());
    }
    verify_equal(group, what, &layout_hash(vectors))?;
    let mut members: Vec<&mut Vec<f32>> = vectors.values_mut().collect();
    let sizes: Vec<usize> = members.iter().map(|m| m.len()).collect();
    let mut flat = Vec::new();
    for range in layout(&sizes, BUCKET_FLOATS) {
        let members = &mut members[range];
        flat.clear();
        members.iter().for_each(|m| flat.extend_from_slice(m));
        exchange(group, &mut flat)?;
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
fn layout_hash(vectors: &BTreeMap<String, Vec<f32>>) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut add = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    };
    for (name, values) in vectors {
        add(name.as_bytes());
        add(&[0]);
        add(&values.len().to_le_bytes());
    }
    format!("{hash:016x} of {} vectors", vectors.len())
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
        let of = |entries: &[(&str, usize)]| {
            layout_hash(&entries.iter().map(|(name, n)| ((*name).to_owned(), vec![0.0; *n])).collect())
        };
        assert_eq!(of(&[("a", 3), ("b", 4)]), of(&[("b", 4), ("a", 3)]));
        assert_ne!(of(&[("a", 3), ("b", 4)]), of(&[("a", 4), ("b", 3)]));
        assert_ne!(of(&[("a", 3), ("b", 4)]), of(&[("a", 3), ("c", 4)]));
    }
}
