//! Linear maps whose weights lie in the layout that the engine's matrix products read, for passes without gradient.
//!
//! An ordinary product brings the weights into that layout in every call. Where few rows meet all weights, as in decoding,
//! this costs as much as the product. LibTorch has such products on the CPU (oneDNN, `onednn.cpp`); on other engines there
//! are none, and nothing is packed. The numbers are those of the ordinary product up to rounding.

#[cfg(feature = "tch")]
pub use onednn::Packed;

#[cfg(not(feature = "tch"))]
use burn::tensor::Tensor;

/// A packed linear map. This build has no engine that knows one.
#[cfg(not(feature = "tch"))]
#[derive(Debug, Clone)]
pub enum Packed {}

#[cfg(not(feature = "tch"))]
impl Packed {
    /// `weight` `[out, in]` and `bias` `[out]`; none where the engine has no packed products.
    pub fn of(_weight: Tensor<2>, _bias: Tensor<1>) -> Option<Self> {
        None
    }

    /// x `[…, in]` → `[…, out]`; none where `x` is not f32.
    pub fn forward<const D: usize>(&self, _x: &Tensor<D>, _then: Then) -> Option<Tensor<D>> {
        match *self {}
    }
}

/// What follows the product in the same pass over its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Nothing.
    Nothing,
    /// erf-GELU.
    Gelu,
}

#[cfg(feature = "tch")]
#[allow(deprecated)] // burn marks its LibTorch backend as deprecated; it is one of the engines here, by request.
mod onednn {
    use std::ffi::{CStr, c_char, c_int, c_void};
    use std::ptr::NonNull;
    use std::sync::Arc;

    use burn::backend::LibTorch;
    use burn::backend::libtorch::TchTensor;
    use burn::tensor::{DType, Tensor};

    use super::Then;

    /// Longest reason that is taken over from C++.
    const REASON: usize = 1024;

    unsafe extern "C" {
        fn vlp_has_onednn() -> c_int;
        fn vlp_drop_tensor(tensor: *mut c_void);
        fn vlp_pack_weight(weight: *const c_void, error: *mut c_char, size: usize) -> *mut c_void;
        fn vlp_packed_linear(
            x: *const c_void,
            packed: *const c_void,
            bias: *const c_void,
            gelu: c_int,
            error: *mut c_char,
            size: usize,
        ) -> *mut c_void;
    }

    /// A packed linear map of oneDNN.
    #[derive(Debug, Clone)]
    pub struct Packed(Arc<Parts>);

    #[derive(Debug)]
    struct Parts {
        weight: Weight,
        /// `[out]`.
        bias: TchTensor,
    }

    /// `[out, in]` in oneDNN's layout: a tensor of LibTorch whose values nobody else can read.
    #[derive(Debug)]
    struct Weight(NonNull<c_void>);

    // SAFETY: it is only read, and dropped by its last owner; LibTorch counts its references atomically.
    unsafe impl Send for Weight {}
    // SAFETY: as above.
    unsafe impl Sync for Weight {}

    impl Drop for Weight {
        fn drop(&mut self) {
            // SAFETY: made by `vlp_pack_weight`, and dropped once.
            unsafe { vlp_drop_tensor(self.0.as_ptr()) }
        }
    }

    impl Packed {
        /// `weight` `[out, in]` and `bias` `[out]`; none where the engine has no packed products.
        pub fn of(weight: Tensor<2>, bias: Tensor<1>) -> Option<Self> {
            let (weight, bias) = (on_cpu(weight)?, on_cpu(bias)?);
            // SAFETY: no arguments.
            if unsafe { vlp_has_onednn() } == 0 {
                return None;
            }
            let weight = told(|error| {
                // SAFETY: a tensor of LibTorch, which lives through the call.
                unsafe { vlp_pack_weight(weight.tensor.as_ptr().cast(), error, REASON) }
            })?;
            Some(Self(Arc::new(Parts { weight: Weight(weight), bias })))
        }

        /// x `[…, in]` → `[…, out]`; none where `x` is not f32.
        pub fn forward<const D: usize>(&self, x: &Tensor<D>, then: Then) -> Option<Tensor<D>> {
            let x = on_cpu(x.clone())?;
            let Parts { weight, bias } = &*self.0;
            let (x, bias) = (x.tensor.as_ptr().cast(), bias.tensor.as_ptr().cast());
            let gelu = c_int::from(then == Then::Gelu);
            // SAFETY: tensors of LibTorch, which live through the call.
            let y = told(|error| unsafe { vlp_packed_linear(x, weight.0.as_ptr(), bias, gelu, error, REASON) })?;
            // SAFETY: a new tensor, which is owned by nobody else.
            let y = unsafe { tch::Tensor::from_ptr(y.as_ptr().cast()) };
            Some(Tensor::from_primitive::<LibTorch>(TchTensor::new(y)))
        }
    }

    /// LibTorch's tensor of f32 on the CPU, without graph; none for any other.
    fn on_cpu<const D: usize>(tensor: Tensor<D>) -> Option<TchTensor> {
        if tensor.dtype() != DType::F32 {
            return None;
        }
        let tensor = tensor.try_into_primitive::<LibTorch>().ok()?;
        (tensor.tensor.device() == tch::Device::Cpu).then_some(tensor)
    }

    /// What a function of C++ made; none, with a warning, where it could not. The ordinary product then says more.
    fn told(make: impl FnOnce(*mut c_char) -> *mut c_void) -> Option<NonNull<c_void>> {
        let mut error = [0 as c_char; REASON];
        let made = NonNull::new(make(error.as_mut_ptr()));
        if made.is_none() {
            // SAFETY: zeros, into which C++ writes a string with its end.
            let reason = unsafe { CStr::from_ptr(error.as_ptr()) };
            tracing::warn!(reason = %reason.to_string_lossy(), "no packed product");
        }
        made
    }
}

#[cfg(all(test, feature = "tch"))]
mod tests {
    use burn::module::Param;
    use burn::tensor::{DType, Device, Distribution, Tensor};

    use crate::model::host_values;
    use crate::model::layers::Linear;

    fn linear(input: usize, output: usize, device: &Device) -> Linear {
        let random = Distribution::Normal(0.0, 0.5);
        Linear::new(
            Param::from_tensor(Tensor::random([output, input], random, device)),
            Param::from_tensor(Tensor::random([output], random, device)),
        )
    }

    fn assert_close<const D: usize>(found: Tensor<D>, expected: Tensor<D>) {
        assert_eq!(found.dims(), expected.dims());
        let (found, expected) = (host_values(found), host_values(expected));
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert!((found - expected).abs() <= 1e-5 * (1.0 + expected.abs()), "{i}: {found} for {expected}");
        }
    }

    #[test]
    fn packed_products_are_the_ordinary_ones() {
        #[allow(deprecated)] // as above
        let device = Device::libtorch();
        for (rows, input, output) in [(1, 1, 1), (2, 7, 3), (40, 33, 65), (130, 64, 31)] {
            let plain = linear(input, output, &device);
            let packed = plain.clone().packed();
            assert!(packed.packed.is_some());
            let x = Tensor::<2>::random([rows, input], Distribution::Normal(0.0, 1.0), &device);
            assert_close(packed.forward(x.clone()), plain.forward(x.clone()));
            assert_close(packed.forward_gelu(x.clone()), plain.forward_gelu(x.clone()));
            // More axes, and values that do not lie in the order of the axes.
            let x = Tensor::<3>::random([input, rows, 2], Distribution::Normal(0.0, 1.0), &device).permute([2, 1, 0]);
            assert_close(packed.forward(x.clone()), plain.forward(x));
        }
    }

    #[test]
    fn what_has_a_graph_or_another_type_takes_the_ordinary_product() {
        #[allow(deprecated)] // as above
        let device = Device::libtorch();
        let packed = linear(6, 4, &device).packed();
        let x = Tensor::<2>::random([3, 6], Distribution::Normal(0.0, 1.0), &device);
        let low = packed.forward(x.clone().cast(DType::BF16));
        assert_eq!(low.dtype(), DType::BF16);

        let graph = Tensor::<2>::from_data(x.clone().into_data(), &device.autodiff()).require_grad();
        let inside = packed.packed.as_ref().and_then(|packed| packed.forward(&graph, super::Then::Nothing));
        assert!(inside.is_none(), "a packed product would lose the gradient");
    }

    #[test]
    fn other_engines_pack_nothing() {
        assert!(linear(6, 4, &Device::flex()).packed().packed.is_none());
    }
}
