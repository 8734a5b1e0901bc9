// Runs the C++ tests of the files whose path contains the argument: core_tests [part of a path].
#include <cstdio>
#include <cstring>
#include <vector>

#include "check.h"

namespace {

struct Test {
  const char* file;
  const char* name;
  void (*run)();
};

std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}

int failures = 0;

}  // namespace

void register_test(const char* file, const char* name, void (*run)()) { tests().push_back({file, name, run}); }

void report_failure(const char* file, int line, const std::string& what) {
  std::fprintf(stderr, "%s:%d: %s\n", file, line, what.c_str());
  ++failures;
}

int main(int argc, char** argv) {
  int count = 0;
  for (const Test& test : tests()) {
    if (argc > 1 && std::strstr(test.file, argv[1]) == nullptr) continue;
    std::printf("%s\n", test.name);
    ++count;
    try {
      test.run();
    } catch (const std::exception& error) {
      report_failure(test.file, 0, std::string(test.name) + " threw: " + error.what());
    }
  }
  std::printf("%d tests, %d failures\n", count, failures);
  return count > 0 && failures == 0 ? 0 : 1;
}
