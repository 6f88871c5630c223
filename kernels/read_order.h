// The choice of the order in which passes read pages.
#pragma once

#include "host_kernels.h"

namespace morphogen {

struct ReadOrderChoice {
  ReadOrder order;
  bool measured;  // on this machine, else known of its processor's make
};

// Returns the order that is faster on this machine. The first call measures it if the make of the
// processor was never measured.
ReadOrderChoice preferred_read_order(const HostKernels& kernels);

// Measures it within some milliseconds, by passes over 4 MiB that are in no cache. Without memory
// for that, it returns ReadOrder::memory.
ReadOrder measure_read_order(const HostKernels& kernels);

}  // namespace morphogen
