//! LibTorch's tensors on the CPU, as values in host memory.

use burn::backend::LibTorch;
use burn::backend::libtorch::TchTensor;
use burn::tensor::Shape;

use super::host::Host;

impl Host for LibTorch {
    fn in_order(tensor: TchTensor) -> TchTensor {
        if tensor.tensor.is_contiguous() {
            return tensor;
        }
        TchTensor::new(tensor.tensor.contiguous())
    }

    fn own(tensor: TchTensor) -> TchTensor {
        if tensor.can_mut() && tensor.tensor.is_contiguous() {
            return tensor;
        }
        let mut copy = tch::Tensor::empty(tensor.tensor.size(), (tch::Kind::Float, tch::Device::Cpu));
        copy.copy_(&tensor.tensor);
        TchTensor::new(copy)
    }

    fn values(tensor: &TchTensor) -> &[f32] {
        let tensor = &tensor.tensor;
        assert!(tensor.kind() == tch::Kind::Float && tensor.device() == tch::Device::Cpu && tensor.is_contiguous());
        // SAFETY: as asserted, that many values of f32 lie there in host memory, and live as long as the tensor.
        unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast(), tensor.numel()) }
    }

    fn values_mut(tensor: &mut TchTensor) -> &mut [f32] {
        assert!(tensor.can_mut());
        let tensor = &mut tensor.tensor;
        assert!(tensor.kind() == tch::Kind::Float && tensor.device() == tch::Device::Cpu && tensor.is_contiguous());
        // SAFETY: as in `values`; nobody else holds the storage.
        unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), tensor.numel()) }
    }

    fn blank(shape: Shape) -> TchTensor {
        let sizes: Vec<i64> = (0..shape.num_dims()).map(|axis| shape[axis] as i64).collect();
        TchTensor::new(tch::Tensor::empty(sizes, (tch::Kind::Float, tch::Device::Cpu)))
    }

    fn product_with_bias(x: TchTensor, weight: TchTensor, bias: TchTensor) -> TchTensor {
        TchTensor::new(x.tensor.linear(&weight.tensor, Some(&bias.tensor)))
    }
}
