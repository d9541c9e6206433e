// C++ exceptions end before Rust: what failed is told as text.

#pragma once

#include <algorithm>
#include <cstring>
#include <exception>
#include <string>

#include <c10/util/Exception.h>

namespace {

void tell(char* error, size_t size, const std::string& reason) {
  if (size == 0) return;
  const size_t length = std::min(size - 1, reason.size());
  std::memcpy(error, reason.data(), length);
  error[length] = '\0';
}

// 1, or 0 with the reason in `error` when the work threw something.
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

}  // namespace
