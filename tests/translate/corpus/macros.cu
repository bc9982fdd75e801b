// Options, conditional compilation, stringless macros, included headers that every kernel has anyway.
#include <cuda_runtime.h>
#include <math.h>
#include <stdint.h>
#if !defined(SCALE) || SCALE < 2
#error "SCALE is missing"
#endif
#define CAT2(a, b) a##b
#define CAT(a, b) CAT2(a, b)
#define KERNEL(name) extern "C" __global__ void __launch_bounds__(128) CAT(name, s)
#ifdef UNUSED
typedef double real;
#else
typedef float real;
#endif
KERNEL(macro)(const real* __restrict x, real* const out, uint32_t n) {
    const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (!(i < n)) return;
    out[i] = x[i] * SCALE + (real)M_PI + (FLT_MAX > 1e38f) + (INT_MAX > 0) + (isinf(INFINITY) && isnan(NAN));
}
