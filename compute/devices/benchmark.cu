// The kernels of benchmark.py.

#define I (blockIdx.x * blockDim.x + threadIdx.x)

// Eight chains that do not wait for each other; the numbers stay near 1.
#define CHAINS(T)                                                                        \
  T a = 1 + (T)I * (T)1e-9, b = (T)0.999, c = (T)0.001;                                  \
  T v0 = a, v1 = a + 1, v2 = a + 2, v3 = a + 3, v4 = a + 4, v5 = a + 5, v6 = a + 6, v7 = a + 7; \
  for (int r = 0; r < rounds; r++) {                                                     \
    v0 = v0 * b + c; v1 = v1 * b + c; v2 = v2 * b + c; v3 = v3 * b + c;                  \
    v4 = v4 * b + c; v5 = v5 * b + c; v6 = v6 * b + c; v7 = v7 * b + c;                  \
  }                                                                                      \
  y[I] = v0 + v1 + v2 + v3 + v4 + v5 + v6 + v7;

extern "C" __global__ void flops_f32(float* y, int rounds) { CHAINS(float) }

extern "C" __global__ void flops_f64(double* y, int rounds) { CHAINS(double) }

extern "C" __global__ void stream(float* x, float* y) { y[I] = x[I] + 1.0f; }

extern "C" __global__ void finish(float* x, float* out) { out[I] = x[I]; }
