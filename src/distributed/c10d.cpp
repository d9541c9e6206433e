// PyTorch's process group (TCPStore for the rendezvous, Gloo for the exchange) behind a few C functions for c10d.rs.
// Every function that can fail returns 0 when it did, and writes the reason into `error`.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <ATen/Functions.h>
#include <c10/util/intrusive_ptr.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

struct vlp_group {
  c10::intrusive_ptr<c10d::Store> store;
  c10::intrusive_ptr<c10d::ProcessGroupGloo> gloo;
};

namespace {

void tell(char* error, size_t size, const std::string& reason) {
  if (size == 0) return;
  const size_t length = std::min(size - 1, reason.size());
  std::memcpy(error, reason.data(), length);
  error[length] = '\0';
}

template <typename Work>
int guarded(char* error, size_t size, Work work) {
  try {
    work();
    return 1;
  } catch (const c10::Error& failure) {
    tell(error, size, failure.what_without_backtrace());
  } catch (const std::exception& failure) {
    tell(error, size, failure.what());
  } catch (...) {
    tell(error, size, "an exception of an unknown type");
  }
  return 0;
}

std::vector<uint8_t> bytes_of(const std::string& text) {
  return std::vector<uint8_t>(text.begin(), text.end());
}

at::Tensor view(void* data, int64_t count, at::ScalarType type) {
  return at::from_blob(data, {count}, at::TensorOptions().dtype(type));
}

// `count` elements of every rank, one after the other, into `all`.
void all_gather(vlp_group* group, at::Tensor mine, at::Tensor all) {
  std::vector<at::Tensor> inputs{mine};
  std::vector<std::vector<at::Tensor>> outputs{all.chunk(group->gloo->getSize())};
  group->gloo->allgather(outputs, inputs)->wait();
}

} // namespace

extern "C" {

vlp_group* vlp_group_join(
    const char* host, uint16_t port, int rank, int world_size, const char* token, int64_t timeout_ms, char* error,
    size_t size) {
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
    joined = new vlp_group{prefixed, gloo};
  });
  return done ? joined : nullptr;
}

void vlp_group_leave(vlp_group* group) {
  char nothing[1];
  guarded(nothing, sizeof nothing, [&] { delete group; });
}

int vlp_group_sum(vlp_group* group, float* values, int64_t count, char* error, size_t size) {
  return guarded(error, size, [&] {
    std::vector<at::Tensor> tensors{view(values, count, at::kFloat)};
    group->gloo->allreduce(tensors)->wait();
  });
}

int vlp_group_broadcast(vlp_group* group, float* values, int64_t count, int root, char* error, size_t size) {
  return guarded(error, size, [&] {
    std::vector<at::Tensor> tensors{view(values, count, at::kFloat)};
    c10d::BroadcastOptions options;
    options.rootRank = root;
    group->gloo->broadcast(tensors, options)->wait();
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
