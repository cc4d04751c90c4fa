// Structs of parameters that Python fills field by field.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "bindings/arguments.h"

namespace fcnkern {

namespace py = pybind11;

// Binds a struct and its fields: an address is a number, 0 stands for none.
template <class Struct>
class Fields : public py::class_<Struct> {
 public:
  Fields(py::module_& m, const char* name) : py::class_<Struct>(m, name) { this->def(py::init<>()); }

  template <class T>
  Fields& address(const char* name, T* Struct::*field) {
    this->def_property(
        name, [field](const Struct& s) { return reinterpret_cast<uintptr_t>(s.*field); },
        [field](Struct& s, uintptr_t value) { s.*field = reinterpret_cast<T*>(value); });
    return *this;
  }
  template <class T>
  Fields& value(const char* name, T Struct::*field) {
    this->def_readwrite(name, field);
    return *this;
  }
  template <class T, size_t kLength>
  Fields& numbers(const char* name, T (Struct::*field)[kLength]) {
    this->def_property(name, nullptr, [field](Struct& s, const std::array<T, kLength>& values) {
      std::copy(values.begin(), values.end(), s.*field);
    });
    return *this;
  }
  Fields& tensor(const char* name, TensorView Struct::*field) {
    this->def_property(name, nullptr, [field](Struct& s, const TensorArgs& args) { s.*field = tensor_view(args); });
    return *this;
  }
};

}  // namespace fcnkern
