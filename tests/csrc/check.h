// What the C++ tests are written with: TEST(name) { CHECK(condition); }. tests/csrc/main.cpp runs them.
#pragma once

#include <stdexcept>
#include <string>

void register_test(const char* file, const char* name, void (*run)());
// Says what is wrong and goes on, so that one run shows all.
void report_failure(const char* file, int line, const std::string& what);

struct TestRegistration {
  TestRegistration(const char* file, const char* name, void (*run)()) { register_test(file, name, run); }
};

#define TEST(name)                                                        \
  static void name();                                                     \
  static const TestRegistration name##_registered(__FILE__, #name, name); \
  static void name()

#define CHECK(condition)                                              \
  do {                                                                \
    if (!(condition)) report_failure(__FILE__, __LINE__, #condition); \
  } while (false)

// The expression throws std::invalid_argument, and its message contains `words`.
#define CHECK_INVALID(expression, words)                                                                          \
  do {                                                                                                            \
    std::string message = "nothing was thrown";                                                                   \
    try {                                                                                                         \
      expression;                                                                                                 \
    } catch (const std::invalid_argument& error) {                                                                \
      message = error.what();                                                                                     \
    }                                                                                                             \
    if (message.find(words) == std::string::npos) report_failure(__FILE__, __LINE__, #expression ": " + message); \
  } while (false)
