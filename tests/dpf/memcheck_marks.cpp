// Lets a Python program tell valgrind's memcheck which of its bytes are secret.
#include <valgrind/memcheck.h>

#include <cstddef>
#include <cstdint>

extern "C" {

int under_valgrind() { return RUNNING_ON_VALGRIND; }

// Marks the bits of `secret` that are set as undefined in `data`.
void mark(const std::uint8_t* data, const std::uint8_t* secret, std::size_t size) {
  static_cast<void>(VALGRIND_SET_VBITS(data, secret, size));
}

// Returns the number of reports so far.
unsigned reports() { return VALGRIND_COUNT_ERRORS; }
}
