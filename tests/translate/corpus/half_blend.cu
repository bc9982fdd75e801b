#include <cuda_fp16.h>
extern "C" __global__ void half_blend(const half* x, const half* y, half* o, half t, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) o[i] = __hfma(t, y[i] - x[i], x[i]);
}
