//! `flex`'s tensors, as values in host memory.
//!
//! The engine's own way to a new tensor fills it with zeros, then copies it to another place, on one thread. What is made here
//! takes its memory once, and products write into it what they find.

use std::mem::MaybeUninit;

use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::{Shape, TensorData};

use super::host::Host;
use super::kernels;
use super::product::{Place, new_product};
use crate::model::threads;

/// So many, written by all threads.
fn zeros(length: usize) -> Vec<f32> {
    const PIECE: usize = 1 << 18;
    let mut values = Vec::with_capacity(length);
    let spare = &mut values.spare_capacity_mut()[..length];
    threads::each(spare.chunks_mut(PIECE), |piece| piece.fill(MaybeUninit::new(0f32)));
    // SAFETY: all of them were written.
    unsafe { values.set_len(length) };
    values
}

impl Host for Flex {
    fn in_order(tensor: FloatTensor<Self>) -> FloatTensor<Self> {
        if tensor.as_slice::<f32>().is_some() { tensor } else { tensor.to_contiguous() }
    }

    fn own(tensor: FloatTensor<Self>) -> FloatTensor<Self> {
        let whole = |tensor: &FloatTensor<Self>| {
            tensor.as_slice::<f32>().map(<[f32]>::len) == Some(tensor.storage::<f32>().len())
        };
        if tensor.is_unique() && whole(&tensor) {
            return tensor;
        }
        let tensor = Self::in_order(tensor);
        let mut copy = Self::blank(tensor.shape());
        Self::values_mut(&mut copy).copy_from_slice(Self::values(&tensor));
        copy
    }

    fn values(tensor: &FloatTensor<Self>) -> &[f32] {
        tensor.as_slice().unwrap_or_default()
    }

    fn values_mut(tensor: &mut FloatTensor<Self>) -> &mut [f32] {
        tensor.storage_mut()
    }

    fn blank(shape: Shape) -> FloatTensor<Self> {
        Self::float_from_data(TensorData::new(zeros(shape.num_elements()), shape), &Default::default())
    }

    fn product(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        let place = |tensor: &FloatTensor<Self>| {
            let (layout, strides) = (tensor.layout(), tensor.layout().strides());
            Place { start: layout.start_offset(), row: strides[0].unsigned_abs(), column: strides[1].unsigned_abs() }
        };
        let upright = |tensor: FloatTensor<Self>| {
            if tensor.layout().strides().iter().all(|stride| *stride >= 0) { tensor } else { tensor.to_contiguous() }
        };
        let (a, b) = (upright(a), upright(b));
        let [rows, inner, columns] = [a.shape()[0], a.shape()[1], b.shape()[1]];
        let out = new_product([rows, inner, columns], (a.storage(), place(&a)), (b.storage(), place(&b)));
        Self::float_from_data(TensorData::new(out, [rows, columns]), &Default::default())
    }

    fn product_with_bias(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let mut y = Self::product(x, Self::float_swap_dims(weight, 0, 1));
        let bias = Self::in_order(bias);
        kernels::add_rows(Self::values_mut(&mut y), Self::values(&bias));
        y
    }
}
