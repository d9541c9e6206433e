//! The network of the paper: one Transformer that both reads and writes, over image regions and words.
//!
//! Settings in, tensors out; no files (but [`weights`]), no losses, no loops.

pub mod device;

pub mod layers;

pub(crate) mod fused;

pub mod threads;

pub mod attention;

mod masks;

mod widest;

pub mod packed;

pub mod embeddings;

pub mod encoder;

pub mod layer_gradients;

pub mod heads;

pub mod inputs;

pub mod transfer;

mod init;

pub mod vlp;

pub mod weights;

pub use vlp::{DataSizes, Vlp, parameter_count};

use burn::tensor::{Tensor, TensorData};

/// The values of a float tensor on the host.
pub fn host_values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    host_floats(tensor.inner().into_data())
}

/// The values of float data.
pub fn host_floats(data: TensorData) -> Vec<f32> {
    // The conversion leaves f32, so the typed read cannot fail.
    data.convert::<f32>().try_into_vec().expect("data of type f32")
}
