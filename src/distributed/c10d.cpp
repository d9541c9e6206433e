// PyTorch's process groups (TCPStore for the rendezvous, Gloo for CPU memory, NCCL for GPUs) behind a few C functions for
// c10d.rs. Every function that can fail returns 0 when it did, and writes the reason into `error`.
//
// NCCL is compiled in with USE_C10D_NCCL. A group then has both: Gloo carries what is small or lies on the host alone, NCCL
// the sums of gradients and the broadcasts of parameters, which pass through the memory of the rank's GPU, or lie there.
//
// A GPU does what it is given in the order of a stream. Gradients are exchanged while the backward pass goes on: on a stream
// beside its own, behind the point at which they are there (`vlp_point_now`), and by another thread, which is the one that waits.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <ATen/Context.h>
#include <ATen/Functions.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/intrusive_ptr.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#ifdef USE_C10D_NCCL
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "../guarded.h"

struct vlp_group {
  c10::intrusive_ptr<c10d::Store> store;
  c10::intrusive_ptr<c10d::ProcessGroupGloo> gloo;
  std::chrono::milliseconds timeout;
  // For large exchanges: NCCL where the rank has a GPU, Gloo where not.
  c10::intrusive_ptr<c10d::Backend> large;
  // Where its tensors lie.
  at::Device device{at::kCPU};
  // A GPU's stream for exchanges, once there was one.
  std::optional<c10::Stream> beside{};
  // After a failed exchange: NCCL would wait for the peers, and is told to end at once instead.
  bool broken = false;
};

namespace {

std::vector<uint8_t> bytes_of(const std::string& text) {
  return std::vector<uint8_t>(text.begin(), text.end());
}

at::Tensor view(void* data, int64_t count, at::ScalarType type) {
  return at::from_blob(data, {count}, at::TensorOptions().dtype(type));
}

// NCCL for the GPU of this number.
c10::intrusive_ptr<c10d::Backend> nccl_group(
    const c10::intrusive_ptr<c10d::Store>& store, int rank, int world_size, std::chrono::milliseconds timeout) {
#ifdef USE_C10D_NCCL
  // Waiting then blocks the host, and ends with an exception when a peer is lost or late. Without it PyTorch's watchdog
  // aborts the process instead. Set before the first group, unless the user decided.
  setenv("TORCH_NCCL_BLOCKING_WAIT", "1", 0);
  auto settings = c10d::ProcessGroupNCCL::Options::create();
  settings->timeout = timeout;
  auto prefixed = c10::make_intrusive<c10d::PrefixStore>("nccl", store);
  return c10::make_intrusive<c10d::ProcessGroupNCCL>(prefixed, rank, world_size, settings);
#else
  (void)store, (void)rank, (void)world_size, (void)timeout;
  throw std::runtime_error("this binary was built without NCCL (README.md, \"GPUs\")");
#endif
}

// Runs `exchange` on values, on the device of the large exchanges and in the type asked for; then writes them back.
template <typename Exchange>
void exchanged(vlp_group* group, at::Tensor values, at::ScalarType type, Exchange exchange) {
  at::Tensor sent = values.to(at::TensorOptions().device(group->device).dtype(type));
  std::vector<at::Tensor> tensors{sent};
  group->broken = true;
  exchange(tensors)->wait(group->timeout);
  // The memory of the values was exchanged when neither device nor type differ.
  if (sent.data_ptr() != values.data_ptr()) values.copy_(sent);
  group->broken = false;
}

// Replaces values by their sum over all ranks. `low`: they are rounded to bfloat16, and so is their sum.
void summed(vlp_group* group, at::Tensor values, int low) {
  exchanged(group, values, low != 0 ? at::kBFloat16 : at::kFloat, [&](std::vector<at::Tensor>& tensors) {
    c10d::AllreduceOptions options;
    options.timeout = group->timeout;
    return group->large->allreduce(tensors, options);
  });
}

// `count` elements of every rank, one after the other, into `all`.
void all_gather(vlp_group* group, at::Tensor mine, at::Tensor all) {
  std::vector<at::Tensor> inputs{mine};
  std::vector<std::vector<at::Tensor>> outputs{all.chunk(group->gloo->getSize())};
  group->gloo->allgather(outputs, inputs)->wait();
}

} // namespace

extern "C" {

// Whether products of f32 matrices may be computed in TF32 on GPUs.
void vlp_allow_tf32(int allow) {
  at::globalContext().setAllowTF32CuBLAS(allow != 0);
  at::globalContext().setAllowTF32CuDNN(allow != 0);
}

int vlp_tf32_allowed() {
  return at::globalContext().allowTF32CuBLAS() ? 1 : 0;
}

// Whether NCCL is compiled in.
int vlp_group_has_nccl() {
#ifdef USE_C10D_NCCL
  return 1;
#else
  return 0;
#endif
}

// `gpu`: the number of this rank's GPU, for a group with NCCL; -1 for one on the CPU.
vlp_group* vlp_group_join(
    const char* host, uint16_t port, int rank, int world_size, const char* token, int64_t timeout_ms, int gpu,
    char* error, size_t size) {
  vlp_group* joined = nullptr;
  const int done = guarded(error, size, [&] {
    const std::chrono::milliseconds timeout(timeout_ms);
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = rank == 0;
    options.waitWorkers = false;
    options.timeout = timeout;
    auto store = c10::make_intrusive<c10d::TCPStore>(host, options);
    store->setTimeout(timeout);
    const auto own = bytes_of(token);
    if (rank == 0) {
      store->set("token", own);
    } else if (store->get("token") != own) {
      throw std::runtime_error("refused: it belongs to another run, attempt or number of ranks");
    }
    auto prefixed = c10::make_intrusive<c10d::PrefixStore>(token, store);
    auto settings = c10d::ProcessGroupGloo::Options::create(timeout);
    const std::string name(host);
    const bool here = name == "localhost" || name.rfind("127.", 0) == 0;
    settings->devices.push_back(
        here ? c10d::ProcessGroupGloo::createDeviceForHostname("127.0.0.1")
             : c10d::ProcessGroupGloo::createDefaultDevice());
    auto gloo = c10::make_intrusive<c10d::ProcessGroupGloo>(prefixed, rank, world_size, settings);
    if (gpu < 0) {
      joined = new vlp_group{prefixed, gloo, timeout, gloo};
    } else {
      const at::Device device(at::kCUDA, static_cast<at::DeviceIndex>(gpu));
      joined = new vlp_group{prefixed, gloo, timeout, nccl_group(prefixed, rank, world_size, timeout), device};
    }
  });
  return done ? joined : nullptr;
}

void vlp_group_leave(vlp_group* group) {
  char nothing[1];
  if (!group->device.is_cpu()) {
    guarded(nothing, sizeof nothing, [&] { group->broken ? group->large->abort() : group->large->shutdown(); });
  }
  guarded(nothing, sizeof nothing, [&] { delete group; });
}

// `low`: the values are rounded to bfloat16, and so is their sum.
int vlp_group_sum(vlp_group* group, float* values, int64_t count, int low, char* error, size_t size) {
  return guarded(error, size, [&] { summed(group, view(values, count, at::kFloat), low); });
}

// The point behind all that this thread has given to the GPU of a tensor; null where it has none.
void* vlp_point_now(const void* tensor, char* error, size_t size) {
  c10::Event* point = nullptr;
  const int done = guarded(error, size, [&] {
    const at::Device device = static_cast<const at::Tensor*>(tensor)->device();
    const c10::impl::VirtualGuardImpl gpu(device.type());
    auto event = std::make_unique<c10::Event>(device.type());
    event->record(gpu.getStream(device));
    point = event.release();
  });
  return done ? point : nullptr;
}

void vlp_point_drop(void* point) {
  delete static_cast<c10::Event*>(point);
}

// Replaces a tensor (at::Tensor) on the device of the group by its mean over all ranks, where it lies. `since`: the point at
// which a GPU has its values; null where they are there, or come with what this thread gives to the GPU. `low`: as above.
int vlp_group_mean(vlp_group* group, void* tensor, void* since, int low, char* error, size_t size) {
  return guarded(error, size, [&] {
    at::Tensor values = *static_cast<at::Tensor*>(tensor);
    c10::OptionalStreamGuard beside;
    if (since != nullptr) {
      if (!group->beside) {
        const c10::impl::VirtualGuardImpl gpu(values.device().type());
        group->beside = gpu.getStreamFromGlobalPool(values.device());
      }
      static_cast<c10::Event*>(since)->block(*group->beside);
      beside.reset_stream(*group->beside);
    }
    summed(group, values, low);
    const int ranks = group->gloo->getSize();
    if (values.device().is_cpu()) {
      // LibTorch's loop would run on threads that OpenMP keeps for this thread, and that go on spinning beside the backward pass.
      float* data = values.data_ptr<float>();
      for (int64_t i = 0; i < values.numel(); ++i) data[i] /= static_cast<float>(ranks);
    } else {
      // By a tensor: GPUs multiply by the inverse of a number, which rounds once more.
      values.div_(at::full({1}, ranks, values.options()));
    }
    if (since != nullptr) group->beside->synchronize();
  });
}

int vlp_group_broadcast(vlp_group* group, float* values, int64_t count, int root, char* error, size_t size) {
  return guarded(error, size, [&] {
    exchanged(group, view(values, count, at::kFloat), at::kFloat, [&](std::vector<at::Tensor>& tensors) {
      c10d::BroadcastOptions options;
      options.rootRank = root;
      options.timeout = group->timeout;
      return group->large->broadcast(tensors, options);
    });
  });
}

// Everyone's `length` into `lengths`, which has a place per rank.
int vlp_group_lengths(vlp_group* group, int64_t length, int64_t* lengths, char* error, size_t size) {
  return guarded(error, size, [&] {
    all_gather(group, view(&length, 1, at::kLong), view(lengths, group->gloo->getSize(), at::kLong));
  });
}

// `length` bytes of every rank, the same number on all, into `all`, which has `length` bytes per rank.
int vlp_group_bytes(vlp_group* group, uint8_t* mine, int64_t length, uint8_t* all, char* error, size_t size) {
  return guarded(error, size, [&] {
    all_gather(group, view(mine, length, at::kByte), view(all, length * group->gloo->getSize(), at::kByte));
  });
}

// Rank 0 leaves a note of this number; the others look for it as long as the store answers.
int vlp_group_rest(vlp_group* group, uint64_t number, char* error, size_t size) {
  return guarded(error, size, [&] {
    const std::string note = "rest/" + std::to_string(number);
    if (group->gloo->getRank() == 0) {
      group->store->set(note, std::vector<uint8_t>{1});
      return;
    }
    while (!group->store->check({note})) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  });
}

} // extern "C"
