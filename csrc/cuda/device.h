// What CUDA devices there are, and whether this build has code for them.
#pragma once

#include <optional>
#include <string>
#include <utility>

namespace fcnkern::cuda {

// How many devices the driver shows and, where there are none, why.
std::pair<int, std::string> device_count();

// Why the kernels of this build cannot run on a device, or nothing.
std::optional<std::string> device_refusal(int device);

}  // namespace fcnkern::cuda
