// cupy/float16.cuh: CuPy's half. It has no arithmetic: it turns into float, and float into it, rounded.
#pragma once
#include <cuda_fp16.h>
#pragma clang attribute push(__attribute__((device)), apply_to = function)

class float16 {
  __half data_;

 public:
  static const unsigned short nan = 0x7e00;
  float16() = default;
  float16(float x) : data_(x) {}
  explicit float16(double x) : data_(x) {}
  template <class T, class = typename Integral_<T>::Double> explicit float16(T x) : data_(x) {}
  explicit float16(const __half& x) : data_(x) {}
  explicit float16(const __half_raw& x) : data_(x) {}
  operator float() const { return data_; }
  template <class T> float16& operator=(const T& x) { *this = float16(x); return *this; }
  unsigned short to_bits() const { return data_.bits_; }
  static float16 from_bits(unsigned short x) { return float16(__ushort_as_half(x)); }
  int iszero() const { return (to_bits() & 0x7fff) == 0; }
  int isnan() const { return (to_bits() & 0x7fff) > 0x7c00; }
  int isinf() const { return (to_bits() & 0x7fff) == 0x7c00; }
  int isfinite() const { return (to_bits() & 0x7c00) != 0x7c00; }
  int signbit() const { return (to_bits() & 0x8000) != 0; }
  template <class T> float16& operator+=(const T& x) { *this = *this + x; return *this; }
  template <class T> float16& operator-=(const T& x) { *this = *this - x; return *this; }
  template <class T> float16& operator*=(const T& x) { *this = *this * x; return *this; }
  template <class T> float16& operator/=(const T& x) { *this = *this / x; return *this; }
};
inline float16 min(float16 x, float16 y) { return float16(min((float)x, (float)y)); }
inline float16 max(float16 x, float16 y) { return float16(max((float)x, (float)y)); }
inline float16 fmin(float16 x, float16 y) { return float16(fminf(x, y)); }
inline float16 fmax(float16 x, float16 y) { return float16(fmaxf(x, y)); }
inline int iszero(float16 x) { return x.iszero(); }
inline int isnan(float16 x) { return x.isnan(); }
inline int isinf(float16 x) { return x.isinf(); }
inline int isfinite(float16 x) { return x.isfinite(); }
inline int signbit(float16 x) { return x.signbit(); }
inline float16 copysign(float16 x, float16 y) {
  return float16::from_bits((unsigned short)((x.to_bits() & 0x7fff) | (y.to_bits() & 0x8000)));
}
inline float16 nextafter(float16 x, float16 y) {
  const unsigned short bits = x.to_bits();
  if (!x.isfinite() || y.isnan()) return float16::from_bits(float16::nan);
  if ((float)x == (float)y) return x;
  if (x.iszero()) return float16::from_bits((unsigned short)((y.to_bits() & 0x8000) + 1));
  return float16::from_bits((unsigned short)(((float)x < (float)y) == (bits < 0x8000) ? bits + 1 : bits - 1));
}
inline float16 atomicAdd(float16* p, float16 x) {
  return float16::from_bits(atomicAdd_half((unsigned short*)p, x.to_bits()));
}

#pragma clang attribute pop
