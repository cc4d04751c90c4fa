// What <op>_bindings.h share.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <utility>

#include "stream.h"

namespace fcnkern::cuda {

// A stream for Python is (index of the device, address of the stream).
using StreamArgs = std::pair<int, uintptr_t>;

inline Stream stream(const StreamArgs& args) { return {args.first, reinterpret_cast<void*>(args.second)}; }

// A launcher that takes a struct of parameters.
template <class Params, void (*kLaunch)(const Params&, const Stream&)>
inline void launcher(const Params& params, const StreamArgs& args) {
  kLaunch(params, stream(args));
}

}  // namespace fcnkern::cuda
