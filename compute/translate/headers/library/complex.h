// cupy/complex.cuh, thrust/complex.h: complex<T> with the operators and functions that CuPy gives it.
//
// Functions are computed in double, for float rounded once at the end. Branch cuts, signs of zeros and infinities are those
// of C99's Annex G; the inverse functions are Kahan's ("Branch Cuts for Complex Elementary Functions", 1987).
#pragma once
#pragma clang attribute push(__attribute__((device)), apply_to = function)

namespace thrust {

template <class T, class U> struct Greater_ { typedef T type; };  // an integer takes the other's type
template <> struct Greater_<float, double> { typedef double type; };

template <class T> struct __attribute__((aligned(2 * sizeof(T)))) complex {
  typedef T value_type;
  T re_, im_;
  complex() = default;
  complex(const T& re) : re_(re), im_(T()) {}
  complex(const T& re, const T& im) : re_(re), im_(im) {}
  template <class X> complex(const complex<X>& z) : re_((T)z.re_), im_((T)z.im_) {}
  complex& operator=(const T& re) { re_ = re; im_ = T(); return *this; }
  template <class X> complex& operator=(const complex<X>& z) { re_ = (T)z.re_; im_ = (T)z.im_; return *this; }
  complex& operator+=(complex z) { *this = *this + z; return *this; }
  complex& operator-=(complex z) { *this = *this - z; return *this; }
  complex& operator*=(complex z) { *this = *this * z; return *this; }
  complex& operator/=(complex z) { *this = *this / z; return *this; }
  T real() const volatile { return re_; }
  T imag() const volatile { return im_; }
  void real(T re) volatile { re_ = re; }
  void imag(T im) volatile { im_ = im; }

  // friends, so that the other operand may be any number
  friend complex operator+(const complex& a, const complex& b) { return complex(a.re_ + b.re_, a.im_ + b.im_); }
  friend complex operator+(const complex& a, const T& b) { return complex(a.re_ + b, a.im_); }
  friend complex operator+(const T& a, const complex& b) { return complex(a + b.re_, b.im_); }
  friend complex operator-(const complex& a, const complex& b) { return complex(a.re_ - b.re_, a.im_ - b.im_); }
  friend complex operator-(const complex& a, const T& b) { return complex(a.re_ - b, a.im_); }
  friend complex operator-(const T& a, const complex& b) { return complex(a - b.re_, -b.im_); }
  friend complex operator*(const complex& a, const complex& b) {
    return complex(a.re_ * b.re_ - a.im_ * b.im_, a.re_ * b.im_ + a.im_ * b.re_);
  }
  friend complex operator*(const complex& a, const T& b) { return complex(a.re_ * b, a.im_ * b); }
  friend complex operator*(const T& a, const complex& b) { return complex(a * b.re_, a * b.im_); }
  friend complex operator/(const complex& a, const complex& b) {  // scaled, so that no square overflows
    const T scale = T(1) / (::abs(b.re_) + ::abs(b.im_));
    const T re = a.re_ * scale, im = a.im_ * scale, c = b.re_ * scale, d = b.im_ * scale, inverse = T(1) / (c * c + d * d);
    return complex((re * c + im * d) * inverse, (im * c - re * d) * inverse);
  }
  friend complex operator/(const complex& a, const T& b) { return complex(a.re_ / b, a.im_ / b); }
  friend complex operator/(const T& a, const complex& b) { return complex(a) / b; }
  friend complex operator+(const complex& z) { return z; }
  friend complex operator-(const complex& z) { return complex(-z.re_, -z.im_); }
  friend bool operator==(const complex& a, const complex& b) { return a.re_ == b.re_ && a.im_ == b.im_; }
  friend bool operator!=(const complex& a, const complex& b) { return !(a == b); }
  // NumPy's order: by the real part, then by the imaginary part
  friend bool operator<(const complex& a, const complex& b) { return a.re_ < b.re_ || (a.re_ == b.re_ && a.im_ < b.im_); }
  friend bool operator>(const complex& a, const complex& b) { return b < a; }
  friend bool operator<=(const complex& a, const complex& b) { return a < b || a == b; }
  friend bool operator>=(const complex& a, const complex& b) { return b < a || a == b; }
};

template <class T> T real(const complex<T>& z) { return z.re_; }
template <class T> T imag(const complex<T>& z) { return z.im_; }
template <class T> complex<T> conj(const complex<T>& z) { return complex<T>(z.re_, -z.im_); }
template <class T> T abs(const complex<T>& z) { return ::hypot(z.re_, z.im_); }
template <class T> T arg(const complex<T>& z) { return ::atan2(z.im_, z.re_); }
template <class T> T norm(const complex<T>& z) { return z.re_ * z.re_ + z.im_ * z.im_; }
template <class T> complex<T> polar(const T& m, const T& theta = T()) {
  return complex<T>(m * ::cos(theta), m * ::sin(theta));
}
template <class T> complex<T> proj(const complex<T>& z) {
  return ::isinf(z.re_) || ::isinf(z.im_) ? complex<T>((T)INFINITY, ::copysign(T(), z.im_)) : z;
}

namespace detail_ {
typedef complex<double> Z;
inline Z times_i(Z z) { return Z(-z.im_, z.re_); }
inline Z over_i(Z z) { return Z(z.im_, -z.re_); }
inline double part(double size, double direction) {  // size * direction, where a direction of 0 wins over infinity
  return direction == 0.0 ? direction : size * direction;
}
inline Z exp(Z z) {
  double s, c;
  ::sincos(z.im_, &s, &c);
  if (::isinf(z.re_) && !::isfinite(z.im_)) return z.re_ < 0.0 ? Z(0.0, ::copysign(0.0, z.im_)) : Z(z.re_, NAN);
  const bool large = z.re_ > 709.0 && z.re_ < 1500.0;  // e^x may overflow where e^x * cos y does not
  const double e = ::exp(large ? z.re_ - 700.0 : z.re_), more = large ? 0x1.d945df4f8ec8ep+1009 : 1.0;
  return Z(part(e, c) * more, part(e, s) * more);
}
inline double log_abs(Z z) {
  const double x = ::fabs(z.re_), y = ::fabs(z.im_), a = x > y ? x : y, b = x > y ? y : x, h = ::hypot(x, y);
  if (h > 0.7 && h < 1.5) {  // |z|^2 - 1 without cancellation
    const double p = b * b;
    return 0.5 * ::log1p(::fma(a - 1.0, a + 1.0, p) + ::fma(b, b, -p));
  }
  if (h < 0x1p-1000) return ::log(::hypot(a * 0x1p200, b * 0x1p200)) - 0x1.1542457337d43p+7;
  return ::isinf(h) && ::isfinite(a) ? ::log(::hypot(a * 0.25, b * 0.25)) + 0x1.62e42fefa39efp+0 : ::log(h);
}
inline Z log(Z z) { return Z(log_abs(z), ::atan2(z.im_, z.re_)); }
inline Z sqrt(Z z) {
  if (::isinf(z.im_)) return Z(INFINITY, z.im_);
  if (::isinf(z.re_)) {
    const double other = ::isnan(z.im_) ? z.im_ : 0.0;
    return z.re_ > 0.0 ? Z(z.re_, ::copysign(other, z.im_)) : Z(other, ::copysign((double)INFINITY, z.im_));
  }
  if (z.re_ == 0.0 && z.im_ == 0.0) return Z(0.0, z.im_);
  const double size = ::fmax(::fabs(z.re_), ::fabs(z.im_));
  const double up = size > 0x1p1000 ? 0x1p-60 : size < 0x1p-900 ? 0x1p120 : 1.0;
  const double down = size > 0x1p1000 ? 0x1p30 : size < 0x1p-900 ? 0x1p-60 : 1.0;
  const double x = z.re_ * up, y = z.im_ * up, t = ::sqrt((::fabs(x) + ::hypot(x, y)) * 0.5), other = ::fabs(y) / (2.0 * t);
  return x >= 0.0 ? Z(t * down, ::copysign(other * down, y)) : Z(other * down, ::copysign(t * down, y));
}
inline Z cosh(Z z) {
  double s, c;
  ::sincos(z.im_, &s, &c);
  const double x = ::fabs(z.re_);
  if (::isinf(x) && !::isfinite(z.im_)) return Z(x, NAN);
  if (x == 0.0) return Z(c, ::isfinite(z.im_) ? z.re_ * s : 0.0);
  if (x > 700.0 && x < 1500.0) {
    const Z e = exp(Z(x - 0x1.62e42fefa39efp-1, z.im_));
    return Z(e.re_, z.re_ < 0.0 ? -e.im_ : e.im_);
  }
  return Z(part(::cosh(z.re_), c), part(::sinh(z.re_), s));
}
inline Z sinh(Z z) {
  double s, c;
  ::sincos(z.im_, &s, &c);
  const double x = ::fabs(z.re_);
  if (::isinf(x) && !::isfinite(z.im_)) return Z(z.re_, NAN);
  if (x == 0.0) return Z(::isfinite(z.im_) ? z.re_ * c : z.re_, s);
  if (x > 700.0 && x < 1500.0) {
    const Z e = exp(Z(x - 0x1.62e42fefa39efp-1, z.im_));
    return Z(z.re_ < 0.0 ? -e.re_ : e.re_, e.im_);
  }
  return Z(part(::sinh(z.re_), c), part(::cosh(z.re_), s));
}
inline Z tanh(Z z) {
  double s, c;
  ::sincos(z.im_, &s, &c);
  if (::fabs(z.re_) > 22.0) {
    const double e = ::isfinite(z.im_) ? 4.0 * s * c * ::exp(-2.0 * ::fabs(z.re_)) : ::copysign(0.0, z.im_);
    return Z(::copysign(1.0, z.re_), e);
  }
  if (!::isfinite(z.im_)) return Z(z.re_ == 0.0 ? z.re_ : (double)NAN, NAN);
  const double t = s / c, beta = 1.0 + t * t, h = ::sinh(z.re_), rho = ::sqrt(1.0 + h * h);
  if (::fabs(t) > 0x1p500) return Z(rho / h, 1.0 / t);
  const double d = 1.0 + beta * h * h;
  return Z(beta * rho * h / d, t / d);
}
inline Z asin(Z z) {
  const Z a = sqrt(Z(1.0 - z.re_, -z.im_)), b = sqrt(Z(1.0 + z.re_, z.im_));
  return Z(::atan2(z.re_, a.re_ * b.re_ - a.im_ * b.im_), ::asinh(a.re_ * b.im_ - a.im_ * b.re_));
}
inline Z acos(Z z) {
  const Z a = sqrt(Z(1.0 - z.re_, -z.im_)), b = sqrt(Z(1.0 + z.re_, z.im_));
  return Z(2.0 * ::atan2(a.re_, b.re_), ::asinh(b.re_ * a.im_ - b.im_ * a.re_));
}
inline Z acosh(Z z) {
  const Z a = sqrt(Z(z.re_ - 1.0, z.im_)), b = sqrt(Z(z.re_ + 1.0, z.im_));
  return Z(::asinh(a.re_ * b.re_ + a.im_ * b.im_), 2.0 * ::atan2(a.im_, b.re_));
}
inline Z asinh(Z z) { return over_i(asin(times_i(z))); }
inline Z atanh(Z z) {
  const double x = ::fabs(z.re_), y = ::fabs(z.im_), far = 0x1p500;
  if (x > far || y > far) {  // 1 / z, and a quarter turn
    const double re = ::isinf(x) || ::isinf(y) ? 0.0 : x > y ? 1.0 / (x + y * (y / x)) : x / y / y / (1.0 + (x / y) * (x / y));
    return Z(::copysign(re, z.re_), ::copysign(0x1.921fb54442d18p+0, z.im_));
  }
  const double d = (1.0 - x) * (1.0 - x) + y * y, angle = ::atan2(2.0 * y, (1.0 - x) * (1.0 + x) - y * y);
  return Z(::copysign(0.25 * ::log1p(4.0 * x / d), z.re_), ::copysign(0.5 * angle, z.im_));
}
inline Z atan(Z z) { return over_i(atanh(times_i(z))); }
inline Z sin(Z z) { return over_i(sinh(times_i(z))); }
inline Z cos(Z z) { return cosh(times_i(z)); }
inline Z tan(Z z) { return over_i(tanh(times_i(z))); }
}  // namespace detail_

#define FUNCTION_(N) \
  template <class T> complex<T> N(const complex<T>& z) { return complex<T>(detail_::N(complex<double>(z))); }
FUNCTION_(exp) FUNCTION_(log) FUNCTION_(sqrt) FUNCTION_(sin) FUNCTION_(cos) FUNCTION_(tan) FUNCTION_(sinh) FUNCTION_(cosh)
FUNCTION_(tanh) FUNCTION_(asin) FUNCTION_(acos) FUNCTION_(atan) FUNCTION_(asinh) FUNCTION_(acosh) FUNCTION_(atanh)
#undef FUNCTION_
template <class T> complex<T> log10(const complex<T>& z) { return complex<T>(log(complex<double>(z)) / 2.302585092994045684); }
template <class T> complex<T> pow(const complex<T>& x, const complex<T>& y) {
  return complex<T>(detail_::exp(detail_::log(complex<double>(x)) * complex<double>(y)));
}
template <class T> complex<T> pow(const complex<T>& x, const T& y) {
  return complex<T>(detail_::exp(detail_::log(complex<double>(x)) * (double)y));
}
template <class T> complex<T> pow(const T& x, const complex<T>& y) {
  return complex<T>(detail_::exp(detail_::log(complex<double>((double)x)) * complex<double>(y)));
}
template <class T, class U> complex<typename Greater_<T, U>::type> pow(const complex<T>& x, const complex<U>& y) {
  typedef complex<typename Greater_<T, U>::type> C;
  return pow(C(x), C(y));
}
template <class T, class U> complex<typename Greater_<T, U>::type> pow(const complex<T>& x, const U& y) {
  typedef typename Greater_<T, U>::type G;
  return pow(complex<G>(x), (G)y);
}
template <class T, class U> complex<typename Greater_<U, T>::type> pow(const T& x, const complex<U>& y) {
  typedef typename Greater_<U, T>::type G;
  return pow((G)x, complex<G>(y));
}

}  // namespace thrust

using thrust::complex;
using thrust::conj;
using thrust::real;
using thrust::imag;
using thrust::arg;
using thrust::norm;
using thrust::polar;
using thrust::proj;
using thrust::abs;
using thrust::exp;
using thrust::log;
using thrust::log10;
using thrust::pow;
using thrust::sqrt;
using thrust::sin;
using thrust::cos;
using thrust::tan;
using thrust::sinh;
using thrust::cosh;
using thrust::tanh;
using thrust::asin;
using thrust::acos;
using thrust::atan;
using thrust::asinh;
using thrust::acosh;
using thrust::atanh;
template <class T> bool isnan(complex<T> z) { return isnan(z.re_) || isnan(z.im_); }
template <class T> bool isinf(complex<T> z) { return isinf(z.re_) || isinf(z.im_); }
template <class T> bool isfinite(complex<T> z) { return isfinite(z.re_) && isfinite(z.im_); }
template <class T> complex<T> log1p(complex<T> z) { return log(z + T(1)); }
template <class T> complex<T> log2(complex<T> z) { return log(z) / log(T(2)); }
template <class T> complex<T> expm1(complex<T> z) { return exp(z) - T(1); }
template <class T> complex<T> min(complex<T> a, complex<T> b) { return isnan(a) ? b : isnan(b) ? a : b < a ? b : a; }
template <class T> complex<T> max(complex<T> a, complex<T> b) { return isnan(a) ? b : isnan(b) ? a : b > a ? b : a; }
template <class T> complex<T> rint(complex<T> z) { return complex<T>(rint(z.re_), rint(z.im_)); }

#pragma clang attribute pop
