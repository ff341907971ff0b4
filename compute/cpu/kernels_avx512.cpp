#include "compute/cpu/isa.h"
namespace caravan::cpu {
const Kernels* avx512_kernels() {
  return nullptr;
}
}  // namespace caravan::cpu
