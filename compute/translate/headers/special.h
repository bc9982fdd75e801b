// The special functions: gamma, inverses of the error function, the normal distribution, Bessel functions, norms,
// remainders. As maths.h: only + - * / sqrt, comparisons and bit operations, in a fixed order.
//
// The coefficients are ours: Chebyshev interpolation of values that mpmath computed with 160 bits.
#pragma once

namespace cuda {

template <u32 N> INLINE f64 polynomial(const f64 (&c)[N], f64 x) {
  f64 y = c[N - 1];
  for (i32 k = (i32)N - 2; k >= 0; --k) y = y * x + c[k];
  return y;
}
template <u32 N> INLINE f64 chebyshev(const f64 (&c)[N], f64 t) {  // -1 <= t <= 1, by Clenshaw's recurrence
  f64 a = 0.0, b = 0.0;
  for (i32 k = (i32)N - 1; k > 0; --k) {
    const f64 next = (t + t) * a - b + c[k];
    b = a;
    a = next;
  }
  return t * a - b + c[0];
}

// ---- circles in half turns
INLINE f64 half_turn(f64 x, i64* n) {  // x = 2 k + n / 2 + f, |f| <= 1/4; all exact
  const f64 r = x - 2.0 * rint(x * 0.5), q = rint(r * 2.0);
  *n = (i64)to_integer<i32>(q);
  return r - q * 0.5;
}
INLINE f64 sin_quarter(f64 f, i64 n) {
  const Double2 p = two_product(f, 2.0 * PI_2), y = fast_two_sum(p.hi, p.lo + f * (2.0 * PI_2_LO));
  return quadrant(sin_kernel(y.hi, y.lo), cos_kernel(y.hi, y.lo), n);
}
INLINE f64 sinpi(f64 x) {
  i64 n;
  const f64 f = half_turn(x, &n), y = sin_quarter(f, n);
  return isfinite(x) ? (trunc(x) == x ? copysign(0.0, x) : y) : NOT_A_NUMBER;
}
INLINE f64 cospi(f64 x) {
  i64 n;
  const f64 f = half_turn(x, &n), y = sin_quarter(f, n + 1);
  return isfinite(x) ? (y == 0.0 ? 0.0 : y) : NOT_A_NUMBER;
}
INLINE f32 sinpif(f32 x) { return (f32)sinpi((f64)x); }
INLINE f32 cospif(f32 x) { return (f32)cospi((f64)x); }
INLINE void sincospi(f64 x, f64* s, f64* c) {
  *s = sinpi(x);
  *c = cospi(x);
}
INLINE void sincospif(f32 x, f32* s, f32* c) {
  *s = sinpif(x);
  *c = cospif(x);
}

// ---- norms
INLINE f64 norm_scale(f64 large) { return large > 0x1p500 ? 0x1p-600 : large < 0x1p-500 ? 0x1p600 : 1.0; }
INLINE Double2 add_square(Double2 sum, f64 x) {
  const Double2 p = two_product(x, x), s = two_sum(sum.hi, p.hi);
  return {s.hi, s.lo + (sum.lo + p.lo)};
}
INLINE f64 norm4d(f64 x, f64 y, f64 z, f64 w) {
  const f64 a = fmax(fmax(fabs(x), fabs(y)), fmax(fabs(z), fabs(w))), s = norm_scale(a);
  const Double2 t = add_square(add_square(add_square(add_square({0.0, 0.0}, x * s), y * s), z * s), w * s);
  return a == INF ? INF : sqrt(t.hi + t.lo) / s;
}
INLINE f64 norm3d(f64 x, f64 y, f64 z) { return norm4d(x, y, z, 0.0); }
INLINE f64 norm(i32 n, const f64* x) {
  f64 a = 0.0;
  for (i32 k = 0; k < n; ++k) a = fmax(a, fabs(x[k]));
  const f64 s = norm_scale(a);
  Double2 t = {0.0, 0.0};
  for (i32 k = 0; k < n; ++k) t = add_square(t, x[k] * s);
  return a == INF ? INF : sqrt(t.hi + t.lo) / s;
}
INLINE f32 norm3df(f32 x, f32 y, f32 z) { return (f32)norm3d(x, y, z); }
INLINE f32 norm4df(f32 x, f32 y, f32 z, f32 w) { return (f32)norm4d(x, y, z, w); }
INLINE f64 normf_double(i32 n, const f32* x) {
  f64 sum = 0.0;
  bool infinite = false;
  for (i32 k = 0; k < n; ++k) {
    infinite = infinite || isinf(x[k]);
    sum += (f64)x[k] * (f64)x[k];
  }
  return infinite ? INF : sqrt(sum);
}
INLINE f32 normf(i32 n, const f32* x) { return (f32)normf_double(n, x); }
INLINE f64 rnorm4d(f64 x, f64 y, f64 z, f64 w) { return 1.0 / norm4d(x, y, z, w); }
INLINE f64 rnorm3d(f64 x, f64 y, f64 z) { return 1.0 / norm3d(x, y, z); }
INLINE f64 rnorm(i32 n, const f64* x) { return 1.0 / norm(n, x); }
INLINE f64 rhypot(f64 x, f64 y) { return 1.0 / hypot(x, y); }
INLINE f32 rnorm4df(f32 x, f32 y, f32 z, f32 w) { return (f32)rnorm4d(x, y, z, w); }
INLINE f32 rnorm3df(f32 x, f32 y, f32 z) { return (f32)rnorm3d(x, y, z); }
INLINE f32 rnormf(i32 n, const f32* x) { return (f32)(1.0 / normf_double(n, x)); }
INLINE f32 rhypotf(f32 x, f32 y) { return (f32)rhypot((f64)x, (f64)y); }

// ---- remainders, neighbours, exponents
INLINE f64 remquo(f64 x, f64 y, i32* quotient) {  // x - n y, n the nearest integer; the low 3 bits of n
  *quotient = 0;
  if ((x != x) | (y != y) | !(fabs(x) < INF) | (y == 0.0)) return NOT_A_NUMBER;
  if (fabs(y) == INF) return x;
  const f64 b = fabs(y);
  f64 a = 8.0 * b < INF ? fabs(fmod(x, 8.0 * b)) : fabs(x);
  i32 n = 0;
  for (i32 k = 4; k > 0; k >>= 1) {
    const bool over = a >= b * k;
    a = over ? a - b * k : a;
    n += over ? k : 0;
  }
  const bool up = a > b - a || (a == b - a && (n & 1));
  a = up ? a - b : a;
  n = (n + up) & 7;
  *quotient = (as<i64>(x) < 0) != (as<i64>(y) < 0) ? -n : n;
  return a == 0.0 ? copysign(0.0, x) : as<i64>(x) < 0 ? -a : a;
}
INLINE f64 remainder(f64 x, f64 y) {
  i32 n;
  return remquo(x, y, &n);
}
INLINE f32 remquof(f32 x, f32 y, i32* quotient) { return (f32)remquo((f64)x, (f64)y, quotient); }
INLINE f32 remainderf(f32 x, f32 y) { return (f32)remainder((f64)x, (f64)y); }
INLINE f64 nextafter(f64 x, f64 y) {
  const f64 up = x == INF ? x : next_up(x), down = x == -INF ? x : -next_up(-x);
  return (x != x) | (y != y) ? x + y : x == y ? y : x < y ? up : down;
}
INLINE f32 nextafterf(f32 x, f32 y) {
  const f32 inf = __builtin_inff(), up = x == inf ? x : next_up(x), down = x == -inf ? x : -next_up(-x);
  return (x != x) | (y != y) ? x + y : x == y ? y : x < y ? up : down;
}
INLINE i32 ilogb(f64 x) {
  i32 e;
  frexp(x, &e);
  return isfinite(x) & (x != 0.0) ? e - 1 : isinf(x) ? 2147483647 : -2147483647 - 1;
}
INLINE i32 ilogbf(f32 x) { return ilogb((f64)x); }
INLINE f64 logb(f64 x) { return x != x ? x : isinf(x) ? INF : x == 0.0 ? -INF : (f64)ilogb(x); }
INLINE f32 logbf(f32 x) { return (f32)logb((f64)x); }

// ---- gamma: a polynomial around an integer, a product from there on; Stirling's series far out
constexpr f64 RECIPROCAL_GAMMA[] = {
    0x1.0000000000000p+0, 0x1.2788cfc6fb619p-1, -0x1.4fcf4026afa23p-1, -0x1.5815e8fa270c8p-5, 0x1.5512320b4315ap-3,
    -0x1.59af103c3247bp-5, -0x1.3b4af282b78e3p-7, 0x1.d919c52694d15p-8, -0x1.317113b01a754p-10,
    -0x1.c364fc2233021p-13, 0x1.0c8ab4f733f89p-13, -0x1.51cf16352673bp-16, -0x1.503b2da6810abp-20,
    0x1.304a8e9f2618fp-20, -0x1.aeb8ccfdec4bbp-23, 0x1.4e69ce5be5443p-28};
constexpr f64 LOG_GAMMA[] = {
    0x1.b0ee6072093cep-2, 0x1.4a34cc4a60fa7p-2, -0x1.13e001a557553p-4, 0x1.51322ac7d7fc5p-6, -0x1.e404fc21d9ad8p-8,
    0x1.7add6eae5cf8dp-9, -0x1.38ac5bfc8c74fp-10, 0x1.0b36af3396a97p-11, -0x1.d3fd6abbae2e2p-13,
    0x1.a127dd5e6d560p-14, -0x1.78d8f2a5f3ab8p-15, 0x1.5806d073ccafbp-16, -0x1.3d4d5370889d0p-17,
    0x1.26411ef9939a3p-18, -0x1.08f899474c9b8p-19, 0x1.edea6fb5168a4p-21, -0x1.380e68ad42041p-21,
    0x1.2b5bff4d053adp-22};
constexpr f64 STIRLING[] = {
    0x1.5555555555555p-4, -0x1.6c16c16c16983p-9, 0x1.a01a019c0cadbp-11, -0x1.381377a4eebf6p-11, 0x1.b94711212bda0p-11,
    -0x1.f381180ab6968p-10, 0x1.68216e7444570p-8};
INLINE f64 stirling(f64 x) { return polynomial(STIRLING, 1.0 / (x * x)) / x; }
INLINE f64 gamma_near(f64 x) {  // |x| <= 13, no integer below 1
  const f64 n = rint(x), f = x - n, base = polynomial(RECIPROCAL_GAMMA, f);  // 1 / gamma(1 + f)
  Double2 p = {1.0, 0.0};
  for (f64 k = 1.0; k < n; k += 1.0) {  // (1 + f) ... (n - 1 + f), each exact
    const Double2 q = two_product(p.hi, x - (n - k));
    p = {q.hi, q.lo + p.lo * (x - (n - k))};
  }
  if (n >= 1.0) return (p.hi + p.lo) / base;
  for (f64 k = 0.0; k >= n; k -= 1.0) {  // (n + f) ... (0 + f)
    const Double2 q = two_product(p.hi, x + (k - n));
    p = {q.hi, q.lo + p.lo * (x + (k - n))};
  }
  const f64 y = 1.0 / (base * p.hi);
  return isfinite(y) ? y - y * (p.lo / p.hi) : y;
}
INLINE f64 gamma_far(f64 x, i64 down) {  // gamma(x) / 2^down for 12 < x < 190
  const Double2 l = log_double2(x), p = two_product(l.hi, x - 0.5), s = two_sum(p.hi, -x);
  const f64 lo = p.lo + l.lo * (x - 0.5) + s.lo + (0x1.d67f1c864beb5p-1 + stirling(x));  // log(2 pi) / 2
  const Double2 sum = two_sum(s.hi, lo);
  const Reduced r = exp_reduce(sum.hi);
  const Double2 t = two_sum(r.hi, r.lo + sum.lo);
  return scale(1.0 + expm1_reduced(t.hi, t.lo), r.n - down);
}
INLINE f64 tgamma(f64 x) {
  if (x != x) return x;
  if (x == 0.0) return copysign(INF, x);
  if (x == -INF || (x < 0.0 && trunc(x) == x)) return NOT_A_NUMBER;
  if (x > 12.0) return x > 172.0 ? INF : gamma_far(x, 0);
  if (x > -12.0) return gamma_near(x);
  const f64 s = sinpi(x);  // gamma(x) gamma(-x) = -pi / (x sin(pi x))
  return x < -186.0 ? copysign(0.0, -s) : -(2.0 * PI_2) / (x * s) / gamma_far(-x, 200) * 0x1p-200;
}
INLINE f64 log_gamma_far(f64 x) {  // x > 12
  const Double2 l = log_double2(x), p = two_product(l.hi - 1.0, x - 0.5);
  return p.hi + (p.lo + l.lo * (x - 0.5) + (0x1.acfe390c97d69p-2 + stirling(x)));
}
INLINE f64 log_gamma_positive(f64 x) {
  if (x > 12.0) return x > 0x1p1014 ? INF : log_gamma_far(x);
  const f64 n = rint(x), f = x - n, base = f * polynomial(LOG_GAMMA, f);  // log gamma(2 + f)
  if (n == 0.0) return base - log1p(f) - log(f);
  if (n == 1.0) return base - log1p(f);
  f64 p = 1.0;
  for (f64 k = 2.0; k < n; k += 1.0) p *= x - (n - k);
  return n == 2.0 ? base : base + log(p);
}
INLINE f64 lgamma(f64 x) {
  if (x != x) return x;
  if (fabs(x) == INF || (x <= 0.0 && trunc(x) == x)) return INF;
  if (x > 0.0) return log_gamma_positive(x);
  if (x > -0x1p-60) return -log(-x);
  return log(2.0 * PI_2 / fabs(x * sinpi(x))) - log_gamma_positive(-x);
}
INLINE f32 tgammaf(f32 x) { return (f32)tgamma((f64)x); }
INLINE f32 lgammaf(f32 x) { return (f32)lgamma((f64)x); }

// ---- the error function, scaled and inverted; the normal distribution
INLINE f64 exp_square(f64 x) {  // exp(x * x)
  const Double2 p = two_product(x, x);
  const f64 y = exp(p.hi);
  return isfinite(y) ? y + y * p.lo : y;
}
INLINE f64 erfcx(f64 x) {
  const f64 c = x < 1.25 ? 1.25 : x > 28.0 ? 28.0 : x, s = 1.0 / (x * x);
  const f64 middle = exp(erfc_exponent(c) - 0.5625) / c;
  const f64 rest = 6.5625 - s * (29.53125 - s * (162.421875 - s * 1055.7421875));
  const f64 series = 1.0 - s * (0.5 - s * (0.75 - s * (1.875 - s * rest)));
  const f64 far = 0x1.20dd750429b6dp-1 / x * series;  // 1 / sqrt(pi)
  const f64 near = x > -26.8 ? exp_square(x) * erfc(x) : INF;
  return x != x ? x : x < 1.25 ? near : x > 28.0 ? far : middle;
}
// Winitzki's approximation, wrong by 0.4 %, then Halley's steps, each of which triples the digits once it is near
INLINE f64 erfcinv_guess(f64 y) {  // 0 < y <= 1
  const f64 l = log(y * (2.0 - y)), a = 4.330746750799873 + 0.5 * l;  // 2 / (pi 0.147)
  return sqrt(sqrt(a * a - l / 0.147) - a);
}
INLINE f64 erfcinv_positive(f64 y) {  // 0 < y <= 1/2
  f64 t = erfcinv_guess(y);
  for (i32 k = 0; k < 4; ++k) {
    const Double2 p = two_product(t, t);
    const f64 e = exp(0.5 * p.hi), u = (erfcx(t) - (y * e) * e * (1.0 + p.lo)) * 0x1.c5bf891b4ef6bp-1;  // sqrt(pi) / 2
    t += u / (1.0 - t * u);
  }
  return t;
}
INLINE f64 erfinv_small(f64 x) {  // |x| <= 3/4
  f64 t = erfcinv_guess(1.0 - fabs(x));
  for (i32 k = 0; k < 3; ++k) {
    const f64 u = (erf(t) - fabs(x)) * exp_square(t) * 0x1.c5bf891b4ef6bp-1;
    t -= u / (1.0 + t * u);
  }
  return fabs(x) < 0x1p-28 ? x * 0x1.c5bf891b4ef6bp-1 : copysign(t, x);
}
INLINE f64 erfinv(f64 x) {
  const f64 a = fabs(x);
  if (!(a < 1.0)) return a == 1.0 ? copysign(INF, x) : NOT_A_NUMBER;
  return a <= 0.75 ? erfinv_small(x) : copysign(erfcinv_positive(1.0 - a), x);
}
INLINE f64 erfcinv(f64 y) {
  if (!(y > 0.0 && y < 2.0)) return y == 0.0 ? INF : y == 2.0 ? -INF : NOT_A_NUMBER;
  return y <= 0.5 ? erfcinv_positive(y) : y >= 1.5 ? -erfcinv_positive(2.0 - y) : erfinv_small(1.0 - y);
}
INLINE f64 normcdf(f64 x) {
  const f64 c = clamp_exponent(x, -40.0, 40.0);
  const Double2 p = two_product(c, -0x1.6a09e667f3bcdp-1);
  const f64 lo = p.lo - c * -0x1.bdd3413b26456p-55, y = erfc(p.hi);
  return x != x ? x : 0.5 * (y - 0x1.20dd750429b6dp+0 * exp(-p.hi * p.hi) * lo);
}
INLINE f64 normcdfinv(f64 p) { return -0x1.6a09e667f3bcdp+0 * erfcinv(2.0 * p); }
#define NARROW(N) INLINE f32 N##f(f32 x) { return (f32)N((f64)x); }
NARROW(erfcx) NARROW(erfinv) NARROW(erfcinv) NARROW(normcdf) NARROW(normcdfinv)

// ---- Bessel functions: below 8 in x^2, above by modulus and phase (Hankel's expansion)
constexpr f64 J0_NEAR[] = {
    0x1.4306e1f9314dbp-3, -0x1.1dd989ce98ea2p-7, 0x1.0f8afb7d3a552p-2, -0x1.7afa2e9c62a9ep-2, 0x1.43b8af58b7ffap-3,
    -0x1.1dd989ce98ea2p-5, 0x1.3bd46ccab9da0p-8, -0x1.e300651cd3ae3p-12, 0x1.104c067d74d17p-15,
    -0x1.d8f811cd3e853p-20, 0x1.46c4a4b32aa3bp-24, -0x1.703bda6758f6fp-29, 0x1.593076e904d04p-34,
    -0x1.1192067e71726p-39, 0x1.73936aa3d0207p-45, -0x1.b5729d242acaep-51, 0x1.c2c89ea282aaap-57};
constexpr f64 J1_NEAR[] = {
    0x1.4bf5ae47a6150p-4, -0x1.3119e17fdbffdp-3, 0x1.49b9fb3408e33p-3, -0x1.52a8c7827daa8p-4, 0x1.6bf2c1f5f71e1p-6,
    -0x1.de030538b55b0p-9, 0x1.a8b56cedfe580p-12, -0x1.11188227a5012p-15, 0x1.0a8a3a628fc7bp-19,
    -0x1.98f754605f635p-24, 0x1.fac17c7273311p-29, -0x1.030d00d42d6f4p-33, 0x1.bcc0916376113p-39,
    -0x1.453d2b4e985cbp-44, 0x1.9a36afedba862p-50, -0x1.c2dff424052f8p-56};
constexpr f64 Y0_NEAR[] = {
    -0x1.0f88700652ecbp-5, -0x1.190fcad75eca2p-2, 0x1.6ea98ade961a1p-3, 0x1.0bd84f7777bd6p-2, -0x1.6b1d515347a69p-3,
    0x1.82a2a1c96271fp-5, -0x1.dd9fb881100e6p-8, 0x1.8ad9320695af0p-11, -0x1.d873fa854ed4dp-15, 0x1.ae5f9e7adde46p-19,
    -0x1.35649a4058471p-23, 0x1.68b1c63f94e89p-28, -0x1.5c457ea1daccep-33, 0x1.1b53ed8a54178p-38,
    -0x1.89f1fa5209ce6p-44, 0x1.d9b425efafdd8p-50, -0x1.f1a7711576130p-56};
constexpr f64 Y1_NEAR[] = {
    0x1.4ca997b04b826p-9, -0x1.07927e87fd36bp-6, -0x1.88db11a1e0337p-4, 0x1.59ea4fc627f66p-4, -0x1.d020c3798a51ap-6,
    0x1.5aadc0f38e31dp-8, -0x1.504ea6f6291cdp-11, 0x1.cde014f53622dp-15, -0x1.dadf80f6e35f9p-19,
    0x1.7c45af600d3dcp-23, -0x1.e8a21e8e1cb71p-28, 0x1.01c33ee943bc5p-32, -0x1.c6f1d25aa2e2ap-38,
    0x1.54fcf661706ffp-43, -0x1.b7b8e4b5d24fcp-49, 0x1.ed24ebd671b40p-55};
constexpr f64 P0_FAR[] = {
    0x1.ffb944543151ep-1, -0x1.194ac5283c04ap-11, 0x1.9cbe8b7395851p-19, -0x1.bc26938a82ce2p-25,
    0x1.c03a8b38ca73cp-30, -0x1.59ddcc28538a8p-34, 0x1.6baf23642c655p-38, -0x1.e4a709e74825bp-42,
    0x1.85b481672b1eep-45, -0x1.6d432cb7153fep-48, 0x1.84fff80b613c2p-51, -0x1.cdb3179595bbdp-54,
    0x1.2cca86c6338d8p-56};
constexpr f64 Q0_FAR[] = {
    -0x1.fdbbf76547cafp-7, 0x1.1ed40c7bf4761p-14, -0x1.8e1017183d060p-21, 0x1.34c3b3f0f3e19p-26,
    -0x1.8fc71e52a5280p-31, 0x1.7334b27ad2886p-35, -0x1.c34f407df8ba4p-39, 0x1.52763be90a889p-42,
    -0x1.2c827d7f6e2d5p-45, 0x1.329f0c1b6c666p-48, -0x1.5fa3147b301c9p-51, 0x1.bd9648f62c6b8p-54,
    -0x1.33cdb710c05d6p-56, 0x1.cab223df7296ep-59, -0x1.6d757f20d1622p-61, 0x1.351cf3ac93177p-63};
constexpr f64 P1_FAR[] = {
    0x1.003b2e82f5f12p+0, 0x1.d7545f75d7da9p-11, -0x1.0b9505ce79bbap-18, 0x1.0953cdc0829efp-24,
    -0x1.01454cf5d6ac0p-29, 0x1.83c5742be2cc3p-34, -0x1.9171afe32fc02p-38, 0x1.088a8b6783e50p-41,
    -0x1.a5ead8bea617fp-45, 0x1.88e8192bcb004p-48, -0x1.a045d1e6aa4e8p-51, 0x1.ebf5d803cd896p-54,
    -0x1.3f5b1671b84fbp-56};
constexpr f64 Q1_FAR[] = {
    0x1.7f34213492af6p-5, -0x1.93d0e4fa70662p-14, 0x1.eaa02bf61504bp-21, -0x1.681617e8645adp-26,
    0x1.c467999a69933p-31, -0x1.9c37875f5ebc0p-35, 0x1.eeb91abca8164p-39, -0x1.6f877e53fb185p-42,
    0x1.43f8057a1761fp-45, -0x1.48ac416e30219p-48, 0x1.772d4dd737bf2p-51, -0x1.d994b1fddb9f0p-54,
    0x1.46123a8bbc898p-56, -0x1.e48d4f144b8a9p-59, 0x1.811d207bb2e12p-61};
constexpr f64 I0_NEAR[] = {
  0x1.0000000000000p+0, 0x1.0000000000000p+0, 0x1.0000000000000p-2, 0x1.c71c71c71c71cp-6, 0x1.c71c71c71c71cp-10,
  0x1.23456789abcdfp-14, 0x1.02e85c0898b71p-19, 0x1.522a43f65486ap-25, 0x1.522a43f65486ap-31, 0x1.0b313289be0b9p-37,
  0x1.5601885e63e5dp-44, 0x1.69ca9cf3b7f54p-51, 0x1.4197a7f5154bcp-58, 0x1.e725594ee52e9p-66, 0x1.3e22d70ef3b5fp-73,
  0x1.69f7da8510bcdp-81, 0x1.69f7da8510bcdp-89, 0x1.40a2dc2460523p-97, 0x1.faaf2fa1c79e5p-106, 0x1.674f8e46c208cp-114,
  0x1.cbeaf38dc529fp-123, 0x1.0afb53e9cec0bp-131, 0x1.1a6d4e307528fp-140, 0x1.1159d2b18fe1fp-149,
  0x1.e5f504c9e358cp-159, 0x1.8e189760fbc74p-168};
constexpr f64 I0_FAR[] = {
    0x1.9be62aca809cbp-2, 0x1.b998ca2e59049p-9, 0x1.20fa378999e52p-14, 0x1.8412bc101c586p-19, 0x1.b8007d9cd616ep-23,
    0x1.8569280d6d56dp-26, 0x1.d2c64a9225b87p-29, 0x1.0f9ccc0f46f75p-31, 0x1.a24feabe8004fp-37,
    -0x1.1511d08397425p-35, -0x1.d0fd7357e7bf2p-37, -0x1.f904303178d66p-40, 0x1.94347fa268cecp-41,
    0x1.b1c8c6b83c073p-42, 0x1.156ff0d5fc545p-46, -0x1.75d99cf68bb32p-45, -0x1.583fe7e65629ap-47,
    0x1.12a919094e6d7p-48, 0x1.fee7da3eafb1ep-50, -0x1.8aee7d908de3cp-52, -0x1.4600babd21fcdp-52,
    0x1.3f3dd07604104p-55, 0x1.9be1812d982f4p-55, -0x1.646da66116a2fp-58, -0x1.0adb754ca9adap-57};
constexpr f64 I1_NEAR[] = {
  0x1.0000000000000p+0, 0x1.0000000000000p-1, 0x1.5555555555555p-4, 0x1.c71c71c71c71cp-8, 0x1.6c16c16c16c17p-12,
  0x1.845c8a0ce5129p-17, 0x1.27e4fb7789f5cp-22, 0x1.522a43f65486ap-28, 0x1.2c9758daf5cd0p-34, 0x1.ab81ea75fcdf4p-41,
  0x1.f17697cf1cf13p-48, 0x1.e2637bef9ff1ap-55, 0x1.8bce58901a35ep-62, 0x1.165e7c2d153f3p-69, 0x1.53585cdcbfb10p-77,
  0x1.69f7da8510bcdp-85, 0x1.54ad09e6a6575p-93, 0x1.1d028acb00491p-101, 0x1.aaae78f4066a6p-110,
  0x1.1f72d8389b3a3p-118, 0x1.5e69de22df5cep-127, 0x1.84564b82a1184p-136, 0x1.88f11edf3ed4cp-145,
  0x1.6c77c3976a829p-154, 0x1.37033643c4b3bp-163, 0x1.e9f6e1b270f54p-173};
constexpr f64 I1_FAR[] = {
    0x1.8ea18b55b1514p-2, -0x1.3fda053fcdb4cp-7, -0x1.cfd7f804aa9a6p-14, -0x1.048df49ca0373p-18,
    -0x1.0dbfd2e9e5443p-22, -0x1.c415394bb46c1p-26, -0x1.0790b9ad53528p-28, -0x1.334ca5423dd80p-31,
    -0x1.4dcf9d4504c0cp-36, 0x1.1e1a1f1587865p-35, 0x1.f101f653c457bp-37, 0x1.1e7d3f6439fa3p-39,
    -0x1.953e1076ab493p-41, -0x1.cbc458e73e255p-42, -0x1.7a9482e6d22a0p-46, 0x1.80d3c26b3281ep-45,
    0x1.776e1762d31e8p-47, -0x1.12db5138afbc8p-48, -0x1.0efcd8bc4d229p-49, 0x1.7d68e5f04a2d4p-52,
    0x1.55915fceb5874p-52, -0x1.2806c9c77324fp-55, -0x1.acea3b2532150p-55, 0x1.45b8aea8791bap-58,
    0x1.1556db352f98bp-57};
INLINE f64 hankel(f64 p, f64 q, f64 x, f64 s, f64 c, bool second) {  // the phase is x - pi/4 (and -pi/2 for order 1)
  const f64 m = 0x1.20dd750429b6dp-1 / sqrt(x), sum = c + s, difference = s - c;  // 1 / sqrt(pi)
  q *= 8.0 / x;
  return m * (second ? p * difference + q * sum : p * sum - q * difference);
}
INLINE f64 j0(f64 x) {
  const f64 a = fabs(x);
  if (!(a < INF)) return x != x ? x : 0.0;
  if (a < 8.0) return chebyshev(J0_NEAR, a * a / 32.0 - 1.0);
  f64 s, c;
  sincos(a, &s, &c);
  const f64 t = 128.0 / a / a - 1.0;
  return hankel(chebyshev(P0_FAR, t), chebyshev(Q0_FAR, t), a, s, c, false);
}
INLINE f64 j1(f64 x) {
  const f64 a = fabs(x);
  if (!(a < INF)) return x != x ? x : 0.0;
  if (a < 8.0) return x * chebyshev(J1_NEAR, a * a / 32.0 - 1.0);
  f64 s, c;
  sincos(a, &s, &c);
  const f64 t = 128.0 / a / a - 1.0;
  return copysign(1.0, x) * hankel(chebyshev(P1_FAR, t), chebyshev(Q1_FAR, t), a, -c, s, false);
}
INLINE f64 y0(f64 x) {
  if (!(x > 0.0 && x < INF)) return x == 0.0 ? -INF : x == INF ? 0.0 : NOT_A_NUMBER;
  if (x < 8.0) return chebyshev(Y0_NEAR, x * x / 32.0 - 1.0) + 0x1.45f306dc9c883p-1 * log(x) * j0(x);  // 2 / pi
  f64 s, c;
  sincos(x, &s, &c);
  const f64 t = 128.0 / x / x - 1.0;
  return hankel(chebyshev(P0_FAR, t), chebyshev(Q0_FAR, t), x, s, c, true);
}
INLINE f64 y1(f64 x) {
  if (!(x > 0.0 && x < INF)) return x == 0.0 ? -INF : x == INF ? 0.0 : NOT_A_NUMBER;
  if (x < 8.0) return x * chebyshev(Y1_NEAR, x * x / 32.0 - 1.0) + 0x1.45f306dc9c883p-1 * (log(x) * j1(x) - 1.0 / x);
  f64 s, c;
  sincos(x, &s, &c);
  const f64 t = 128.0 / x / x - 1.0;
  return hankel(chebyshev(P1_FAR, t), chebyshev(Q1_FAR, t), x, -c, s, true);
}
INLINE f64 jn(i32 n, f64 x) {
  if (n < 0) return NOT_A_NUMBER;
  if (n == 0) return j0(x);
  if (n == 1) return j1(x);
  const f64 a = fabs(x);
  if (x != x) return x;
  if (a == INF) return 0.0;
  f64 y = 1.0;
  if (a < 0x1p-26) {  // (x / 2)^n / n!
    for (i32 k = 1; k <= n && y != 0.0; ++k) y *= 0.5 * a / k;
  } else if (a > n) {  // upwards
    f64 below = j0(a);
    y = j1(a);
    for (i32 k = 1; k < n; ++k) {
      const f64 next = 2.0 * k / a * y - below;
      below = y;
      y = next;
    }
  } else {  // downwards from where it is as good as zero (Miller), scaled by 1 = J0 + 2 J2 + 2 J4 + ...
    f64 above = 0.0, here = 0x1p-1000, sum = 0.0;
    y = 0.0;
    for (i32 k = 2 * ((n + (i32)sqrt(120.0 * n)) / 2 + 8); k > 0; --k) {
      const f64 next = 2.0 * k / a * here - above;
      above = here;
      here = next;
      if (fabs(here) > 0x1p900) {
        here *= 0x1p-900;
        above *= 0x1p-900;
        y *= 0x1p-900;
        sum *= 0x1p-900;
      }
      if (k - 1 == n) y = here;
      if ((k - 1) % 2 == 0 && k > 1) sum += 2.0 * here;
    }
    y /= sum + here;
  }
  return x < 0.0 && n % 2 ? -y : y;
}
INLINE f64 yn(i32 n, f64 x) {
  if (n < 0) return NOT_A_NUMBER;
  if (n == 0) return y0(x);
  f64 below = y0(x), y = y1(x);
  if (!(x > 0.0 && x < INF)) return y;
  for (i32 k = 1; k < n && y != -INF; ++k) {
    const f64 next = 2.0 * k / x * y - below;
    below = y;
    y = next;
  }
  return y;
}
INLINE f64 exp_scaled(f64 x, f64 y) {  // exp(x) * y, where only the product may be in range
  const bool large = x > 700.0;
  const f64 e = exp(large ? x - 400.0 : x);
  return large ? e * y * 0x1.0e398d7d01704p+577 : e * y;
}
INLINE f64 cyl_bessel_i0(f64 x) {
  const f64 a = fabs(x);
  if (!(a < INF)) return x != x ? x : INF;
  return a < 8.0 ? polynomial(I0_NEAR, a * a / 4.0) : exp_scaled(a, chebyshev(I0_FAR, 16.0 / a - 1.0) / sqrt(a));
}
INLINE f64 cyl_bessel_i1(f64 x) {
  const f64 a = fabs(x);
  if (!(a < INF)) return x;
  if (a < 8.0) return x / 2.0 * polynomial(I1_NEAR, a * a / 4.0);
  return copysign(exp_scaled(a, chebyshev(I1_FAR, 16.0 / a - 1.0) / sqrt(a)), x);
}
NARROW(j0) NARROW(j1) NARROW(y0) NARROW(y1) NARROW(cyl_bessel_i0) NARROW(cyl_bessel_i1)
#undef NARROW
INLINE f32 jnf(i32 n, f32 x) { return (f32)jn(n, (f64)x); }
INLINE f32 ynf(i32 n, f32 x) { return (f32)yn(n, (f64)x); }

// ---- the plain names for float, for integers and mixed; other names of the same
#define PLAIN1(N)                             \
  INLINE f32 N(f32 x) { return N##f(x); }     \
  INLINE f64 N(i32 x) { return N((f64)x); }   \
  INLINE f64 N(u32 x) { return N((f64)x); }   \
  INLINE f64 N(i64 x) { return N((f64)x); }   \
  INLINE f64 N(u64 x) { return N((f64)x); }
PLAIN1(sinpi) PLAIN1(cospi) PLAIN1(tgamma) PLAIN1(lgamma) PLAIN1(erfcx) PLAIN1(erfinv) PLAIN1(erfcinv) PLAIN1(normcdf)
PLAIN1(normcdfinv) PLAIN1(cyl_bessel_i0) PLAIN1(cyl_bessel_i1) PLAIN1(logb)
#undef PLAIN1
#define PLAIN2(N)                                        \
  INLINE f32 N(f32 x, f32 y) { return N##f(x, y); }      \
  template <class A, class B> INLINE f64 N(A x, B y) { return N((f64)x, (f64)y); }
PLAIN2(remainder) PLAIN2(nextafter) PLAIN2(rhypot)
#undef PLAIN2
INLINE f32 remquo(f32 x, f32 y, i32* quotient) { return remquof(x, y, quotient); }
INLINE i32 ilogb(f32 x) { return ilogbf(x); }
INLINE void sincospi(f32 x, f32* s, f32* c) { sincospif(x, s, c); }
INLINE f32 scalblnf(f32 x, i64 n) { return ldexpf(x, (i32)max(min(n, (i64)4000), (i64)-4000)); }
INLINE f64 scalbln(f64 x, i64 n) { return ldexp(x, (i32)max(min(n, (i64)4000), (i64)-4000)); }
INLINE i64 llroundf(f32 x) { return lroundf(x); }
INLINE i64 llround(f64 x) { return lround(x); }
INLINE i64 lrint(f32 x) { return lrintf(x); }
INLINE i64 lround(f32 x) { return lroundf(x); }
INLINE i64 llrint(f32 x) { return llrintf(x); }
INLINE i64 llround(f32 x) { return llroundf(x); }

}  // namespace cuda
