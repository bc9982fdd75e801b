// Mathematical functions with the same bits everywhere: only + - * / sqrt, comparisons and bit operations, in a fixed
// order, and almost all without branches, so that loops over them become SIMD. tests/translate/test_maths.py measures every
// function against a high-precision reference and holds it to the bound in its table.
//
// Functions of float are computed in double and rounded once, except expf and logf, which stay in float for speed.
// The polynomials of exp, log, sin, cos, asin, atan, erf, cbrt and the reduction of log2 and log10 are those of FreeBSD's
// msun, after fdlibm:
//   Copyright (C) 1993 by Sun Microsystems, Inc. All rights reserved. Developed at SunPro, a Sun Microsystems, Inc. business.
//   Permission to use, copy, modify, and distribute this software is freely granted, provided that this notice is preserved.
#pragma once

namespace cuda {

// ---- what the instruction set gives
#define EXACT(N, B)                                                            \
  INLINE f32 N##f(f32 x) { return __builtin_elementwise_##B(x); }              \
  INLINE f64 N(f64 x) { return __builtin_elementwise_##B(x); }
EXACT(sqrt, sqrt)
EXACT(fabs, abs)
EXACT(floor, floor)
EXACT(ceil, ceil)
EXACT(trunc, trunc)
EXACT(rint, rint)
EXACT(nearbyint, rint)
#undef EXACT
INLINE f32 with_sign(f32 x, f32 s) { return __builtin_elementwise_copysign(x, s); }
INLINE f64 with_sign(f64 x, f64 s) { return __builtin_elementwise_copysign(x, s); }
INLINE f32 copysignf(f32 x, f32 s) { return with_sign(x, canonical(s)); }  // the sign of a NaN is the processor's
INLINE f64 copysign(f64 x, f64 s) { return with_sign(x, canonical(s)); }
INLINE f32 roundf(f32 x) {
  const f32 r = truncf(x);
  return with_sign(r + (fabsf(x - r) >= 0.5f ? with_sign(1.0f, x) : 0.0f), x);
}
INLINE f64 round(f64 x) {
  const f64 r = trunc(x);
  return with_sign(r + (fabs(x - r) >= 0.5 ? with_sign(1.0, x) : 0.0), x);
}
INLINE bool isnan(f32 x) { return x != x; }
INLINE bool isnan(f64 x) { return x != x; }
INLINE bool isinf(f32 x) { return fabsf(x) == __builtin_inff(); }
INLINE bool isinf(f64 x) { return fabs(x) == __builtin_inf(); }
INLINE bool isfinite(f32 x) { return fabsf(x) < __builtin_inff(); }
INLINE bool isfinite(f64 x) { return fabs(x) < __builtin_inf(); }
INLINE bool signbit(f32 x) { return (x == x) & (as<i32>(x) < 0); }
INLINE bool signbit(f64 x) { return (x == x) & (as<i64>(x) < 0); }
// One NaN is ignored; -0 is less than +0.
#ifdef DEPIN_STRICT
INLINE f32 fmaxf(f32 a, f32 b) { return a != a ? b : b != b ? a : __builtin_wasm_max_f32(a, b); }
INLINE f32 fminf(f32 a, f32 b) { return a != a ? b : b != b ? a : __builtin_wasm_min_f32(a, b); }
INLINE f64 fmax(f64 a, f64 b) { return a != a ? b : b != b ? a : __builtin_wasm_max_f64(a, b); }
INLINE f64 fmin(f64 a, f64 b) { return a != a ? b : b != b ? a : __builtin_wasm_min_f64(a, b); }
#else
// Comparisons and bits, because processors take several instructions for WebAssembly's own max, and one for "greater".
template <class F, class U> INLINE F larger(F a, F b) {
  const F c = b != b ? a : b, m = a > c ? a : c;
  return as<F>(as<U>(m) & (as<U>(a) | (U)0 - (U)(a != c)));  // of zeros the sign is minus only if both have it
}
template <class F, class U> INLINE F smaller(F a, F b) {
  const F c = b != b ? a : b, m = a < c ? a : c;
  return as<F>(as<U>(m) | (as<U>(a) & (U)0 - (U)(a == c)));
}
INLINE f32 fmaxf(f32 a, f32 b) { return larger<f32, u32>(a, b); }
INLINE f32 fminf(f32 a, f32 b) { return smaller<f32, u32>(a, b); }
INLINE f64 fmax(f64 a, f64 b) { return larger<f64, u64>(a, b); }
INLINE f64 fmin(f64 a, f64 b) { return smaller<f64, u64>(a, b); }
#endif
INLINE f32 fdimf(f32 a, f32 b) { return (a != a) | (b != b) ? a + b : a > b ? a - b : 0.0f; }
INLINE f64 fdim(f64 a, f64 b) { return (a != a) | (b != b) ? a + b : a > b ? a - b : 0.0; }
INLINE f32 __saturatef(f32 x) { return fminf(fmaxf(x, 0.0f), 1.0f); }
INLINE f32 rsqrtf(f32 x) { return 1.0f / sqrtf(x); }
INLINE f64 rsqrt(f64 x) { return 1.0 / sqrt(x); }
INLINE i64 lrintf(f32 x) { return to_integer<i64>(rintf(x)); }
INLINE i64 lrint(f64 x) { return to_integer<i64>(rint(x)); }
INLINE i64 llrintf(f32 x) { return to_integer<i64>(rintf(x)); }
INLINE i64 llrint(f64 x) { return to_integer<i64>(rint(x)); }
INLINE i64 lroundf(f32 x) { return to_integer<i64>(roundf(x)); }
INLINE i64 lround(f64 x) { return to_integer<i64>(round(x)); }

// ---- tools
constexpr f64 INF = __builtin_inf(), NOT_A_NUMBER = __builtin_nan("");
struct Double2 { f64 hi, lo; };  // hi + lo, with |lo| at most half an ulp of hi
INLINE Double2 two_sum(f64 a, f64 b) {
  const f64 s = a + b, t = s - a;
  return {s, (a - (s - t)) + (b - t)};
}
INLINE Double2 fast_two_sum(f64 a, f64 b) {  // |a| >= |b|
  const f64 s = a + b;
  return {s, b - (s - a)};
}
INLINE f64 high_half(f64 x) { return as<f64>(as<u64>(x) & 0xfffffffff8000000ull); }  // 26 bits
INLINE Double2 two_product(f64 a, f64 b) {  // Dekker 1971, by cut halves
  const f64 p = a * b, ah = high_half(a), al = a - ah, bh = high_half(b), bl = b - bh;
  return {p, ((ah * bh - p) + ah * bl + al * bh) + al * bl};
}
constexpr f64 MAGIC = 0x1.8p52;  // x + MAGIC has the integer nearest to x in its low bits, for |x| < 2^51
INLINE i64 magic_integer(f64 shifted) { return (i64)(as<u64>(shifted) - as<u64>(MAGIC)); }
INLINE f64 from_small_integer(i64 n) { return as<f64>(as<u64>(MAGIC) + (u64)n) - MAGIC; }
INLINE f64 power_of_two(i64 n) { return as<f64>((u64)(n + 1023) << 52); }  // -1022 <= n <= 1023
INLINE f64 scale(f64 x, i64 n) {  // x * 2^n for |n| < 2000, rounded once
  const i64 half = n >> 1;
  return x * power_of_two(half) * power_of_two(n - half);
}

// ---- exponentials
// In steps, so that a strip can take one after the other (fission.h). No test for NaN: it stays one on the whole way.
struct Expf { f32 r, shifted; };  // x = n ln 2 + r, and n in the low bits of a float; 0: exp(x) is 0
INLINE Expf expf_reduce(f32 x) {
  constexpr f32 BIASED = 0x1.8p23f + 254.0f;  // as MAGIC, for float, with the bias of two exponents
  const f32 low = x < -104.0f ? -104.0f : x, c = low > 89.0f ? 89.0f : low;
  const f32 shifted = c * 1.44269504088896341f + BIASED, n = shifted - BIASED;
  // 0 has no factors: processors take a hundred cycles for products that are too small
  return {(c - n * 0.693359375f) + n * 2.12194440e-4f, x < -104.0f ? 0.0f : shifted};
}
INLINE f32 expf_finish(Expf x) {
  const f32 r = x.r, s = r * r;  // not Horner's rule: half as many steps wait for each other
  f32 p = 0x1.6a215ap-10f * s + (0x1.123b9ap-7f * r + 0x1.5558fcp-5f);  // (exp(r) - 1 - r) / s, to 3.1e-9 of exp(r)
  p = (p * s + (0x1.55549p-3f * r + 0x1.fffffcp-2f)) * s + r + 1.0f;
  const u32 whole = as<u32>(x.shifted) << 23, half = as<u32>(x.shifted) << 22 & 0xff800000u;  // 2^n by two factors
  return p * as<f32>(half) * as<f32>(whole - half);
}
INLINE f32 expf(f32 x) { return expf_finish(expf_reduce(x)); }
// exp(hi + lo) - 1 for |hi| <= 0.35 and |lo| small
INLINE f64 expm1_reduced(f64 hi, f64 lo) {
  const f64 r = hi + lo, z = r * r;
  f64 p = 4.13813679705723846039e-08;
  p = p * z - 1.65339022054652515390e-06;
  p = p * z + 6.61375632143793436117e-05;
  p = p * z - 2.77777777770155933842e-03;
  p = p * z + 1.66666666666666019037e-01;
  const f64 c = r - z * p;
  return hi + (lo + r * c / (2.0 - c));
}
constexpr f64 LN2_HI = 0x1.62e42fee00000p-1, LN2_LO = 0x1.a39ef35793c76p-33;
struct Reduced { f64 hi, lo; i64 n; };
INLINE Reduced exp_reduce(f64 x) {
  const f64 shifted = x * 0x1.71547652b82fep+0 + MAGIC, n = shifted - MAGIC;
  return {x - n * LN2_HI, -(n * LN2_LO), magic_integer(shifted)};
}
INLINE f64 exp_finish(f64 x, const Reduced& r) {
  const f64 y = scale(1.0 + expm1_reduced(r.hi, r.lo), r.n);
  return x != x ? x : y;
}
INLINE f64 clamp_exponent(f64 x, f64 low, f64 high) { return x > high ? high : x < low ? low : x; }
INLINE f64 exp(f64 x) { return exp_finish(x, exp_reduce(clamp_exponent(x, -746.0, 710.0))); }
INLINE f64 exp2(f64 x) {
  const f64 c = clamp_exponent(x, -1076.0, 1025.0), shifted = c + MAGIC, f = c - (shifted - MAGIC);
  const Double2 p = two_product(f, 0x1.62e42fefa39efp-1);
  return exp_finish(x, {p.hi, p.lo + f * 0x1.abc9e3b39803fp-56, magic_integer(shifted)});
}
INLINE f64 exp10(f64 x) {
  const f64 c = clamp_exponent(x, -324.0, 309.0), shifted = c * 0x1.a934f0979a371p+1 + MAGIC, n = shifted - MAGIC;
  const Double2 f = two_sum(c - n * 0x1.3441350800000p-2, -(n * 0x1.f79fef311f12bp-34));
  const Double2 p = two_product(f.hi, 0x1.26bb1bbb55516p+1);
  return exp_finish(x, {p.hi, p.lo + (f.lo * 0x1.26bb1bbb55516p+1 - f.hi * 0x1.f48ad494ea3e9p-53), magic_integer(shifted)});
}
INLINE f64 expm1(f64 x) {
  const f64 c = clamp_exponent(x, -50.0, 710.0);
  const Reduced r = exp_reduce(c);
  const f64 p = expm1_reduced(r.hi, r.lo), t = power_of_two(r.n - 1);  // 2^n might overflow
  const f64 y = ((t - 0.5) + t * p) * 2.0;
  return x != x ? x : r.n == 0 ? (fabs(x) < 0x1p-54 ? x : p) : y;
}
INLINE f32 exp2f(f32 x) { return (f32)exp2((f64)x); }
INLINE f32 exp10f(f32 x) { return (f32)exp10((f64)x); }
INLINE f32 expm1f(f32 x) { return (f32)expm1((f64)x); }

// ---- logarithms
struct Logf { f32 f, n; };  // x = 2^n * (1 + f), 1 + f in [sqrt(1/2), sqrt(2)); in steps, as expf
INLINE Logf logf_reduce(f32 x) {
  constexpr u32 LOW = 0x3f3504f3u;  // sqrt(1/2)
  const bool small = x < 0x1p-126f;
  const u32 high = as<u32>(small ? x * 0x1p23f : x) - LOW;
  return {as<f32>((high & 0x007fffffu) + LOW) - 1.0f, (f32)((as<i32>(high) >> 23) - (small ? 23 : 0))};
}
INLINE f32 logf_tail(f32 f) {  // log(1 + f) - f + f*f/2
  const f32 s = f / (2.0f + f), z = s * s, w = z * z;
  const f32 r = w * (0x1.999c26p-2f + w * 0x1.f13c4cp-3f) + z * (0x1.555554p-1f + w * 0x1.23d3dcp-2f);
  return s * (0.5f * f * f + r);
}
INLINE f32 logf_finish(f32 x, Logf y, f32 tail) {
  f32 r = (tail + y.n * 0x1.2fefa2p-17f - 0.5f * y.f * y.f) + y.f + y.n * 0x1.62e3p-1f;
  r += x == 0.0f ? -__builtin_inff() : 0.0f;
  r = as<f32>(as<u32>(r) | (x < 0.0f ? ~0u : 0u));
  return x < __builtin_inff() ? r : x;
}
INLINE f32 logf(f32 x) {
  const Logf y = logf_reduce(x);
  return logf_finish(x, y, logf_tail(y.f));
}
struct Split { f64 f, n; };  // x = 2^n * (1 + f), 1 + f in [sqrt(1/2), sqrt(2)]
INLINE Split split(f64 x) {  // x > 0, normal or not
  const bool small = x < 0x1p-1022;
  const u64 bits = as<u64>(small ? x * 0x1p54 : x);
  const u64 high = bits + (0x3ff0000000000000ull - 0x3fe6a09e667f3bcdull);
  const f64 n = from_small_integer((i64)(high >> 52) - 1023) - (small ? 54.0 : 0.0);
  const f64 m = as<f64>((high & 0x000fffffffffffffull) + 0x3fe6a09e667f3bcdull);
  return {m - 1.0, n};
}
// log(1 + f) - f + f*f/2, of which s * (hfsq + R) is the exact form in fdlibm
INLINE f64 log_tail(f64 f) {
  const f64 s = f / (2.0 + f), z = s * s, w = z * z, hfsq = 0.5 * f * f;
  const f64 odd = w * (3.999999999940941908e-01 + w * (2.222219843214978396e-01 + w * 1.531383769920937332e-01));
  const f64 even = z * (6.666666666666735130e-01 +
                        w * (2.857142874366239149e-01 + w * (1.818357216161805012e-01 + w * 1.479819860511658591e-01)));
  return s * (hfsq + (odd + even));
}
INLINE f64 log_special(f64 x, f64 y) {
  y = x == 0.0 ? -INF : y;
  y = x < 0.0 ? NOT_A_NUMBER : y;
  return (x != x) | (x == INF) ? x : y;
}
INLINE f64 log_plus(f64 x, f64 correction) {  // log(x) + correction, for a tiny correction
  const Split s = split(x);
  return s.n * LN2_HI - ((0.5 * s.f * s.f - (log_tail(s.f) + (s.n * LN2_LO + correction))) - s.f);
}
INLINE f64 log(f64 x) { return log_special(x, log_plus(x, 0.0)); }
INLINE f64 log1p(f64 x) {
  const f64 u = 1.0 + x, lost = x < 1.0 ? x - (u - 1.0) : 1.0 - (u - x);
  const f64 y = log_plus(u, u < 0x1p53 ? lost / u : 0.0);
  return fabs(x) < 0x1p-54 ? x : log_special(u, y);
}
struct LogParts { f64 hi, lo, n; };  // log(x) = n ln 2 + hi + lo, hi with 20 bits to spare
INLINE LogParts log_parts(f64 x) {
  const Split s = split(x);
  const f64 hfsq = 0.5 * s.f * s.f, hi = as<f64>(as<u64>(s.f - hfsq) & 0xffffffff00000000ull);
  return {hi, (s.f - hi) - hfsq + log_tail(s.f), s.n};
}
INLINE f64 log2(f64 x) {
  const LogParts p = log_parts(x);
  const f64 hi = p.hi * 1.44269504072144627571e+00;
  const f64 lo = (p.lo + p.hi) * 1.67517131648865118353e-10 + p.lo * 1.44269504072144627571e+00;
  const f64 w = p.n + hi;
  return log_special(x, (lo + ((p.n - w) + hi)) + w);
}
INLINE f64 log10(f64 x) {
  const LogParts p = log_parts(x);
  const f64 hi = p.hi * 4.34294481878168880939e-01, n = p.n * 3.01029995663611771306e-01;
  const f64 lo = p.n * 3.69423907715893078616e-13 + (p.lo + p.hi) * 2.50829467116452752298e-11 +
                 p.lo * 4.34294481878168880939e-01;
  const f64 w = n + hi;
  return log_special(x, (lo + ((n - w) + hi)) + w);
}
INLINE f32 log2f(f32 x) { return (f32)log2((f64)x); }
INLINE f32 log10f(f32 x) { return (f32)log10((f64)x); }
INLINE f32 log1pf(f32 x) { return (f32)log1p((f64)x); }

// ---- powers
// log(x) as a Double2, to about 2^-66, for x > 0: 2 atanh(s) with s = f / (2 + f) as a Double2
INLINE Double2 log_double2(f64 x) {
  const Split a = split(x);
  const Double2 d = two_sum(2.0, a.f);
  const f64 s = a.f / d.hi;
  const Double2 p = two_product(s, d.hi);
  const f64 s_lo = ((a.f - p.hi) - p.lo - s * d.lo) / d.hi;
  const Double2 z = two_product(s, s);
  const f64 z_lo = z.lo + 2.0 * s * s_lo, w = z.hi;
  f64 q = 0.0445;  // atanh's series from s^5 on: 1/5 + s^2/7 + ...; the last term makes up for those left out
  q = q * w + 1.0 / 21.0;
  q = q * w + 1.0 / 19.0;
  q = q * w + 1.0 / 17.0;
  q = q * w + 1.0 / 15.0;
  q = q * w + 1.0 / 13.0;
  q = q * w + 1.0 / 11.0;
  q = q * w + 1.0 / 9.0;
  q = q * w + 1.0 / 7.0;
  q = q * w + 0.2;
  // atanh(s) = s + s * (z / 3 + z^2 * q)
  const Double2 third = two_product(w, 0x1.5555555555555p-2);
  const Double2 t = fast_two_sum(third.hi, third.lo + w * 0x1.5555555555555p-56 + z_lo * 0x1.5555555555555p-2 + w * w * q);
  const Double2 u = two_product(s, t.hi);
  const Double2 atanh = fast_two_sum(s, u.hi);
  const f64 atanh_lo = atanh.lo + (u.lo + s * t.lo + s_lo * t.hi + s_lo);
  // n ln 2 + 2 atanh
  const Double2 n = two_sum(a.n * LN2_HI, 2.0 * atanh.hi);
  const Double2 ln2_lo = two_product(a.n, LN2_LO);
  const Double2 sum = two_sum(n.hi, ln2_lo.hi);
  return fast_two_sum(sum.hi, sum.lo + (n.lo + ln2_lo.lo + 2.0 * atanh_lo));
}
INLINE f64 pow_special(f64 x, f64 y, f64 r) {  // r = |x|^y
  const bool integer = rint(y) == y, odd = integer & (fabs(y) < 0x1p53) & (rint(y * 0.5) != y * 0.5);
  const bool negative = as<i64>(x) < 0;
  r = fabs(x) == 0.0 ? (y < 0.0 ? INF : 0.0) : r;
  r = fabs(x) == INF ? (y < 0.0 ? 0.0 : INF) : r;
  r = fabs(y) == INF ? (fabs(x) == 1.0 ? 1.0 : (fabs(x) > 1.0) == (y > 0.0) ? INF : 0.0) : r;
  r = negative & odd ? -r : r;
  r = (x < 0.0) & !integer & (fabs(x) != INF) & (fabs(y) != INF) ? NOT_A_NUMBER : r;
  r = (x != x) | (y != y) ? x + y : r;
  return (x == 1.0) | (y == 0.0) ? 1.0 : r;
}
INLINE f64 pow(f64 x, f64 y) {
  const f64 a = fabs(x), b = clamp_exponent(y, -0x1p65, 0x1p65);  // further out the result is 0, 1 or infinity
  const Double2 l = log_double2(a);
  const Double2 p = two_product(l.hi, b);
  const f64 p_lo = p.lo + l.lo * b, c = clamp_exponent(p.hi, -760.0, 730.0);
  Reduced r = exp_reduce(c);
  const Double2 s = two_sum(r.hi, r.lo);
  return pow_special(x, y, scale(1.0 + expm1_reduced(s.hi, s.lo + (c == p.hi ? p_lo : 0.0)), r.n));
}
INLINE f32 powf(f32 x, f32 y) {
  const f64 l = log2(fabs((f64)x)), p = l * (f64)y;
  return (f32)pow_special(x, y, exp2(p == p ? p : 0.0));
}
// The cube root as in msun: a guess from the exponent, a polynomial, one step of Newton
INLINE f64 cbrt(f64 x) {
  const f64 a = fabs(x);
  const bool small = a < 0x1p-1022;
  const u32 high = (u32)(as<u64>(small ? a * 0x1p54 : a) >> 32);
  f64 t = as<f64>((u64)((u32)((u64)high * 0xaaaaaaabull >> 33) + (small ? 696219795u : 715094163u)) << 32);
  const f64 r = (t * t) * (t / a);
  t = t * ((1.87595182427177009643 + r * (-1.88497979543377169875 + r * 1.621429720105354466140)) +
           ((r * r) * r) * (-0.758397934778766047437 + r * 0.145996192886612446982));
  t = as<f64>((as<u64>(t) + 0x80000000ull) & 0xffffffffc0000000ull);
  const f64 q = a / (t * t);
  const f64 y = t + t * ((q - t) / (t + t + q));
  return (a == 0.0) | !(a < INF) ? x : with_sign(y, x);
}
INLINE f32 cbrtf(f32 x) { return (f32)cbrt((f64)x); }
INLINE f32 rcbrtf(f32 x) { return (f32)(1.0 / cbrt((f64)x)); }
INLINE f64 rcbrt(f64 x) {
  const f64 c = cbrt(x), y = 1.0 / c;
  const Double2 s = two_product(c, c), p = two_product(s.hi, c);
  const f64 error = ((x - p.hi) - p.lo - s.lo * c) / (3.0 * s.hi);  // of c
  return isfinite(y) & (y != 0.0) & (fabs(x) > 0x1p-1000) & (fabs(x) < 0x1p1000) ? y - y * y * error : y;
}
INLINE f32 hypotf(f32 x, f32 y) {
  const f64 a = x, b = y;
  return (f32)(isinf(x) | isinf(y) ? INF : sqrt(a * a + b * b));
}
INLINE f64 hypot(f64 x, f64 y) {
  f64 a = fabs(x), b = fabs(y);
  const f64 large = a > b ? a : b, small = a > b ? b : a;
  const f64 s = large > 0x1p500 ? 0x1p-600 : large < 0x1p-500 ? 0x1p600 : 1.0;
  a = large * s;
  b = small * s;
  const Double2 aa = two_product(a, a), bb = two_product(b, b);
  const Double2 sum = fast_two_sum(aa.hi, bb.hi);
  const f64 r = sqrt(sum.hi + (sum.lo + (aa.lo + bb.lo))) / s;
  return isinf(x) | isinf(y) ? INF : (x != x) | (y != y) ? x + y : large == 0.0 ? 0.0 : r;
}

// ---- sine, cosine, tangent
// 2/pi in pieces of 28 bits: their products with a float are exact in double
constexpr f64 PIECES[7] = {0x1.45f306c000000p-1,  0x1.c9c882a000000p-29,  0x1.4fe13a8000000p-59, 0x1.f47d4d0000000p-86,
                           0x1.bb81b6c000000p-113, 0x1.4acc9e0000000p-143, 0x1.0e4107c000000p-170};
struct Quarter { f64 r; i64 n; };  // x = (n + r) * pi/2 modulo 2 pi, |r| <= 1/2
INLINE Quarter quarter_turns(f32 x) {
  const f64 v = x, a = fabs(v);
  const bool b1 = a >= 0x1p53, b2 = a >= 0x1p81, b3 = a >= 0x1p109;
#define PIECE(I) (b3 ? PIECES[3 + I] : b2 ? PIECES[2 + I] : b1 ? PIECES[1 + I] : PIECES[I])
  const f64 p0 = v * PIECE(0), p1 = v * PIECE(1), p2 = v * PIECE(2), p3 = v * PIECE(3);
#undef PIECE
  const f64 q0 = p0 - 4.0 * rint(p0 * 0.25), n0 = rint(q0), n1 = rint(p1);
  const Double2 s = two_sum(q0 - n0, p1 - n1), t = two_sum(s.hi, p2);
  const f64 n2 = rint(t.hi);
  const f64 turns = n0 + n2 + (n1 - 4.0 * rint(n1 * 0.25));
  return {(t.hi - n2) + (t.lo + (s.lo + p3)), magic_integer(turns + MAGIC)};
}
INLINE f64 sin_float(f64 y) {  // accurate to float, |y| <= pi/4
  const f64 z = y * y, w = z * z, s = z * y;
  return (y + s * (-0x15555554cbac77.0p-55 + z * 0x111110896efbb2.0p-59)) +
         s * w * (-0x1a00f9e2cae774.0p-65 + z * 0x16cd878c3b46a7.0p-71);
}
INLINE f64 cos_float(f64 y) {
  const f64 z = y * y, w = z * z;
  return ((1.0 + z * -0x1ffffffd0c5e81.0p-54) + w * 0x155553e1053a42.0p-57) +
         (w * z) * (-0x16c087e80f1e27.0p-62 + z * 0x199342e0ee5069.0p-68);
}
INLINE f64 quadrant(f64 s, f64 c, i64 n) {  // of the sine
  const f64 v = n & 1 ? c : s;
  return n & 2 ? -v : v;
}
constexpr f64 PI_2 = 0x1.921fb54442d18p+0, PI_2_LO = 0x1.1a62633145c07p-54;
INLINE f32 sinf(f32 x) {
  const Quarter q = quarter_turns(x);
  const f64 y = q.r * PI_2;
  const f32 r = (f32)quadrant(sin_float(y), cos_float(y), q.n);
  return isfinite(x) ? (x == 0.0f ? x : r) : __builtin_nanf("");
}
INLINE f32 cosf(f32 x) {
  const Quarter q = quarter_turns(x);
  const f64 y = q.r * PI_2;
  return isfinite(x) ? (f32)quadrant(sin_float(y), cos_float(y), q.n + 1) : __builtin_nanf("");
}
INLINE void sincosf(f32 x, f32* s, f32* c) {
  *s = sinf(x);
  *c = cosf(x);
}
struct Angle { f64 hi, lo; i64 n; };  // x = n * pi/2 + hi + lo
constexpr u64 TWO_OVER_PI[22] = {
    0,
    0xa2f9836e4e441529ull, 0xfc2757d1f534ddc0ull, 0xdb6295993c439041ull, 0xfe5163abdebbc561ull, 0xb7246e3a424dd2e0ull,
    0x06492eea09d1921cull, 0xfe1deb1cb129a73eull, 0xe88235f52ebb4484ull, 0xe99c7026b45f7e41ull, 0x3991d639835339f4ull,
    0x9c845f8bbdf9283bull, 0x1ff897ffde05980full, 0xef2f118b5a0a6d1full, 0x6d367ecf27cb09b7ull, 0x4f463f669e5fea2dull,
    0x7527bac7ebe5f17bull, 0x3d0739f78a5292eaull, 0x6bfb5fb11f8d5d08ull, 0x56033046fc7b6babull, 0xf0cfbc209af4361dull,
    0};
// Payne and Hanek 1983: the bits of 2/pi that matter for this exponent, times the integer significand, modulo 4
static __attribute__((noinline)) Angle reduce_large(f64 x) {
  const u64 bits = as<u64>(fabs(x)), m = (bits & 0x000fffffffffffffull) | 0x0010000000000000ull;
  const u32 offset = (u32)(bits >> 52) - 1023 - 52 - 2 + 64;  // of the window in TWO_OVER_PI, in bits
  const u32 word = offset >> 6, shift = offset & 63;
  u64 w[3];
  for (u32 i = 0; i < 3; ++i)
    w[i] = shift ? TWO_OVER_PI[word + i] << shift | TWO_OVER_PI[word + i + 1] >> (64 - shift) : TWO_OVER_PI[word + i];
  const u64 r2 = m * w[2], middle = m * w[1], r1 = middle + __umul64hi(m, w[2]);
  const u64 r0 = m * w[0] + __umul64hi(m, w[1]) + (r1 < middle);
  i64 n = (i64)(r0 >> 62);
  u64 f0 = r0 << 2 | r1 >> 62, f1 = r1 << 2 | r2 >> 62;  // the fraction of a quarter turn
  const bool up = f0 >> 63;
  if (up) {  // beyond one half: count from the next quarter turn
    ++n;
    f0 = ~f0;
    f1 = ~f1;
  }
  const u32 zeros = f0 ? (u32)__builtin_clzll(f0) : 64 + (u32)__builtin_clzll(f1 | 1);
  const u64 top = zeros == 0 ? f0 : zeros < 64 ? f0 << zeros | f1 >> (64 - zeros) : f1 << (zeros - 64);
  const u64 rest = zeros < 64 ? f1 << zeros : 0;
  const f64 unit = power_of_two(-(i64)zeros - 64);
  const f64 hi = (f64)(top >> 11) * 2048.0 * unit, lo = ((f64)(top & 2047) + (f64)(rest >> 11) * 0x1p-53) * unit;
  const Double2 p = two_product(hi, PI_2);
  const Double2 y = fast_two_sum(p.hi, p.lo + hi * PI_2_LO + lo * PI_2);
  const bool minus = up != (as<i64>(x) < 0);
  return {minus ? -y.hi : y.hi, minus ? -y.lo : y.lo, as<i64>(x) < 0 ? -n : n};
}
INLINE Angle reduce(f64 x) {
  if (!(fabs(x) < 0x1p19)) return isfinite(x) ? reduce_large(x) : Angle{NOT_A_NUMBER, 0.0, 0};
  const f64 shifted = x * 0x1.45f306dc9c883p-1 + MAGIC, n = shifted - MAGIC;  // pi/2 in pieces of 33 bits
  const Double2 a = two_sum(x - n * 0x1.921fb54400000p+0, -(n * 0x1.0b4611a600000p-34));
  const Double2 b = two_sum(a.hi, -(n * 0x1.3198a2e000000p-69));
  const Double2 y = fast_two_sum(b.hi, b.lo + a.lo - n * 0x1.b839a252049c1p-104);
  return {y.hi, y.lo, magic_integer(shifted)};
}
INLINE f64 sin_kernel(f64 x, f64 lo) {
  const f64 z = x * x, w = z * z, v = z * x;
  const f64 r = 8.33333333332248946124e-03 + z * (-1.98412698298579493134e-04 + z * 2.75573137070700676789e-06) +
                z * w * (-2.50507602534068634195e-08 + z * 1.58969099521155010221e-10);
  return x - ((z * (0.5 * lo - v * r) - lo) - v * -1.66666666666666324348e-01);
}
INLINE f64 cos_kernel(f64 x, f64 lo) {
  const f64 z = x * x, w = z * z;
  const f64 r = z * (4.16666666666666019037e-02 + z * (-1.38888888888741095749e-03 + z * 2.48015872894767294178e-05)) +
                w * w * (-2.75573143513906633035e-07 + z * (2.08757232129817482790e-09 + z * -1.13596475577881948265e-11));
  const f64 hz = 0.5 * z, c = 1.0 - hz;
  return c + (((1.0 - c) - hz) + (z * r - x * lo));
}
INLINE f64 sin(f64 x) {
  const Angle a = reduce(x);
  const f64 y = quadrant(sin_kernel(a.hi, a.lo), cos_kernel(a.hi, a.lo), a.n);
  return x == 0.0 ? x : y;
}
INLINE f64 cos(f64 x) {
  const Angle a = reduce(x);
  return quadrant(sin_kernel(a.hi, a.lo), cos_kernel(a.hi, a.lo), a.n + 1);
}
INLINE void sincos(f64 x, f64* s, f64* c) {
  const Angle a = reduce(x);
  const f64 sine = sin_kernel(a.hi, a.lo), cosine = cos_kernel(a.hi, a.lo);
  *s = x == 0.0 ? x : quadrant(sine, cosine, a.n);
  *c = quadrant(sine, cosine, a.n + 1);
}
INLINE f64 tan(f64 x) {
  const Angle a = reduce(x);
  const f64 s = sin_kernel(a.hi, a.lo), c = cos_kernel(a.hi, a.lo);
  const f64 y = a.n & 1 ? -c / s : s / c;
  return x == 0.0 ? x : y;
}
INLINE f32 tanf(f32 x) {
  const Quarter q = quarter_turns(x);
  const f64 y = q.r * PI_2, s = sin_float(y), c = cos_float(y);
  const f32 r = (f32)(q.n & 1 ? -c / s : s / c);
  return isfinite(x) ? (x == 0.0f ? x : r) : __builtin_nanf("");
}

// ---- their inverses
INLINE f64 atan(f64 x) {
  const f64 a = fabs(x);
  const bool low = a <= 0.4375, high = a > 2.4375;  // else around 1
  const f64 t = (low ? a : high ? -1.0 : a - 1.0) / (low ? 1.0 : high ? a : a + 1.0);
  const f64 z = t * t, w = z * z;
  const f64 even = z * (3.33333333333329318027e-01 +
                        w * (1.42857142725034663711e-01 +
                             w * (9.09088713343650656196e-02 +
                                  w * (6.66107313738753120669e-02 + w * (4.97687799461593236017e-02 + w * 1.62858201153657823623e-02)))));
  const f64 odd = w * (-1.99999999998764832476e-01 +
                       w * (-1.11111104054623557880e-01 +
                            w * (-7.69187620504482999495e-02 + w * (-5.83357013379057348645e-02 + w * -3.65315727442169155270e-02))));
  const f64 base = low ? 0.0 : high ? PI_2 : 0.5 * PI_2, base_lo = low ? 0.0 : high ? PI_2_LO : 0.5 * PI_2_LO;
  const f64 y = base - ((t * (even + odd) - base_lo) - t);
  return x != x ? x : with_sign(y, x);
}
INLINE f64 atan2(f64 y, f64 x) {
  const f64 a = fabs(y), b = fabs(x);
  const bool equal = (a == b) & ((a == 0.0) | (a == INF));
  f64 r = atan(equal ? (a == 0.0 ? 0.0 : 1.0) : a / b);
  r = as<i64>(x) < 0 ? 2.0 * PI_2 - (r - 2.0 * PI_2_LO) : r;
  return (x != x) | (y != y) ? x + y : with_sign(r, y);
}
INLINE f32 atanf(f32 x) { return (f32)atan((f64)x); }
INLINE f32 atan2f(f32 y, f32 x) { return (f32)atan2((f64)y, (f64)x); }
INLINE f64 asin_ratio(f64 z) {
  const f64 p = z * (1.66666666666666657415e-01 +
                     z * (-3.25565818622400915405e-01 +
                          z * (2.01212532134862925881e-01 +
                               z * (-4.00555345006794114027e-02 + z * (7.91534994289814532176e-04 + z * 3.47933107596021167570e-05)))));
  const f64 q = 1.0 + z * (-2.40339491173441421878e+00 +
                           z * (2.02094576023350569471e+00 + z * (-6.88283971605453293030e-01 + z * 7.70381505559019352791e-02)));
  return p / q;
}
INLINE f64 asin(f64 x) {
  const f64 a = fabs(x);
  const bool low = a < 0.5;
  const f64 z = low ? x * x : (1.0 - a) * 0.5, r = asin_ratio(z), s = sqrt(z);
  const f64 f = as<f64>(as<u64>(s) & 0xffffffff00000000ull), c = s == 0.0 ? 0.0 : (z - f * f) / (s + f);
  const f64 y = 0.5 * PI_2 - (2.0 * s * r - (PI_2_LO - 2.0 * c) - (0.5 * PI_2 - 2.0 * f));
  return low ? x + x * r : with_sign(y, x);
}
INLINE f64 acos(f64 x) {
  const f64 a = fabs(x);
  const bool low = a < 0.5;
  const f64 z = low ? x * x : (1.0 - a) * 0.5, r = asin_ratio(z), s = sqrt(z);
  const f64 f = as<f64>(as<u64>(s) & 0xffffffff00000000ull), c = s == 0.0 ? 0.0 : (z - f * f) / (s + f);
  const f64 y = x < 0.0 ? 2.0 * (PI_2 - (s + (r * s - PI_2_LO))) : 2.0 * (f + (r * s + c));
  return low ? PI_2 - (x - (PI_2_LO - x * r)) : y;
}
INLINE f32 asinf(f32 x) { return (f32)asin((f64)x); }
INLINE f32 acosf(f32 x) { return (f32)acos((f64)x); }

// ---- hyperbolic functions
INLINE f64 half_exp(f64 a) {  // exp(a) / 2 for a > 0, where exp(a) may overflow
  const Reduced r = exp_reduce(clamp_exponent(a, 0.0, 712.0));
  const f64 y = scale(1.0 + expm1_reduced(r.hi, r.lo), r.n - 1);
  return a != a ? a : y;
}
INLINE f64 sinh(f64 x) {
  const f64 a = fabs(x), t = expm1(a > 22.0 ? 22.0 : a), e = half_exp(a);
  const f64 y = a < 22.0 ? 0.5 * (a < 1.0 ? 2.0 * t - t * t / (t + 1.0) : t + t / (t + 1.0)) : e;
  return a < 0x1p-28 ? x : with_sign(y, x);
}
INLINE f64 cosh(f64 x) {
  const f64 a = fabs(x), e = half_exp(a), t = exp(a > 22.0 ? 22.0 : a), u = expm1(a > 1.0 ? 1.0 : a);
  return a < 0.35 ? 1.0 + u * u / (2.0 * (1.0 + u)) : a < 22.0 ? 0.5 * t + 0.5 / t : e;
}
INLINE f64 tanh(f64 x) {
  const f64 a = fabs(x), t = expm1(a > 22.0 ? 44.0 : 2.0 * a);
  const f64 y = a < 1.0 ? t / (t + 2.0) : 1.0 - 2.0 / (t + 2.0);
  return x != x ? x : a < 0x1p-28 ? x : with_sign(y, x);
}
INLINE f64 asinh(f64 x) {
  const f64 a = fabs(x), z = a * a;
  const f64 y = a > 0x1p28 ? log(a) + 0x1.62e42fefa39efp-1 : log1p(a + z / (1.0 + sqrt(z + 1.0)));
  return a < 0x1p-28 ? x : with_sign(y, x);
}
INLINE f64 acosh(f64 x) {
  const f64 t = x - 1.0;
  return x < 1.0 ? NOT_A_NUMBER : x > 0x1p28 ? log(x) + 0x1.62e42fefa39efp-1 : log1p(t + sqrt(2.0 * t + t * t));
}
INLINE f64 atanh(f64 x) {
  const f64 a = fabs(x);
  const f64 y = 0.5 * log1p(a < 0.5 ? 2.0 * a + 2.0 * a * a / (1.0 - a) : 2.0 * a / (1.0 - a));
  return a < 0x1p-28 ? x : a > 1.0 ? NOT_A_NUMBER : with_sign(y, x);
}
INLINE f32 sinhf(f32 x) { return (f32)sinh((f64)x); }
INLINE f32 coshf(f32 x) { return (f32)cosh((f64)x); }
INLINE f32 tanhf(f32 x) { return (f32)tanh((f64)x); }
INLINE f32 asinhf(f32 x) { return (f32)asinh((f64)x); }
INLINE f32 acoshf(f32 x) { return (f32)acosh((f64)x); }
INLINE f32 atanhf(f32 x) { return (f32)atanh((f64)x); }

// ---- error functions: four ranges, as in msun
INLINE f64 erf_small(f64 x) {
  const f64 z = x * x;
  const f64 r = 1.28379167095512558561e-01 +
                z * (-3.25042107247001499370e-01 +
                     z * (-2.84817495755985104766e-02 + z * (-5.77027029648944159157e-03 + z * -2.37630166566501626084e-05)));
  const f64 s = 1.0 + z * (3.97917223959155352819e-01 +
                           z * (6.50222499887672944485e-02 +
                                z * (5.08130628187576562776e-03 + z * (1.32494738004321644526e-04 + z * -3.96022827877536812320e-06))));
  return r / s;
}
constexpr f64 ERX = 8.45062911510467529297e-01;
INLINE f64 erf_middle(f64 a) {  // erf(a) - ERX for a in [0.84375, 1.25)
  const f64 s = a - 1.0;
  const f64 p = -2.36211856075265944077e-03 +
                s * (4.14856118683748331666e-01 +
                     s * (-3.72207876035701323847e-01 +
                          s * (3.18346619901161753674e-01 +
                               s * (-1.10894694282396677476e-01 + s * (3.54783043256182359371e-02 + s * -2.16637559486879084300e-03)))));
  const f64 q = 1.0 + s * (1.06420880400844228286e-01 +
                           s * (5.40397917702171048937e-01 +
                                s * (7.18286544141962662868e-02 +
                                     s * (1.26171219808761642112e-01 + s * (1.36370839120290507362e-02 + s * 1.19844998467991074170e-02)))));
  return p / q;
}
INLINE f64 erfc_exponent(f64 a) {  // log(erfc(a) a exp(a a)) + 0.5625 for a in [1.25, 28]
  const f64 s = 1.0 / (a * a);
  const bool near = a < 1.0 / 0.35;
  const f64 r1 = -9.86494403484714822705e-03 +
                 s * (-6.93858572707181764372e-01 +
                      s * (-1.05586262253232909814e+01 +
                           s * (-6.23753324503260060396e+01 +
                                s * (-1.62396669462573470355e+02 +
                                     s * (-1.84605092906711035994e+02 + s * (-8.12874355063065934246e+01 + s * -9.81432934416914548592e+00))))));
  const f64 s1 = 1.0 + s * (1.96512716674392571292e+01 +
                            s * (1.37657754143519042600e+02 +
                                 s * (4.34565877475229228821e+02 +
                                      s * (6.45387271733267880336e+02 +
                                           s * (4.29008140027567833386e+02 +
                                                s * (1.08635005541779435134e+02 + s * (6.57024977031928170135e+00 + s * -6.04244152148580987438e-02)))))));
  const f64 r2 = -9.86494292470009928597e-03 +
                 s * (-7.99283237680523006574e-01 +
                      s * (-1.77579549177547519889e+01 +
                           s * (-1.60636384855821916062e+02 +
                                s * (-6.37566443368389627722e+02 + s * (-1.02509513161107724954e+03 + s * -4.83519191608651397019e+02)))));
  const f64 s2 = 1.0 + s * (3.03380607434824582924e+01 +
                            s * (3.25792512996573918826e+02 +
                                 s * (1.53672958608443695994e+03 +
                                      s * (3.19985821950859553908e+03 +
                                           s * (2.55305040643316442583e+03 + s * (4.74528541206955367215e+02 + s * -2.24409524465858183362e+01))))));
  return near ? r1 / s1 : r2 / s2;
}
INLINE f64 erfc_large(f64 a) {
  const f64 z = as<f64>(as<u64>(a) & 0xffffffff00000000ull);
  return exp(-z * z - 0.5625) * exp((z - a) * (z + a) + erfc_exponent(a)) / a;
}
INLINE f64 erf(f64 x) {
  const f64 a = fabs(x), c = a < 1.25 ? 1.25 : a > 6.0 ? 6.0 : a;
  const f64 y = a < 1.25 ? ERX + erf_middle(a) : 1.0 - erfc_large(c);
  return x != x ? x : a < 0.84375 ? x + x * erf_small(x) : with_sign(y, x);
}
INLINE f64 erfc(f64 x) {
  const f64 a = fabs(x), c = a < 1.25 ? 1.25 : a > 28.0 ? 28.0 : a;
  const f64 small = x < 0.25 ? 1.0 - (x + x * erf_small(x)) : 0.5 - (x - 0.5 + x * erf_small(x));
  const f64 tail = a < 1.25 ? 1.0 - ERX - erf_middle(a) : a > 28.0 ? 0.0 : erfc_large(c);
  return x != x ? x : a < 0.84375 ? small : x < 0.0 ? 2.0 - tail : tail;
}
INLINE f32 erff(f32 x) { return (f32)erf((f64)x); }
INLINE f32 erfcf(f32 x) { return (f32)erfc((f64)x); }

// ---- remainders and exponents
static __attribute__((noinline)) f64 fmod_bits(f64 x, f64 y) {  // finite x, y not 0, |x| >= |y|: long division
  u64 a = as<u64>(fabs(x)), b = as<u64>(fabs(y));
  i32 ea = (i32)(a >> 52), eb = (i32)(b >> 52);
  const u64 mask = 0x000fffffffffffffull, one = mask + 1;
  if (ea) a = (a & mask) | one; else { const i32 n = __builtin_clzll(a) - 11; a <<= n; ea = 1 - n; }
  if (eb) b = (b & mask) | one; else { const i32 n = __builtin_clzll(b) - 11; b <<= n; eb = 1 - n; }
  for (; ea > eb; --ea) {
    a = a >= b ? a - b : a;
    a <<= 1;
  }
  a = a >= b ? a - b : a;
  if (a == 0) return with_sign(0.0, x);
  const i32 n = __builtin_clzll(a) - 11;
  a <<= n;
  ea -= n;
  a = ea > 0 ? (a - one) | (u64)ea << 52 : a >> (1 - ea);
  return with_sign(as<f64>(a), x);
}
INLINE f64 fmod(f64 x, f64 y) {
  if ((x != x) | (y != y) | !(fabs(x) < INF) | (y == 0.0)) return NOT_A_NUMBER;
  return fabs(x) < fabs(y) ? x : fmod_bits(x, y);
}
INLINE f32 fmodf(f32 x, f32 y) { return (f32)fmod((f64)x, (f64)y); }
INLINE f64 ldexp(f64 x, i32 n) {
  const i32 c = n > 2200 ? 2200 : n < -2200 ? -2200 : n;
  // one rounding: steps that grow are exact, the last of those that shrink is the only one below the normal range
  f64 y = x;
  i32 k = c;
  if (k > 0) {
    for (i32 i = 0; i < 3; ++i) {
      const i32 step = k > 1023 ? 1023 : k;
      y *= power_of_two(step);
      k -= step;
    }
    return y;
  }
  for (i32 i = 0; i < 3; ++i) {
    const i32 step = k < -969 ? -969 : k;
    if (k > -1022) break;
    y *= power_of_two(step);
    k -= step;
  }
  return y * power_of_two(k < -1022 ? -1022 : k);
}
INLINE f32 ldexpf(f32 x, i32 n) {
  const i32 c = n > 400 ? 400 : n < -400 ? -400 : n;
  return (f32)((f64)x * power_of_two(c));
}
INLINE f64 frexp(f64 x, i32* e) {
  const bool small = fabs(x) < 0x1p-1022;
  const u64 bits = as<u64>(small ? x * 0x1p54 : x);
  const bool plain = isfinite(x) & (x != 0.0);
  *e = plain ? (i32)(bits >> 52 & 2047) - 1022 - (small ? 54 : 0) : 0;
  return plain ? as<f64>((bits & 0x800fffffffffffffull) | 0x3fe0000000000000ull) : x;
}
INLINE f32 frexpf(f32 x, i32* e) { return (f32)frexp((f64)x, e); }
INLINE f64 modf(f64 x, f64* whole) {
  const f64 t = trunc(x);
  *whole = t;
  return with_sign(isinf(x) ? 0.0 : x - t, x);
}
INLINE f32 modff(f32 x, f32* whole) {
  const f32 t = truncf(x);
  *whole = t;
  return with_sign(isinf(x) ? 0.0f : x - t, x);
}

// ---- a * b + c, rounded once
#ifdef DEPIN_STRICT
INLINE f32 fmaf(f32 a, f32 b, f32 c) { return ::cuda_builtin::fma(a, b, c); }
#else
INLINE f32 fmaf(f32 a, f32 b, f32 c) {
  const f64 p = (f64)a * (f64)b;  // exact
  const Double2 s = two_sum(p, (f64)c);
  // round to odd in double, then to nearest in float: no double rounding (Boldo and Melquiond 2008)
  const i64 bits = as<i64>(s.hi);
  const bool odd = (bits & 1) != 0, fine = isfinite(s.hi) & isfinite(s.lo);
  const i64 toward = ((s.lo > 0.0) == (s.hi > 0.0)) ? 1 : -1;
  return (f32)(fine & (s.lo != 0.0) & !odd ? as<f64>(bits + toward) : s.hi);
}
#endif
INLINE f32 __fmaf_rn(f32 a, f32 b, f32 c) { return fmaf(a, b, c); }

// ---- other names of the same
#define SAME1(N, F) INLINE f32 N(f32 x) { return F(x); }
SAME1(__expf, expf) SAME1(__exp10f, exp10f) SAME1(__logf, logf) SAME1(__log2f, log2f) SAME1(__log10f, log10f)
SAME1(__sinf, sinf) SAME1(__cosf, cosf) SAME1(__tanf, tanf) SAME1(__fsqrt_rn, sqrtf) SAME1(__frsqrt_rn, rsqrtf)
#undef SAME1
INLINE f64 __dsqrt_rn(f64 x) { return sqrt(x); }
INLINE f32 __powf(f32 x, f32 y) { return powf(x, y); }
INLINE void __sincosf(f32 x, f32* s, f32* c) { sincosf(x, s, c); }
INLINE f32 __fadd_rn(f32 a, f32 b) { return a + b; }
INLINE f32 __fsub_rn(f32 a, f32 b) { return a - b; }
INLINE f32 __fmul_rn(f32 a, f32 b) { return a * b; }
INLINE f32 __fdiv_rn(f32 a, f32 b) { return a / b; }
INLINE f32 __frcp_rn(f32 a) { return 1.0f / a; }
INLINE f64 __dadd_rn(f64 a, f64 b) { return a + b; }
INLINE f64 __dsub_rn(f64 a, f64 b) { return a - b; }
INLINE f64 __dmul_rn(f64 a, f64 b) { return a * b; }
INLINE f64 __ddiv_rn(f64 a, f64 b) { return a / b; }
INLINE f64 __drcp_rn(f64 a) { return 1.0 / a; }
INLINE f32 __fdividef(f32 a, f32 b) { return a / b; }
INLINE f32 fdividef(f32 a, f32 b) { return a / b; }

// ---- half precision: its 16 bits, with one NaN
INLINE f32 __half_value(u16 h) {
  const u32 a = h & 0x7fffu;
  const u32 bits = a > 0x7c00 ? 0x7fc00000u : a == 0x7c00 ? 0x7f800000u : as<u32>(as<f32>(a << 13) * 0x1p112f);
  return as<f32>(a > 0x7c00 ? bits : bits | (u32)(h & 0x8000u) << 16);
}
INLINE u16 __half_bits_rn(f32 x) {
  const u32 bits = as<u32>(x), a = bits & 0x7fffffffu;
  const u32 normal = (a - 0x38000000u + 0xfffu + (a >> 13 & 1u)) >> 13;
  const u32 tiny = as<u32>(as<f32>(a) + 0.5f) - 0x3f000000u;  // 0.5 has half's smallest number as its last place
  const u32 size = a < 0x38800000u ? tiny : a > 0x477fefffu ? 0x7c00u : normal;
  return (u16)(a > 0x7f800000u ? 0x7e00u : size | (bits >> 16 & 0x8000u));
}
INLINE f32 to_odd(f64 x) {  // rounded to odd, so that rounding once more is rounding once
  const f32 f = (f32)x;
  const bool inexact = ((f64)f != x) & (x == x);
  const u32 bits = as<u32>(f) - (u32)(fabs((f64)f) > fabs(x));
  return inexact ? as<f32>(bits | 1u) : f;
}
INLINE u16 __half_bits_rn(f64 x) { return __half_bits_rn(to_odd(x)); }
INLINE u16 __half_bits_rz(f64 x) {
  const u32 bits = as<u32>(to_odd(x)), a = bits & 0x7fffffffu;
  const u32 tiny = to_integer<u32>(as<f32>(a) * 16777216.0f);
  const u32 size = a < 0x38800000u ? tiny : a > 0x477fffffu ? (a == 0x7f800000u ? 0x7c00u : 0x7bffu) : (a - 0x38000000u) >> 13;
  return (u16)(a > 0x7f800000u ? 0x7e00u : size | (bits >> 16 & 0x8000u));
}
INLINE u16 __half_bits_ru(f64 x) {
  const u16 h = __half_bits_rz(x);
  return (u16)(h + ((x > 0.0) & ((f64)__half_value(h) < x) ? 1 : 0));
}
INLINE u16 __half_bits_rd(f64 x) {
  const u16 h = __half_bits_rz(x);
  return (u16)(h + ((x < 0.0) & ((f64)__half_value(h) > x) ? 1 : 0));
}
#ifndef DEPIN_STRICT
INLINE u16 atomicAdd_half(u16* p, u16 x) {
  const u16 old = *p;
  *p = __half_bits_rn(__half_value(old) + __half_value(x));
  return old;
}
#define ATOMIC(N, T, F)           \
  INLINE T N(T* p, T x) {         \
    const T old = *p;             \
    *p = F(old, x);               \
    return old;                   \
  }
ATOMIC(atomicMax_, f32, fmaxf)
ATOMIC(atomicMin_, f32, fminf)
ATOMIC(atomicMax_, f64, fmax)
ATOMIC(atomicMin_, f64, fmin)
#undef ATOMIC
#endif

// ---- the plain names, for float, for integers (which become double), and mixed
#define MATHS1(N)                              \
  INLINE f32 N(f32 x) { return N##f(x); }      \
  INLINE f64 N(i32 x) { return N((f64)x); }    \
  INLINE f64 N(u32 x) { return N((f64)x); }    \
  INLINE f64 N(i64 x) { return N((f64)x); }    \
  INLINE f64 N(u64 x) { return N((f64)x); }
MATHS1(sqrt) MATHS1(rsqrt) MATHS1(cbrt) MATHS1(rcbrt)
MATHS1(exp) MATHS1(exp2) MATHS1(exp10) MATHS1(expm1) MATHS1(log) MATHS1(log2) MATHS1(log10) MATHS1(log1p)
MATHS1(sin) MATHS1(cos) MATHS1(tan) MATHS1(asin) MATHS1(acos) MATHS1(atan)
MATHS1(sinh) MATHS1(cosh) MATHS1(tanh) MATHS1(asinh) MATHS1(acosh) MATHS1(atanh)
MATHS1(erf) MATHS1(erfc) MATHS1(fabs) MATHS1(floor) MATHS1(ceil) MATHS1(trunc) MATHS1(rint) MATHS1(round)
MATHS1(nearbyint)
#undef MATHS1
#define MATHS2(N)                                                        \
  INLINE f32 N(f32 x, f32 y) { return N##f(x, y); }                      \
  template <class A, class B> INLINE f64 N(A x, B y) { return N((f64)x, (f64)y); }
MATHS2(pow) MATHS2(atan2) MATHS2(fmod) MATHS2(hypot) MATHS2(copysign) MATHS2(fmax) MATHS2(fmin) MATHS2(fdim)
#undef MATHS2
INLINE f32 pow(f32 x, i32 y) { return powf(x, (f32)y); }
INLINE f32 min(f32 a, f32 b) { return fminf(a, b); }
INLINE f32 max(f32 a, f32 b) { return fmaxf(a, b); }
INLINE f64 min(f64 a, f64 b) { return fmin(a, b); }
INLINE f64 max(f64 a, f64 b) { return fmax(a, b); }
INLINE f64 min(f32 a, f64 b) { return fmin((f64)a, b); }
INLINE f64 max(f32 a, f64 b) { return fmax((f64)a, b); }
INLINE f64 min(f64 a, f32 b) { return fmin(a, (f64)b); }
INLINE f64 max(f64 a, f32 b) { return fmax(a, (f64)b); }
INLINE f32 abs(f32 x) { return fabsf(x); }
INLINE f64 abs(f64 x) { return fabs(x); }
INLINE f32 fma(f32 a, f32 b, f32 c) { return fmaf(a, b, c); }
INLINE f32 ldexp(f32 x, i32 n) { return ldexpf(x, n); }
INLINE f32 scalbnf(f32 x, i32 n) { return ldexpf(x, n); }
INLINE f32 scalbn(f32 x, i32 n) { return ldexpf(x, n); }
INLINE f64 scalbn(f64 x, i32 n) { return ldexp(x, n); }
INLINE f32 frexp(f32 x, i32* e) { return frexpf(x, e); }
INLINE f32 modf(f32 x, f32* whole) { return modff(x, whole); }
INLINE void sincos(f32 x, f32* s, f32* c) { sincosf(x, s, c); }

}  // namespace cuda
