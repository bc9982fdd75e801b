// Double precision.
extern "C" __global__ void double_maths(const double* x, double* out, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    double v = x[i], s, c;
    sincos(v, &s, &c);
    double r = exp(-v * v) + log1p(fabs(v)) + pow(fabs(v) + 0.1, 1.7) + atan2(s, c) + tanh(v) + erf(v) + cbrt(v);
    int e;
    double m = frexp(v, &e), whole, part = modf(v, &whole);
    out[i] = r + fma(v, s, c) + m * e + part - whole + fmod(v, 0.7) + hypot(v, 2.0) + fmax(v, 0.0) + ldexp(s, 3) + sqrt(fabs(v));
}
