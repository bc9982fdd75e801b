#include <cupy/float16.cuh>
extern "C" __global__ void float16_class(const float16* x, float16* o, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  float16 y = x[i] * x[i] + 1.0f;
  y /= 3;
  o[i] = isnan(x[i]) ? float16(0) : max(y, float16(0.5));
}
