//! A flat tensor on its way to the thread that exchanges it.
//!
//! A GPU is behind the host: when a tensor is handed on, its values may be still to come. [`Flat`] remembers the point in the work of the GPU at which
//! they are there, so that the exchange waits for that, and not for what the GPU was given since.

use burn::tensor::{Device, Tensor, TensorData};

#[cfg(feature = "tch")]
use super::libtorch::Point;

/// Values without graph, and when they are there.
#[derive(Debug)]
pub struct Flat {
    pub(super) values: Tensor<1>,
    #[cfg(feature = "tch")]
    pub(super) since: Option<Point>,
}

impl Flat {
    /// `values` as this thread has computed them, or had a GPU begin to.
    pub fn new(values: Tensor<1>) -> Self {
        #[cfg(feature = "tch")]
        return Self { since: Point::now(&values), values };
        #[cfg(not(feature = "tch"))]
        Self { values }
    }

    /// The values on the host; waits for them.
    pub fn into_host(self) -> Vec<f32> {
        // The conversion leaves f32, so the typed read cannot fail.
        self.values.into_data().convert::<f32>().try_into_vec().expect("data of type f32")
    }
}

/// `values` as a tensor in host memory.
pub(super) fn in_host_memory(values: Vec<f32>) -> Tensor<1> {
    let length = values.len();
    Tensor::from_data(TensorData::new(values, [length]), &Device::flex())
}
