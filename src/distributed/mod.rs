//! What the ranks of a run tell each other, behind one small trait. Plain slices and flat tensors in and out, no settings.
//!
//! [`Loopback`] is built in and serves one machine; with the feature `tch`, `C10d` is PyTorch's own process group and
//! serves many. [`Rendezvous`] says who this process is and where the others are. Nothing here knows what is trained.

mod bucket;
#[cfg(feature = "tch")]
mod c10d;
mod collective;
mod flat;
#[cfg(feature = "tch")]
mod libtorch;
mod loopback;
mod rendezvous;
mod wire;

pub use bucket::{BUCKET_FLOATS, Bucket, broadcast_all, verify_end};
#[cfg(feature = "tch")]
pub use c10d::{C10d, allow_tf32, tf32_allowed};
pub use collective::{Collective, CollectiveError, Single, union_of, verify_equal};
pub use flat::Flat;
pub use loopback::Loopback;
pub use rendezvous::{Rendezvous, RendezvousError, Transport};
