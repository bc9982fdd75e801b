#include <cuda_fp16.h>
extern "C" __global__ void half2_dot(const __half2* x, const __half2* y, float* sums, int n) {
  __shared__ __half2 part[64];
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  part[threadIdx.x] = i < n ? __hmul2(x[i], y[i]) : __float2half2_rn(0.0f);
  __syncthreads();
  for (int step = 32; step > 0; step /= 2) {
    if (threadIdx.x < step) part[threadIdx.x] += part[threadIdx.x + step];
    __syncthreads();
  }
  if (threadIdx.x == 0) sums[blockIdx.x] = __low2float(part[0]) + __high2float(part[0]);
}
