//! Values of the host as tensors of a device: constants of its graph, in f32 and 64-bit integers.
//!
//! An ordinary copy to a GPU waits until the device has done all that it was given before, and then for the copy. For LibTorch's
//! GPUs the values are copied to page-locked memory, which the device reads when it comes to it, while the host goes on; LibTorch's
//! allocator keeps that memory until then. Parameters, which are copied once, take the ordinary way.

use std::borrow::Cow;

use burn::tensor::{Device, Int, Tensor, TensorData};

/// `values`, row-major, as a tensor of `shape` on `device`.
pub fn floats<'a, const D: usize>(values: impl Into<Cow<'a, [f32]>>, shape: [usize; D], device: &Device) -> Tensor<D> {
    let values = values.into();
    #[cfg(feature = "tch")]
    if let Some(tensor) = pinned::floats(&values, shape, device) {
        return tensor;
    }
    Tensor::from_data(TensorData::new(values.into_owned(), shape), device)
}

/// As [`floats`], of integers.
pub fn integers<'a, const D: usize>(
    values: impl Into<Cow<'a, [i64]>>,
    shape: [usize; D],
    device: &Device,
) -> Tensor<D, Int> {
    let values = values.into();
    #[cfg(feature = "tch")]
    if let Some(tensor) = pinned::integers(&values, shape, device) {
        return tensor;
    }
    Tensor::from_data(TensorData::new(values.into_owned(), shape), device)
}

#[cfg(feature = "tch")]
#[allow(deprecated)] // burn marks its LibTorch backend as deprecated; it is one of the engines here, by request.
mod pinned {
    use burn::backend::LibTorch;
    use burn::backend::libtorch::TchTensor;
    use burn::tensor::{Device, Int, Tensor};

    use crate::model::device::libtorch_gpu;

    /// [`super::floats`] on a GPU of LibTorch; none on any other device.
    pub fn floats<const D: usize>(values: &[f32], shape: [usize; D], device: &Device) -> Option<Tensor<D>> {
        Some(as_floats(copied(values, &shape, libtorch_gpu(device)?)?, device))
    }

    /// [`super::integers`] on a GPU of LibTorch; none on any other device.
    pub fn integers<const D: usize>(values: &[i64], shape: [usize; D], device: &Device) -> Option<Tensor<D, Int>> {
        Some(as_integers(copied(values, &shape, libtorch_gpu(device)?)?, device))
    }

    /// The tensor as a constant of the graph of `device`, where it lies.
    pub fn as_floats<const D: usize>(tensor: TchTensor, device: &Device) -> Tensor<D> {
        let tensor = Tensor::from_primitive::<LibTorch>(tensor);
        match device.gradient_checkpointing_strategy() {
            Some(strategy) => tensor.autodiff().with_gradient_checkpointing_strategy(strategy),
            None => tensor,
        }
    }

    /// As [`as_floats`], of integers.
    pub fn as_integers<const D: usize>(tensor: TchTensor, device: &Device) -> Tensor<D, Int> {
        let tensor = Tensor::from_primitive::<LibTorch>(tensor);
        match device.gradient_checkpointing_strategy() {
            Some(strategy) => tensor.autodiff().with_gradient_checkpointing_strategy(strategy),
            None => tensor,
        }
    }

    /// The values on a GPU, to which they are still on their way; none, with a warning, where no memory can be page-locked.
    fn copied<T: tch::kind::Element>(values: &[T], shape: &[usize], gpu: usize) -> Option<TchTensor> {
        assert_eq!(values.len(), shape.iter().product::<usize>(), "values for {shape:?}");
        let gpu = tch::Device::Cuda(gpu);
        let copy = || {
            let pinned = pageable(values, shape)?.f_internal_pin_memory(gpu)?;
            pinned.f_to_device_(gpu, T::KIND, true, false)
        };
        match copy() {
            Ok(tensor) => Some(TchTensor::new(tensor)),
            Err(reason) => {
                tracing::warn!(%reason, "no page-locked memory for a copy to the GPU");
                None
            }
        }
    }

    /// The values as a tensor of LibTorch, where they lie.
    pub fn pageable<T: tch::kind::Element>(values: &[T], shape: &[usize]) -> Result<tch::Tensor, tch::TchError> {
        let shape: Vec<i64> = shape.iter().map(|size| *size as i64).collect();
        // SAFETY: that many values of this type lie there in order, and outlive the tensor, which is read once by the caller.
        unsafe { tch::Tensor::f_from_blob(values.as_ptr().cast(), &shape, &[], T::KIND, tch::Device::Cpu) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::device;
    use crate::model::host_values;

    #[test]
    fn values_arrive_as_they_are_in_the_graph_of_the_device() {
        for name in device::available() {
            let plain = device::open(name).unwrap();
            let graph = plain.clone().autodiff();
            for device in [plain, graph.clone(), graph.gradient_checkpointing()] {
                let numbers = [0.5f32, -1.0, 2.0, 1e-30, 3.0, 7.0];
                let found = floats(&numbers[..], [2, 3], &device);
                assert_eq!(found.dims(), [2, 3]);
                assert_eq!(found.gradient_checkpointing_strategy(), device.gradient_checkpointing_strategy(), "{name}");
                assert_eq!(host_values(found * Tensor::ones([2, 3], &device)), numbers, "{name}");
                let ids = vec![0i64, -3, i64::from(i32::MAX)];
                let found = integers(ids.clone(), [3, 1], &device);
                assert_eq!(found.device(), device, "{name}");
                assert_eq!(found.into_data().convert::<i64>().try_into_vec::<i64>().unwrap(), ids, "{name}");
                assert_eq!(floats(Vec::new(), [0, 3], &device).dims(), [0, 3]);
            }
        }
    }

    /// Without a GPU no memory is page-locked: LibTorch for the CPU has none.
    #[cfg(feature = "tch")]
    #[test]
    fn only_a_gpu_of_libtorch_takes_page_locked_memory() {
        for name in device::available() {
            let plain = device::open(name).unwrap();
            let expected = name == "tch-cuda";
            for device in [plain.clone(), plain.autodiff()] {
                assert_eq!(pinned::floats(&[1.0], [1], &device).is_some(), expected, "{name}");
                assert_eq!(pinned::integers(&[1], [1], &device).is_some(), expected, "{name}");
            }
        }
    }

    /// What a GPU does with a tensor that has arrived, on LibTorch's CPU.
    #[cfg(feature = "tch")]
    #[allow(deprecated)] // as above
    #[test]
    fn tensors_of_libtorch_join_the_graph_of_the_device() {
        let graph = device::open("tch-cpu").unwrap().autodiff();
        let numbers = [0.5f32, -1.0, 2.0, 3.0, 7.0, 11.0];
        for device in [graph.clone().inner(), graph.clone(), graph.gradient_checkpointing()] {
            let tensor = |tensor: tch::Tensor| burn::backend::libtorch::TchTensor::new(tensor.copy());
            let found: Tensor<2> = pinned::as_floats(tensor(pinned::pageable(&numbers, &[2, 3]).unwrap()), &device);
            assert_eq!((found.dims(), found.device()), ([2, 3], device.clone()));
            let rows = pinned::as_integers::<1>(tensor(pinned::pageable(&[1i64, 0, 1], &[3]).unwrap()), &device);
            assert_eq!((rows.dims(), rows.device()), ([3], device.clone()));
            if !device.is_autodiff() {
                assert_eq!(host_values(found.select(0, rows)), [3.0, 7.0, 11.0, 0.5, -1.0, 2.0, 3.0, 7.0, 11.0]);
                continue;
            }
            let x = Tensor::<2>::ones([2, 3], &device).require_grad();
            let gradients = (x.clone() * found).select(0, rows).sum().backward();
            assert_eq!(host_values(x.grad(&gradients).unwrap()), [0.5, -1.0, 2.0, 6.0, 14.0, 22.0]);
        }
    }

    #[cfg(feature = "tch")]
    #[test]
    fn libtorch_reads_values_where_they_lie() {
        let values = [1i64, 2, 3, 4, 5, 6];
        let tensor = pinned::pageable(&values, &[2, 3]).unwrap();
        assert_eq!(tensor.size(), [2, 3]);
        assert_eq!(tensor.data_ptr().cast_const().cast(), values.as_ptr());
        let rows: Vec<Vec<i64>> = Vec::try_from(&tensor).unwrap();
        assert_eq!(rows, [[1, 2, 3], [4, 5, 6]]);
        let floats = pinned::pageable(&[0.5f32], &[1, 1, 1]).unwrap();
        assert_eq!((floats.kind(), floats.double_value(&[0, 0, 0])), (tch::Kind::Float, 0.5));
    }
}
