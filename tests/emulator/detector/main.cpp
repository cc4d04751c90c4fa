// detector FAULT NAME...: runs cases and prints a line for each, "NAME right", "NAME wrong" or "NAME refused: why".
// Without arguments it prints the names of all.
#include <cstdio>
#include <cstdlib>
#include <stdexcept>

#include "case.h"

namespace {

template <class Act>
void for_each_case(Act&& act) {
  for (const auto* cases : {&kMemoryCases, &kOrderCases, &kCollectiveCases, &kLimitCases})
    for (const Case& each : *cases) act(each);
}

std::string outcome(const char* name, int fault) {
  std::string result = "unknown";
  for_each_case([&](const Case& each) {
    if (strcmp(each.name, name) != 0) return;
    try {
      result = each.run(fault) ? "right" : "wrong";
    } catch (const std::runtime_error& error) {
      result = std::string("refused: ") + error.what();
    }
  });
  return result;
}

}  // namespace

// For Python's ctypes: whether a case is right.
extern "C" __attribute__((visibility("default"))) bool detector_is_right(const char* name, int fault) {
  return outcome(name, fault) == "right";
}

int main(int count, char** arguments) {
  if (count == 1) for_each_case([](const Case& each) { puts(each.name); });
  for (int i = 2; i < count; ++i) {
    printf("%s %s\n", arguments[i], outcome(arguments[i], atoi(arguments[1])).c_str());
    fflush(stdout);
  }
  return 0;
}
