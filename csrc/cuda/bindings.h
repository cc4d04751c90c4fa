// What binds the launchers of each operation; defined in <op>_bindings.cpp.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <utility>

#include "stream.h"

namespace fcnkern::cuda {

// A stream for Python is (index of the device, address of the stream).
using StreamArgs = std::pair<int, uintptr_t>;

inline Stream stream(const StreamArgs& args) { return {args.first, reinterpret_cast<void*>(args.second)}; }

void bind_confusion_matrix(pybind11::module_& m);
void bind_conv1x1(pybind11::module_& m);
void bind_upsample_add(pybind11::module_& m);
void bind_upsample_argmax(pybind11::module_& m);
void bind_upsample_cross_entropy(pybind11::module_& m);

}  // namespace fcnkern::cuda
