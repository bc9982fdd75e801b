// cupy/atomics.cuh: the atomics that CuPy adds to CUDA's.
#pragma once
#include <cupy/float16.cuh>
#pragma clang attribute push(__attribute__((device)), apply_to = function)

inline long long atomicAdd(long long* p, long long x) {
  return (long long)atomicAdd((unsigned long long*)p, (unsigned long long)x);
}
inline float atomicMax(float* p, float x) { return atomicMax_(p, x); }
inline double atomicMax(double* p, double x) { return atomicMax_(p, x); }
inline float atomicMin(float* p, float x) { return atomicMin_(p, x); }
inline double atomicMin(double* p, double x) { return atomicMin_(p, x); }

#pragma clang attribute pop
