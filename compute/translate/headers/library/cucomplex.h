// cuComplex.h: complex numbers as float2 and double2, with functions.
#pragma once
#pragma clang attribute push(__attribute__((device)), apply_to = function)

typedef float2 cuFloatComplex;
typedef cuFloatComplex cuComplex;
typedef double2 cuDoubleComplex;
inline cuComplex make_cuComplex(float x, float y) { return make_float2(x, y); }

#define COMPLEX_(C, T, F, HYPOT, ABS)                                                                                  \
  inline C make_##C(T re, T im) { return {re, im}; }                                                                  \
  inline T cuCreal##F(C x) { return x.x; }                                                                             \
  inline T cuCimag##F(C x) { return x.y; }                                                                             \
  inline C cuConj##F(C x) { return {x.x, -x.y}; }                                                                      \
  inline C cuCadd##F(C x, C y) { return {x.x + y.x, x.y + y.y}; }                                                      \
  inline C cuCsub##F(C x, C y) { return {x.x - y.x, x.y - y.y}; }                                                      \
  inline C cuCmul##F(C x, C y) { return {x.x * y.x - x.y * y.y, x.x * y.y + x.y * y.x}; }                              \
  inline C cuCdiv##F(C x, C y) {                                                                                       \
    const T scale = (T)1 / (ABS(y.x) + ABS(y.y));                                                                      \
    const T a = x.x * scale, b = x.y * scale, c = y.x * scale, d = y.y * scale, inverse = (T)1 / (c * c + d * d);      \
    return {(a * c + b * d) * inverse, (b * c - a * d) * inverse};                                                     \
  }                                                                                                                    \
  inline T cuCabs##F(C x) { return HYPOT(x.x, x.y); }                                                                  \
  inline C cuCfma##F(C x, C y, C z) { return {x.x * y.x + z.x - x.y * y.y, x.x * y.y + z.y + x.y * y.x}; }
COMPLEX_(cuFloatComplex, float, f, hypotf, fabsf)
COMPLEX_(cuDoubleComplex, double, , hypot, fabs)
#undef COMPLEX_
inline cuComplex cuComplexDoubleToFloat(cuDoubleComplex x) { return {(float)x.x, (float)x.y}; }
inline cuDoubleComplex cuComplexFloatToDouble(cuComplex x) { return {(double)x.x, (double)x.y}; }

#pragma clang attribute pop
