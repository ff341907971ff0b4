// Processor families without vector kernels of their own: the scalar twin serves.
#include "compute/cpu/isa.h"

namespace caravan::cpu {

bool has_avx2() {
  return false;
}

bool has_avx512() {
  return false;
}

const Kernels* avx2_kernels() {
  return nullptr;
}

const Kernels* avx512_kernels() {
  return nullptr;
}

}  // namespace caravan::cpu
