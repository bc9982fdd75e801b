#include <thrust/complex.h>
template <class T> __device__ int escape(thrust::complex<T> z, const thrust::complex<T>& c, int most) {
  int k = 0;
  while (k < most && norm(z) < T(16)) {
    z = z * z + c;
    ++k;
  }
  return k;
}
extern "C" __global__ void julia(int* steps, complex<float> c, int width, int height) {
  const int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
  if (x >= width || y >= height) return;
  steps[y * width + x] = escape(complex<float>(x * 0.0625f - 2.0f, y * 0.0625f - 1.5f), c, 50);
}
