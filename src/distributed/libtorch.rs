//! LibTorch's tensors as the process groups take them: where they lie, and when their values are there.

#![allow(deprecated)] // burn marks its LibTorch backend as deprecated; it is one of the engines here, by request.

use std::ffi::{c_char, c_void};
use std::ptr::NonNull;

use burn::backend::libtorch::{LibTorchDevice, TchTensor};
use burn::backend::{DispatchDevice, LibTorch};
use burn::tensor::{DType, Tensor};

use super::flat::Flat;

unsafe extern "C" {
    fn vlp_point_now(tensor: *const c_void, error: *mut c_char, size: usize) -> *mut c_void;
    fn vlp_point_drop(point: *mut c_void);
}

/// A point in what a GPU was given to do.
#[derive(Debug)]
pub struct Point(NonNull<c_void>);

// SAFETY: it is an event of the GPU, which is bound to no thread; one thread at a time has it.
unsafe impl Send for Point {}

impl Drop for Point {
    fn drop(&mut self) {
        // SAFETY: made by `vlp_point_now`, and dropped once.
        unsafe { vlp_point_drop(self.0.as_ptr()) }
    }
}

impl Point {
    /// Behind all that this thread has given to the GPU of `values`; none for other devices.
    pub fn now(values: &Tensor<1>) -> Option<Self> {
        device_of(values).filter(|device| matches!(device, LibTorchDevice::Cuda(_)))?;
        let tensor = values.clone().try_into_primitive::<LibTorch>().ok()?;
        let mut reason = [0 as c_char; 1];
        // SAFETY: a tensor of LibTorch, which lives through the call.
        let point = unsafe { vlp_point_now(tensor.tensor.as_ptr().cast(), reason.as_mut_ptr(), reason.len()) };
        NonNull::new(point).map(Self)
    }

    pub(super) fn as_ptr(&self) -> *mut c_void {
        self.0.as_ptr()
    }
}

/// LibTorch's device of a tensor without graph; none for other engines.
fn device_of(values: &Tensor<1>) -> Option<LibTorchDevice> {
    match values.device().as_dispatch() {
        DispatchDevice::LibTorch(device) => Some(*device),
        _ => None,
    }
}

/// The `at::Tensor` of a tensor.
pub(super) fn pointer(tensor: &mut TchTensor) -> *mut c_void {
    tensor.tensor.as_mut_ptr().cast()
}

/// The tensor as one of burn's.
pub(super) fn given(tensor: TchTensor) -> Tensor<1> {
    Tensor::from_primitive::<LibTorch>(tensor)
}

/// Whether values are f32 that lie on `gpu`, or for none on LibTorch's CPU.
pub(super) fn lies_on(flat: &Flat, gpu: Option<usize>) -> bool {
    let device = gpu.map_or(LibTorchDevice::Cpu, LibTorchDevice::Cuda);
    flat.values.dtype() == DType::F32 && device_of(&flat.values) == Some(device)
}

/// LibTorch's tensor of values that [`lies_on`] its device, shared with no other and in one piece, and when the values are there.
pub(super) fn taken(Flat { values, since }: Flat) -> (TchTensor, Option<Point>) {
    let tensor = values.try_into_primitive::<LibTorch>().expect("a tensor of LibTorch, as its device says");
    if tensor.can_mut() && tensor.tensor.is_contiguous() {
        return (tensor, since);
    }
    let copy = TchTensor::new(tensor.tensor.contiguous().copy());
    let since = Point::now(&given(copy.clone()));
    (copy, since)
}
