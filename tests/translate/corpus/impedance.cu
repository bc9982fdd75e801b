#include <cuComplex.h>
extern "C" __global__ void impedance(const cuDoubleComplex* z, cuDoubleComplex* gamma, double* size, double z0, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const cuDoubleComplex r = make_cuDoubleComplex(z0, 0.0);
  gamma[i] = cuCdiv(cuCsub(z[i], r), cuCadd(z[i], r));
  size[i] = cuCabs(gamma[i]);
}
