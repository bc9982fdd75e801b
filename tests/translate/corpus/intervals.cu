// Interval arithmetic: what is certain about (a + b) * c / d.
extern "C" __global__ void intervals(const double* a, const double* b, double* low, double* high, float* root, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  low[i] = __ddiv_rd(__dmul_rd(__dadd_rd(a[i], b[i]), 3.0), 7.0);
  high[i] = __ddiv_ru(__dmul_ru(__dadd_ru(a[i], b[i]), 3.0), 7.0);
  root[i] = __fsub_ru(__fsqrt_ru((float)a[i]), __fsqrt_rd((float)a[i]));
}
