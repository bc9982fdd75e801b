// Arithmetic with a named rounding: to nearest (rn), towards zero (rz), up (ru), down (rd).
//
// Of floats: the exact result is rounded to odd in double, from which rounding once more is rounding once (Boldo and
// Melquiond 2008). Of doubles: in integers, or from the rounding error, which two sums or products give exactly.
#pragma once

namespace cuda {

constexpr int RN = 0, RZ = 1, RU = 2, RD = 3;

INLINE f64 odd(Double2 s) {  // hi + lo, rounded to odd; of lo only the sign counts
  const i64 bits = as<i64>(s.hi);
  const bool even = (bits & 1) == 0, inexact = isfinite(s.hi) & isfinite(s.lo) & (s.lo != 0.0);
  return inexact & even ? as<f64>(bits + ((s.lo > 0.0) == (s.hi > 0.0) ? 1 : -1)) : s.hi;
}
INLINE f32 next_up(f32 x) { return x == 0.0f ? as<f32>(1) : as<f32>(as<i32>(x) + (x > 0.0f ? 1 : -1)); }
INLINE f64 next_up(f64 x) { return x == 0.0 ? as<f64>((i64)1) : as<f64>(as<i64>(x) + (x > 0.0 ? 1 : -1)); }
template <int M> INLINE f32 narrow(f64 x) {  // x to float, where x is exact or rounded to odd
  const f32 f = (f32)x;
  const f64 back = f;
  const bool up = (M == RU || (M == RZ && x < 0.0)) && back < x, down = (M == RD || (M == RZ && x > 0.0)) && back > x;
  return up ? next_up(f) : down ? -next_up(-f) : f;
}
template <int M> INLINE f64 directed(Double2 s) {  // hi + lo, hi the nearest
  const bool up = (M == RU || (M == RZ && s.hi < 0.0)) && s.lo > 0.0;
  const bool down = (M == RD || (M == RZ && s.hi > 0.0)) && s.lo < 0.0;
  return up ? next_up(s.hi) : down ? -next_up(-s.hi) : s.hi;
}
template <int M, class T> INLINE T zero_sum(T sum, T a, T b) {  // the sign of an exact 0 = a + b
  return M == RD && sum == 0 && (signbit(a) || signbit(b)) ? -(T)0 : sum;
}

// ---- floats
template <int M> INLINE f32 add_float(f32 a, f32 b) { return zero_sum<M>(narrow<M>(odd(two_sum(a, b))), a, b); }
template <int M> INLINE f32 mul_float(f32 a, f32 b) { return narrow<M>((f64)a * (f64)b); }
template <int M> INLINE f32 div_float(f32 a, f32 b) {
  const f64 q = (f64)a / (f64)b;
  const Double2 p = two_product(q, b);
  const f64 rest = (a - p.hi) - p.lo;
  return narrow<M>(odd({q, b < 0.0f ? -rest : rest}));
}
template <int M> INLINE f32 sqrt_float(f32 a) {
  const f64 s = sqrt((f64)a);
  const Double2 p = two_product(s, s);
  return narrow<M>(odd({s, (a - p.hi) - p.lo}));
}
template <int M> INLINE f32 fma_float(f32 a, f32 b, f32 c) {
  const f64 p = (f64)a * (f64)b, s = odd(two_sum(p, c));
  return narrow<M>(zero_sum<M>(s, p, (f64)c));
}

// ---- doubles: m * 2^(e - 64), the top bit of m set, and whether there is more
template <int M> INLINE f64 pack(bool minus, u64 m, bool rest, i32 e) {
  const i32 cut = e < -1021 ? 11 - 1021 - e : 11;  // bits of m to drop
  u64 kept = 0;
  bool half = false;
  if (cut > 64) {
    rest = true;
  } else if (cut == 64) {
    half = m >> 63;
    rest = rest || m << 1 != 0;
  } else {
    kept = m >> cut;
    half = m >> (cut - 1) & 1;
    rest = rest || m << (65 - cut) != 0;
  }
  const bool away = M == RN ? half && (rest || (kept & 1)) : M == RZ ? false : (half || rest) && (M == RU) != minus;
  const f64 y = ldexp((f64)(kept + away), e - 64 + cut);  // at most 2^53: exact
  const bool stays = M == RZ || (M == RU && minus) || (M == RD && !minus);
  const f64 size = stays && y == INF ? 0x1.fffffffffffffp1023 : y;
  return minus ? -size : size;
}
// a * b + c: the 106-bit product and c are aligned, added, and rounded once.
template <int M> static __attribute__((noinline)) f64 fma_double(f64 a, f64 b, f64 c) {
  if (!isfinite(a) || !isfinite(b) || !isfinite(c) || a == 0.0 || b == 0.0) return zero_sum<M>(a * b + c, a * b, c);
  i32 ea, eb, ec;
  const u64 ma = (u64)(fabs(frexp(a, &ea)) * 0x1p53), mb = (u64)(fabs(frexp(b, &eb)) * 0x1p53);
  const u64 mc = (u64)(fabs(frexp(c, &ec)) * 0x1p53);
  const bool minus = (as<i64>(a) < 0) != (as<i64>(b) < 0), other = (as<i64>(c) < 0) != minus;
  // product = (hi, lo) * 2^e with 106 bits, moved up so that its top bit is bit 125 or 124
  u64 hi = __umul64hi(ma, mb), lo = ma * mb;
  hi = hi << 20 | lo >> 44;
  lo <<= 20;
  i32 e = ea + eb - 106 - 20;
  if (c == 0.0) ec = e + 126 - 2000;
  // c = (chi, clo) * 2^e, its top bit at 125 where the exponents allow
  u64 chi = mc << 9, clo = 0;  // top bit 125 of 128
  i32 d = (ec - 126) - e;      // how much higher c is
  bool sticky = false;
  if (d > 0) {                 // c is larger: move the product down
    e += d;
    const u64 h = hi, l = lo;
    if (d >= 128) { sticky = (h | l) != 0; hi = lo = 0; }
    else if (d >= 64) { sticky = l != 0 || (d > 64 && h << (128 - d) != 0); lo = d == 64 ? h : h >> (d - 64); hi = 0; }
    else { sticky = l << (64 - d) != 0; lo = l >> d | h << (64 - d); hi = h >> d; }
    lo |= sticky;
  } else if (d < 0) {
    d = -d;
    const u64 h = chi;
    if (d >= 128) { sticky = h != 0; chi = clo = 0; }
    else if (d >= 64) { sticky = d > 64 && h << (128 - d) != 0; clo = d == 64 ? h : h >> (d - 64); chi = 0; }
    else { clo = h << (64 - d); chi = h >> d; }
    clo |= sticky;
  }
  bool sign = minus;
  if (!other) {
    const u64 l = lo + clo;
    hi = hi + chi + (l < lo);
    lo = l;
  } else {
    if (hi < chi || (hi == chi && lo < clo)) {
      u64 t = hi; hi = chi; chi = t;
      t = lo; lo = clo; clo = t;
      sign = !sign;
    }
    hi = hi - chi - (lo < clo);
    lo = lo - clo;
  }
  if ((hi | lo) == 0) return M == RD ? -0.0 : 0.0;  // exact cancellation
  const u32 zeros = hi ? (u32)__builtin_clzll(hi) : 64 + (u32)__builtin_clzll(lo);
  if (zeros >= 64) { hi = lo << (zeros - 64); lo = 0; }
  else if (zeros) { hi = hi << zeros | lo >> (64 - zeros); lo <<= zeros; }
  return pack<M>(sign, hi, lo != 0, e + 128 - (i32)zeros);
}
template <int M> INLINE f64 add_double(f64 a, f64 b) {
  const Double2 s = two_sum(a, b);
  const bool over = isfinite(a) & isfinite(b) & !isfinite(s.hi);
  const bool stays = M == RZ || (M == RU && s.hi < 0.0) || (M == RD && s.hi > 0.0);
  return over ? (stays ? copysign(0x1.fffffffffffffp1023, s.hi) : s.hi) : zero_sum<M>(directed<M>(s), a, b);
}
template <int M> INLINE f64 mul_double(f64 a, f64 b) {
  return fma_double<M>(a, b, (as<i64>(a) < 0) != (as<i64>(b) < 0) ? -0.0 : 0.0);
}
template <int M> static __attribute__((noinline)) f64 div_double(f64 a, f64 b) {
  if (!isfinite(a) || !isfinite(b) || a == 0.0 || b == 0.0) return a / b;
  i32 ea, eb;
  u64 r = (u64)(fabs(frexp(a, &ea)) * 0x1p53), q = 0;
  const u64 d = (u64)(fabs(frexp(b, &eb)) * 0x1p53);
  i32 e = ea - eb + 1;
  if (r < d) {
    r <<= 1;
    --e;
  }
  for (i32 i = 0; i < 64; ++i) {
    const bool one = r >= d;
    q = q << 1 | one;
    r = (one ? r - d : r) << 1;
  }
  return pack<M>((as<i64>(a) < 0) != (as<i64>(b) < 0), q, r != 0, e);
}
template <int M> INLINE f64 sqrt_double(f64 a) {
  const f64 x = a < 0x1p-900 ? a * 0x1p108 : a > 0x1p900 ? a * 0x1p-108 : a, s = sqrt(x);
  const Double2 p = two_product(s, s);
  const f64 y = isfinite(s) & (s > 0.0) ? directed<M>({s, (x - p.hi) - p.lo}) : s;
  return a < 0x1p-900 ? y * 0x1p-54 : a > 0x1p900 ? y * 0x1p54 : y;
}

// ---- conversions
INLINE Double2 whole(i64 x) { return two_sum((f64)(i32)(x >> 32) * 0x1p32, (f64)(u32)x); }
INLINE Double2 whole(u64 x) { return two_sum((f64)(u32)(x >> 32) * 0x1p32, (f64)(u32)x); }

#define MODE(R, M)                                                                        \
  INLINE f32 __fadd_##R(f32 a, f32 b) { return add_float<M>(a, b); }                      \
  INLINE f32 __fsub_##R(f32 a, f32 b) { return add_float<M>(a, -b); }                     \
  INLINE f32 __fmul_##R(f32 a, f32 b) { return mul_float<M>(a, b); }                      \
  INLINE f32 __fdiv_##R(f32 a, f32 b) { return div_float<M>(a, b); }                      \
  INLINE f32 __frcp_##R(f32 a) { return div_float<M>(1.0f, a); }                          \
  INLINE f32 __fsqrt_##R(f32 a) { return sqrt_float<M>(a); }                              \
  INLINE f32 __fmaf_##R(f32 a, f32 b, f32 c) { return fma_float<M>(a, b, c); }            \
  INLINE f64 __dadd_##R(f64 a, f64 b) { return add_double<M>(a, b); }                     \
  INLINE f64 __dsub_##R(f64 a, f64 b) { return add_double<M>(a, -b); }                    \
  INLINE f64 __dmul_##R(f64 a, f64 b) { return mul_double<M>(a, b); }                     \
  INLINE f64 __ddiv_##R(f64 a, f64 b) { return div_double<M>(a, b); }                     \
  INLINE f64 __drcp_##R(f64 a) { return div_double<M>(1.0, a); }                          \
  INLINE f64 __dsqrt_##R(f64 a) { return sqrt_double<M>(a); }                             \
  INLINE f64 __fma_##R(f64 a, f64 b, f64 c) { return fma_double<M>(a, b, c); }            \
  INLINE f32 __double2float_##R(f64 x) { return narrow<M>(x); }                           \
  INLINE f32 __int2float_##R(i32 x) { return narrow<M>((f64)x); }                         \
  INLINE f32 __uint2float_##R(u32 x) { return narrow<M>((f64)x); }                        \
  INLINE f32 __ll2float_##R(i64 x) { return narrow<M>(odd(whole(x))); }                   \
  INLINE f32 __ull2float_##R(u64 x) { return narrow<M>(odd(whole(x))); }                  \
  INLINE f64 __ll2double_##R(i64 x) { return directed<M>(whole(x)); }                     \
  INLINE f64 __ull2double_##R(u64 x) { return directed<M>(whole(x)); }
MODE(rz, RZ)
MODE(ru, RU)
MODE(rd, RD)
#undef MODE

#ifdef DEPIN_STRICT
INLINE f64 fma(f64 a, f64 b, f64 c) { return ::cuda_builtin::fma(a, b, c); }
#else
INLINE f64 fma(f64 a, f64 b, f64 c) { return fma_double<RN>(a, b, c); }
#endif
INLINE f64 __fma_rn(f64 a, f64 b, f64 c) { return fma(a, b, c); }

}  // namespace cuda
