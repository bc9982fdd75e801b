extern "C" __global__ void special_functions(const double* x, double* o, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const double v = x[i];
  o[i] = tgamma(v);
  o[n + i] = exp(lgamma(v));
  o[2 * n + i] = normcdf(v) - normcdf(-v);
  o[3 * n + i] = erfinv(erf(v / 4)) * 4;
  o[4 * n + i] = j0(v) * y1(v) - j1(v) * y0(v);
  o[5 * n + i] = cyl_bessel_i0(v);
  o[6 * n + i] = norm3d(v, 2 * v, 2 * v) + remainder(v, 1.5) + sinpi(v);
}
