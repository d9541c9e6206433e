// Linear maps through oneDNN, on the CPU and without gradient, behind C functions for packed.rs. The weights lie in the
// layout that oneDNN's kernels read; LibTorch's ordinary products bring them there again in every call.
// Every function that can fail gives a null pointer when it did, and writes the reason into `error`.

#include <ATen/Tensor.h>
#include <ATen/core/List.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/ivalue.h>
#include <ATen/core/stack.h>

#include "../guarded.h"

namespace {

// By name, and with boxed arguments: the operators are LibTorch's own, but stand in no public header.
at::Tensor call(const char* name, torch::jit::Stack stack) {
  c10::Dispatcher::singleton().findSchemaOrThrow(name, "").callBoxed(&stack);
  return stack.at(0).toTensor();
}

// What the work gives, as a tensor of the caller's own.
template <typename Work>
at::Tensor* made(char* error, size_t size, Work work) {
  at::Tensor* tensor = nullptr;
  guarded(error, size, [&] { tensor = new at::Tensor(work()); });
  return tensor;
}

}  // namespace

extern "C" {

// Whether this LibTorch has oneDNN's products.
int vlp_has_onednn() {
  auto& dispatcher = c10::Dispatcher::singleton();
  return dispatcher.findSchema({"mkldnn::_reorder_linear_weight", ""}).has_value() &&
      dispatcher.findSchema({"mkldnn::_linear_pointwise", ""}).has_value();
}

void vlp_drop_tensor(at::Tensor* tensor) {
  delete tensor;
}

// `weight` [out, in] in oneDNN's layout.
at::Tensor* vlp_pack_weight(const at::Tensor* weight, char* error, size_t size) {
  return made(error, size, [&] {
    return call("mkldnn::_reorder_linear_weight", {weight->contiguous(), c10::IValue()});
  });
}

// `x` [..., in] times the packed weight, plus `bias` [out]; then erf-GELU where `gelu` is not 0.
at::Tensor* vlp_packed_linear(
    const at::Tensor* x, const at::Tensor* packed, const at::Tensor* bias, int gelu, char* error, size_t size) {
  return made(error, size, [&] {
    const c10::List<std::optional<at::Scalar>> no_scalars;
    const c10::IValue algorithm = gelu ? c10::IValue("none") : c10::IValue();
    return call(
        "mkldnn::_linear_pointwise",
        {x->contiguous(), *packed, *bias, c10::IValue(gelu ? "gelu" : "none"), no_scalars, algorithm});
  });
}

}  // extern "C"
