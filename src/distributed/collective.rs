//! The trait, its errors, the group of one, and what can be said with the trait alone.

use burn::tensor::Tensor;

use super::flat::{Flat, in_host_memory};

/// A failed exchange between ranks. The group is of no use after one.
#[derive(Debug, thiserror::Error)]
pub enum CollectiveError {
    /// A peer did not answer, or is gone.
    #[error(
        "rank {rank} lost its group during {operation}: {reason}\n  help: see the log of the rank that failed first; `launch.timeout_s` is how long ranks wait for each other"
    )]
    Lost {
        /// This rank.
        rank: usize,
        /// What was going on.
        operation: &'static str,
        /// Which peer, and what the transport said.
        reason: String,
    },
    /// The group did not come together.
    #[error(
        "rank {rank} could not join its group at {address}: {reason}\n  help: all ranks need the same MASTER_ADDR, MASTER_PORT, WORLD_SIZE and run folder, and must start within `launch.timeout_s`"
    )]
    NotJoined {
        /// This rank.
        rank: usize,
        /// Where the ranks meet.
        address: String,
        /// What went wrong.
        reason: String,
    },
    /// The embedded transport was given the address of another machine.
    #[error(
        "MASTER_ADDR is `{address}`, but the embedded transport serves one machine, 127.0.0.1\n  help: several machines need a build with `--features tch` and `launch.device = \"tch-cpu\"`"
    )]
    NotLoopback {
        /// The address.
        address: String,
    },
    /// Ranks that must hold the same hold different things.
    #[error(
        "the ranks disagree on {what}: rank 0 has {expected}, rank {rank} has {found}\n  help: start all ranks from the same program, settings and data; on equal machines this is a defect of vlp or of the hardware"
    )]
    Unequal {
        /// What should be equal.
        what: &'static str,
        /// First rank that differs from rank 0.
        rank: usize,
        /// Hash on rank 0.
        expected: String,
        /// Hash on that rank.
        found: String,
    },
}

/// The operations data-parallel training needs. Every rank calls the same ones in the same order, with the same lengths.
pub trait Collective: Send {
    /// This process, `0..world_size`.
    fn rank(&self) -> usize;

    /// Number of processes.
    fn world_size(&self) -> usize;

    /// Replaces `values` by their mean over all ranks; the same bits on every rank.
    fn all_reduce_mean(&mut self, values: &mut [f32]) -> Result<(), CollectiveError>;

    /// As [`Collective::all_reduce_mean`], of `values` rounded to bfloat16. PyTorch's process group sends and adds half as many bytes, and
    /// rounds the sum too; here the sum is exact in f32.
    fn all_reduce_mean_bf16(&mut self, values: &mut [f32]) -> Result<(), CollectiveError> {
        values.iter_mut().for_each(|value| *value = half::bf16::from_f32(*value).to_f32());
        self.all_reduce_mean(values)
    }

    /// The mean over all ranks of `values`; `bf16`: as [`Collective::all_reduce_mean_bf16`]. A group that exchanges between devices like that of the values
    /// leaves the mean there, and nothing passes over the host; otherwise the mean is in host memory.
    fn all_reduce_mean_flat(&mut self, values: Flat, bf16: bool) -> Result<Tensor<1>, CollectiveError> {
        all_reduce_mean_on_host(self, values, bf16)
    }

    /// Replaces `values` by those of `root`.
    fn broadcast(&mut self, values: &mut [f32], root: usize) -> Result<(), CollectiveError>;

    /// Everyone's `bytes`, by rank; they may differ in length.
    fn gather_bytes(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError>;

    /// Everyone's `value`, by rank.
    fn gather(&mut self, value: f64) -> Result<Vec<f64>, CollectiveError> {
        let rank = self.rank();
        let all = self.gather_bytes(&value.to_le_bytes())?;
        let number = |bytes: Vec<u8>| <[u8; 8]>::try_from(bytes).map(f64::from_le_bytes);
        all.into_iter().map(number).collect::<Result<_, _>>().map_err(|bytes| CollectiveError::Lost {
            rank,
            operation: "gather",
            reason: format!("a peer sent {} bytes, expected 8: the ranks are not at the same place", bytes.len()),
        })
    }

    /// Returns when all ranks have called it.
    fn barrier(&mut self) -> Result<(), CollectiveError> {
        self.gather_bytes(&[]).map(|_| ())
    }

    /// Returns when rank 0 has called it, however long that takes; an error when rank 0 ends before. For work that rank 0
    /// does alone.
    fn wait_for_rank_0(&mut self) -> Result<(), CollectiveError>;
}

/// [`Collective::all_reduce_mean_flat`] of values that pass through host memory.
pub(super) fn all_reduce_mean_on_host(
    group: &mut (impl Collective + ?Sized),
    values: Flat,
    bf16: bool,
) -> Result<Tensor<1>, CollectiveError> {
    let mut values = values.into_host();
    match bf16 {
        true => group.all_reduce_mean_bf16(&mut values)?,
        false => group.all_reduce_mean(&mut values)?,
    }
    Ok(in_host_memory(values))
}

/// The flags that are set on any rank; the same answer on every rank.
pub fn union_of(group: &mut dyn Collective, flags: u8) -> Result<u8, CollectiveError> {
    if group.world_size() == 1 {
        return Ok(flags);
    }
    Ok(group.gather_bytes(&[flags])?.into_iter().flatten().fold(0, |all, flags| all | flags))
}

/// An error on every rank unless all hold the same `hash` of `what`.
pub fn verify_equal(group: &mut dyn Collective, what: &'static str, hash: &str) -> Result<(), CollectiveError> {
    let all = group.gather_bytes(hash.as_bytes())?;
    let Some(rank) = all.iter().position(|other| *other != all[0]) else { return Ok(()) };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Err(CollectiveError::Unequal { what, rank, expected: text(&all[0]), found: text(&all[rank]) })
}

/// A group of one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Single;

impl Collective for Single {
    fn rank(&self) -> usize {
        0
    }

    fn world_size(&self) -> usize {
        1
    }

    fn all_reduce_mean(&mut self, _: &mut [f32]) -> Result<(), CollectiveError> {
        Ok(())
    }

    fn broadcast(&mut self, _: &mut [f32], _: usize) -> Result<(), CollectiveError> {
        Ok(())
    }

    fn gather_bytes(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        Ok(vec![bytes.to_vec()])
    }

    fn wait_for_rank_0(&mut self) -> Result<(), CollectiveError> {
        Ok(())
    }
}
