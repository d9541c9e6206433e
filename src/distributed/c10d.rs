//! PyTorch's own process groups: TCPStore for the rendezvous, Gloo on CPU memory and NCCL between GPUs for the exchange; any
//! number of machines.
//!
//! The C++ side is `c10d.cpp`. A peer that ends, and one that does not answer in time, are errors here as in `loopback`;
//! Gloo adds in a fixed order, so that a sum has the same bits on every rank and in every run. With NCCL, which build.rs
//! compiles in where LibTorch has it, sums and broadcasts pass through the GPUs' memory; the rest stays with Gloo. Tensors of LibTorch on the
//! device of the group are summed where they lie.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::{NonNull, null_mut};

use burn::tensor::Tensor;

use super::collective::{Collective, CollectiveError, all_reduce_mean_on_host};
use super::flat::Flat;
use super::libtorch::{Point, given, lies_on, pointer, taken};
use super::rendezvous::Rendezvous;

/// Longest reason that is taken over from C++.
const REASON: usize = 2048;

#[repr(C)]
struct Handle {
    _private: [u8; 0],
}

unsafe extern "C" {
    fn vlp_group_join(
        host: *const c_char,
        port: u16,
        rank: c_int,
        world_size: c_int,
        token: *const c_char,
        timeout_ms: i64,
        gpu: c_int,
        error: *mut c_char,
        size: usize,
    ) -> *mut Handle;
    fn vlp_group_leave(group: *mut Handle);
    fn vlp_allow_tf32(allow: c_int);
    fn vlp_tf32_allowed() -> c_int;
    fn vlp_group_has_nccl() -> c_int;
    fn vlp_group_sum(
        group: *mut Handle,
        values: *mut f32,
        count: i64,
        low: c_int,
        error: *mut c_char,
        size: usize,
    ) -> c_int;
    fn vlp_group_mean(
        group: *mut Handle,
        tensor: *mut c_void,
        since: *mut c_void,
        low: c_int,
        error: *mut c_char,
        size: usize,
    ) -> c_int;
    fn vlp_group_broadcast(
        group: *mut Handle,
        values: *mut f32,
        count: i64,
        root: c_int,
        error: *mut c_char,
        size: usize,
    ) -> c_int;
    fn vlp_group_lengths(group: *mut Handle, length: i64, lengths: *mut i64, error: *mut c_char, size: usize) -> c_int;
    fn vlp_group_rest(group: *mut Handle, number: u64, error: *mut c_char, size: usize) -> c_int;
    fn vlp_group_bytes(
        group: *mut Handle,
        mine: *mut u8,
        length: i64,
        all: *mut u8,
        error: *mut c_char,
        size: usize,
    ) -> c_int;
}

/// A process group of PyTorch.
#[derive(Debug)]
pub struct C10d {
    handle: NonNull<Handle>,
    rank: usize,
    world_size: usize,
    /// Of this rank, with NCCL.
    gpu: Option<usize>,
    /// Waits for rank 0 so far.
    waits: u64,
}

// SAFETY: the group is used by one thread at a time (`&mut self`), and neither Gloo nor NCCL ties it to the thread that made it.
unsafe impl Send for C10d {}

impl Drop for C10d {
    fn drop(&mut self) {
        // SAFETY: the handle came from `vlp_group_join` and is given back once.
        unsafe { vlp_group_leave(self.handle.as_ptr()) };
    }
}

impl C10d {
    /// Whether this build can exchange between GPUs.
    pub fn has_nccl() -> bool {
        // SAFETY: it only returns a number.
        unsafe { vlp_group_has_nccl() != 0 }
    }

    /// Joins the group; returns when all ranks are there. With NCCL where this rank computes on the GPU of number `gpu`.
    ///
    /// # Errors
    /// Ranks that do not come in time; a rank 0 that belongs to another run; a GPU in a build without NCCL.
    pub fn join(rendezvous: &Rendezvous, gpu: Option<usize>) -> Result<Self, CollectiveError> {
        let Rendezvous { rank, world_size, master_port, .. } = *rendezvous;
        let failed = |reason: String| CollectiveError::NotJoined {
            rank,
            address: format!("{}:{master_port}", rendezvous.master_addr),
            reason,
        };
        let text = |text: String| CString::new(text).map_err(|_| failed("its name has a zero byte".into()));
        let host = text(rendezvous.master_addr.clone())?;
        let token = text(format!("{}/{world_size}", rendezvous.token))?;
        let mut reason = [0 as c_char; REASON];
        // SAFETY: the strings outlive the call, and the reason is as long as it says.
        let handle = unsafe {
            vlp_group_join(
                host.as_ptr(),
                master_port,
                rank as c_int,
                world_size as c_int,
                token.as_ptr(),
                rendezvous.timeout.as_millis().min(i64::MAX as u128) as i64,
                gpu.map_or(-1, |gpu| gpu as c_int),
                reason.as_mut_ptr(),
                REASON,
            )
        };
        let handle = NonNull::new(handle).ok_or_else(|| failed(first_line(&reason)))?;
        Ok(Self { handle, rank, world_size, gpu, waits: 0 })
    }

    /// `low`: in bfloat16.
    fn mean(&mut self, values: &mut [f32], low: c_int) -> Result<(), CollectiveError> {
        let (data, count) = (values.as_mut_ptr(), values.len() as i64);
        // SAFETY: `values` is borrowed for the whole call, which waits for the exchange to end.
        self.call("all-reduce", |group, reason| unsafe { vlp_group_sum(group, data, count, low, reason, REASON) })?;
        let ranks = self.world_size as f32;
        values.iter_mut().for_each(|sum| *sum /= ranks);
        Ok(())
    }

    /// Calls `work` with the handle and room for a reason.
    fn call(
        &mut self,
        operation: &'static str,
        work: impl FnOnce(*mut Handle, *mut c_char) -> c_int,
    ) -> Result<(), CollectiveError> {
        let mut reason = [0 as c_char; REASON];
        match work(self.handle.as_ptr(), reason.as_mut_ptr()) {
            0 => Err(CollectiveError::Lost { rank: self.rank, operation, reason: first_line(&reason) }),
            _ => Ok(()),
        }
    }
}

/// Whether LibTorch may compute products of f32 matrices in TF32 on GPUs, for this whole process. It starts with no.
pub fn allow_tf32(allow: bool) {
    // SAFETY: it sets switches of LibTorch's context, before any work of this process uses them.
    unsafe { vlp_allow_tf32(allow.into()) };
}

/// What [`allow_tf32`] last said.
pub fn tf32_allowed() -> bool {
    // SAFETY: it only returns a number.
    unsafe { vlp_tf32_allowed() != 0 }
}

/// The first line of what C++ said; the rest is where in PyTorch it happened.
fn first_line(reason: &[c_char; REASON]) -> String {
    // SAFETY: the array was zeroed, and C++ ends what it writes with a zero byte.
    let text = unsafe { CStr::from_ptr(reason.as_ptr()) }.to_string_lossy().into_owned();
    text.lines().next().unwrap_or_default().trim_end_matches(['.', ' ']).to_owned()
}

impl Collective for C10d {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world_size(&self) -> usize {
        self.world_size
    }

    fn all_reduce_mean(&mut self, values: &mut [f32]) -> Result<(), CollectiveError> {
        self.mean(values, 0)
    }

    fn all_reduce_mean_bf16(&mut self, values: &mut [f32]) -> Result<(), CollectiveError> {
        self.mean(values, 1)
    }

    fn all_reduce_mean_flat(&mut self, values: Flat, bf16: bool) -> Result<Tensor<1>, CollectiveError> {
        if !lies_on(&values, self.gpu) {
            return all_reduce_mean_on_host(self, values, bf16);
        }
        let (mut values, since) = taken(values);
        let (tensor, since) = (pointer(&mut values), since.as_ref().map_or(null_mut(), Point::as_ptr));
        // SAFETY: the tensor, which nobody else has, and the point live through the call, which waits for the exchange to end.
        self.call("all-reduce", |group, reason| unsafe {
            vlp_group_mean(group, tensor, since, bf16.into(), reason, REASON)
        })?;
        Ok(given(values))
    }

    fn broadcast(&mut self, values: &mut [f32], root: usize) -> Result<(), CollectiveError> {
        let (data, count, root) = (values.as_mut_ptr(), values.len() as i64, root as c_int);
        // SAFETY: `values` is borrowed for the whole call, which waits for the exchange to end.
        self.call("broadcast", |group, reason| unsafe { vlp_group_broadcast(group, data, count, root, reason, REASON) })
    }

    fn gather_bytes(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        let mut lengths = vec![0i64; self.world_size];
        let (own, places) = (bytes.len() as i64, lengths.as_mut_ptr());
        // SAFETY: `lengths` has a place per rank.
        self.call("gather", |group, reason| unsafe { vlp_group_lengths(group, own, places, reason, REASON) })?;
        let longest = lengths.iter().copied().max().unwrap_or(0).max(0) as usize;
        if longest == 0 {
            return Ok(vec![Vec::new(); self.world_size]);
        }
        let mut mine = bytes.to_vec();
        mine.resize(longest, 0);
        let mut all = vec![0u8; longest * self.world_size];
        let (from, to) = (mine.as_mut_ptr(), all.as_mut_ptr());
        // SAFETY: `mine` has `longest` bytes, `all` as many per rank.
        self.call("gather", |group, reason| unsafe {
            vlp_group_bytes(group, from, longest as i64, to, reason, REASON)
        })?;
        Ok(all
            .chunks_exact(longest)
            .zip(lengths)
            .map(|(one, n)| one[..(n.max(0) as usize).min(longest)].to_vec())
            .collect())
    }

    fn wait_for_rank_0(&mut self) -> Result<(), CollectiveError> {
        self.waits += 1;
        let number = self.waits;
        // SAFETY: nothing is passed but the handle and room for a reason.
        self.call("the wait for rank 0", |group, reason| unsafe { vlp_group_rest(group, number, reason, REASON) })?;
        // Rank 0 keeps the store: it must not leave before all have seen the note.
        self.barrier()
    }
}
