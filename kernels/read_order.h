// What a processor is asked before passes read pages: their order, and how it takes vectors.
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

// Tells whether the processor is AMD's of Zen 5 or later, which loads, stores and computes vectors of
// 64 bytes in one piece, where Zen 4 takes them by halves.
bool takes_whole_vectors();

}  // namespace morphogen
