#include "compute/cpu/isa.h"
namespace caravan::cpu {
const Kernels* avx2_kernels() {
  return nullptr;
}
}  // namespace caravan::cpu
