#include <cupy/complex.cuh>
// One block makes the discrete Fourier transform of 64 numbers, in place.
extern "C" __global__ void fft_step(complex<double>* data) {
  __shared__ complex<double> s[64];
  complex<double>* const row = data + blockIdx.x * 64;
  unsigned int from = __brev(threadIdx.x) >> 26;
  s[threadIdx.x] = row[from];
  __syncthreads();
  for (int half = 1; half < 64; half *= 2) {
    const int k = threadIdx.x % half, base = 2 * (threadIdx.x - k) + k;
    complex<double> a, b;
    if (threadIdx.x < 32) {
      double sine, cosine;
      sincospi(-(double)k / half, &sine, &cosine);
      a = s[base];
      b = s[base + half] * complex<double>(cosine, sine);
    }
    __syncthreads();
    if (threadIdx.x < 32) {
      s[base] = a + b;
      s[base + half] = a - b;
    }
    __syncthreads();
  }
  row[threadIdx.x] = s[threadIdx.x];
}
