// cuda_fp16.h: half precision. Translated with the kernel that includes it, like everything in this folder.
//
// A half is its 16 bits. Arithmetic is done in float and rounded once, which for + - * / and sqrt is correct rounding,
// since float has more than twice the digits (Figueroa 1995); of a * b + c the sum in double is exact. device.h converts.
#pragma once
#pragma clang attribute push(__attribute__((device)), apply_to = function)

struct __half_raw { unsigned short x; };
struct __half2_raw { unsigned short x, y; };
struct __attribute__((aligned(2))) __half {
  unsigned short bits_;
  __half() = default;
  constexpr __half(const __half_raw& raw) : bits_(raw.x) {}
  __half(float x) : bits_(__half_bits_rn(x)) {}
  __half(double x) : bits_(__half_bits_rn(x)) {}
  template <class T, class = typename Integral_<T>::Double> __half(T x) : bits_(__half_bits_rn((double)x)) {}
  operator float() const { return __half_value(bits_); }
  operator __half_raw() const { return __half_raw{bits_}; }
  __half& operator=(const __half_raw& raw) { bits_ = raw.x; return *this; }
  template <class T> __half& operator=(T x) { *this = __half(x); return *this; }
};
typedef __half half;
typedef __half __nv_half;
struct __attribute__((aligned(4))) __half2 {
  __half x, y;
  __half2() = default;
  __half2(const __half& a, const __half& b) : x(a), y(b) {}
  __half2(const __half2_raw& raw) : x(__half_raw{raw.x}), y(__half_raw{raw.y}) {}
  operator __half2_raw() const { return __half2_raw{x.bits_, y.bits_}; }
};
typedef __half2 half2;
typedef __half2 __nv_half2;

// ---- bits and conversions
inline __half __ushort_as_half(unsigned short x) { return __half(__half_raw{x}); }
inline __half __short_as_half(short x) { return __half(__half_raw{(unsigned short)x}); }
inline unsigned short __half_as_ushort(__half x) { return x.bits_; }
inline short __half_as_short(__half x) { return (short)x.bits_; }
inline float __half2float(__half x) { return __half_value(x.bits_); }
inline __half __float2half(float x) { return __half(x); }
inline __half __double2half(double x) { return __half(x); }
#define TO_HALF_(N, T)                                                                              \
  inline __half __##N##2half_rn(T x) { return __ushort_as_half(__half_bits_rn((double)x)); }        \
  inline __half __##N##2half_rz(T x) { return __ushort_as_half(__half_bits_rz((double)x)); }        \
  inline __half __##N##2half_ru(T x) { return __ushort_as_half(__half_bits_ru((double)x)); }        \
  inline __half __##N##2half_rd(T x) { return __ushort_as_half(__half_bits_rd((double)x)); }
TO_HALF_(int, int) TO_HALF_(uint, unsigned int) TO_HALF_(short, short) TO_HALF_(ushort, unsigned short)
TO_HALF_(ll, long long) TO_HALF_(ull, unsigned long long)
#undef TO_HALF_
inline __half __float2half_rn(float x) { return __half(x); }
inline __half __float2half_rz(float x) { return __ushort_as_half(__half_bits_rz((double)x)); }
inline __half __float2half_ru(float x) { return __ushort_as_half(__half_bits_ru((double)x)); }
inline __half __float2half_rd(float x) { return __ushort_as_half(__half_bits_rd((double)x)); }
#define FROM_HALF_(N, T, C)                                                                 \
  inline T __half2##N##_rn(__half x) { return (T)__float2##C##_rn((float)x); }              \
  inline T __half2##N##_rz(__half x) { return (T)__float2##C##_rz((float)x); }              \
  inline T __half2##N##_ru(__half x) { return (T)__float2##C##_ru((float)x); }              \
  inline T __half2##N##_rd(__half x) { return (T)__float2##C##_rd((float)x); }
FROM_HALF_(int, int, int) FROM_HALF_(uint, unsigned int, uint) FROM_HALF_(ll, long long, ll)
FROM_HALF_(ull, unsigned long long, ull)
#undef FROM_HALF_
inline short half_to_short_(float x) { return x != x ? 0 : x > 32767.0f ? 32767 : x < -32768.0f ? -32768 : (short)x; }
inline unsigned short half_to_ushort_(float x) { return x > 0.0f ? x > 65535.0f ? 65535 : (unsigned short)x : 0; }
#define FROM_HALF_(N, T)                                                              \
  inline T __half2##N##_rn(__half x) { return half_to_##N##_(rintf((float)x)); }      \
  inline T __half2##N##_rz(__half x) { return half_to_##N##_(truncf((float)x)); }     \
  inline T __half2##N##_ru(__half x) { return half_to_##N##_(ceilf((float)x)); }      \
  inline T __half2##N##_rd(__half x) { return half_to_##N##_(floorf((float)x)); }
FROM_HALF_(short, short) FROM_HALF_(ushort, unsigned short)
#undef FROM_HALF_
inline __half2 make_half2(__half x, __half y) { return __half2(x, y); }
inline __half2 __halves2half2(__half x, __half y) { return __half2(x, y); }
inline __half2 __half2half2(__half x) { return __half2(x, x); }
inline __half2 __float2half2_rn(float x) { return __half2(__half(x), __half(x)); }
inline __half2 __floats2half2_rn(float x, float y) { return __half2(__half(x), __half(y)); }
inline __half2 __float22half2_rn(float2 x) { return __half2(__half(x.x), __half(x.y)); }
inline float2 __half22float2(__half2 x) { return make_float2((float)x.x, (float)x.y); }
inline float __low2float(__half2 x) { return x.x; }
inline float __high2float(__half2 x) { return x.y; }
inline __half __low2half(__half2 x) { return x.x; }
inline __half __high2half(__half2 x) { return x.y; }
inline __half2 __low2half2(__half2 x) { return __half2(x.x, x.x); }
inline __half2 __high2half2(__half2 x) { return __half2(x.y, x.y); }
inline __half2 __lows2half2(__half2 a, __half2 b) { return __half2(a.x, b.x); }
inline __half2 __highs2half2(__half2 a, __half2 b) { return __half2(a.y, b.y); }
inline __half2 __lowhigh2highlow(__half2 x) { return __half2(x.y, x.x); }

// ---- arithmetic
#define BINARY_(N, E)                                                                                   \
  inline __half __h##N(__half a, __half b) { const float x = a, y = b; return __half(E); }              \
  inline __half __h##N##_rn(__half a, __half b) { return __h##N(a, b); }                                \
  inline __half __h##N##_sat(__half a, __half b) { const float x = a, y = b; return __half(__saturatef(__half(E))); }
BINARY_(add, x + y) BINARY_(sub, x - y) BINARY_(mul, x * y)
#undef BINARY_
inline __half __hdiv(__half a, __half b) { return __half((float)a / (float)b); }
inline __half __hfma(__half a, __half b, __half c) { return __half((double)(float)a * (double)(float)b + (double)(float)c); }
inline __half __hfma_sat(__half a, __half b, __half c) { return __half(__saturatef(__hfma(a, b, c))); }
inline __half __hneg(__half a) { return __half(-(float)a); }
inline __half __habs(__half a) { return __half(fabsf(a)); }
inline __half __hmax(__half a, __half b) { return __half(fmaxf(a, b)); }
inline __half __hmin(__half a, __half b) { return __half(fminf(a, b)); }
inline bool __hisnan(__half a) { return isnan((float)a); }
inline int __hisinf(__half a) { return isinf((float)a) ? ((float)a > 0.0f ? 1 : -1) : 0; }
inline __half __hmax_nan(__half a, __half b) { return __hisnan(a) || __hisnan(b) ? __ushort_as_half(0x7e00) : __hmax(a, b); }
inline __half __hmin_nan(__half a, __half b) { return __hisnan(a) || __hisnan(b) ? __ushort_as_half(0x7e00) : __hmin(a, b); }
inline __half __hfma_relu(__half a, __half b, __half c) { return __hmax_nan(__hfma(a, b, c), __half(0.0f)); }
#define PAIRS_(N, F) inline __half2 N(__half2 a, __half2 b) { return __half2(F(a.x, b.x), F(a.y, b.y)); }
PAIRS_(__hadd2, __hadd) PAIRS_(__hsub2, __hsub) PAIRS_(__hmul2, __hmul) PAIRS_(__h2div, __hdiv)
PAIRS_(__hadd2_rn, __hadd) PAIRS_(__hsub2_rn, __hsub) PAIRS_(__hmul2_rn, __hmul)
PAIRS_(__hadd2_sat, __hadd_sat) PAIRS_(__hsub2_sat, __hsub_sat) PAIRS_(__hmul2_sat, __hmul_sat)
PAIRS_(__hmax2, __hmax) PAIRS_(__hmin2, __hmin) PAIRS_(__hmax2_nan, __hmax_nan) PAIRS_(__hmin2_nan, __hmin_nan)
#undef PAIRS_
inline __half2 __hfma2(__half2 a, __half2 b, __half2 c) { return __half2(__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)); }
inline __half2 __hfma2_sat(__half2 a, __half2 b, __half2 c) {
  return __half2(__hfma_sat(a.x, b.x, c.x), __hfma_sat(a.y, b.y, c.y));
}
inline __half2 __hfma2_relu(__half2 a, __half2 b, __half2 c) {
  return __half2(__hfma_relu(a.x, b.x, c.x), __hfma_relu(a.y, b.y, c.y));
}
inline __half2 __hneg2(__half2 a) { return __half2(__hneg(a.x), __hneg(a.y)); }
inline __half2 __habs2(__half2 a) { return __half2(__habs(a.x), __habs(a.y)); }
inline __half2 __hisnan2(__half2 a) { return __half2(__half((float)__hisnan(a.x)), __half((float)__hisnan(a.y))); }

// ---- comparisons; of two halves: both (hb), or 1.0 and 0.0
#define COMPARE_(N, E)                                                                              \
  inline bool __h##N(__half a, __half b) { const float x = a, y = b; return E; }                    \
  inline __half2 __h##N##2(__half2 a, __half2 b) {                                                  \
    return __half2(__half(__h##N(a.x, b.x) ? 1.0f : 0.0f), __half(__h##N(a.y, b.y) ? 1.0f : 0.0f)); \
  }                                                                                                 \
  inline bool __hb##N##2(__half2 a, __half2 b) { return __h##N(a.x, b.x) && __h##N(a.y, b.y); }
COMPARE_(eq, x == y) COMPARE_(ne, (x < y) || (x > y)) COMPARE_(lt, x < y) COMPARE_(le, x <= y) COMPARE_(gt, x > y)
COMPARE_(ge, x >= y) COMPARE_(equ, !(x < y || x > y)) COMPARE_(neu, x != y) COMPARE_(ltu, !(x >= y)) COMPARE_(leu, !(x > y))
COMPARE_(gtu, !(x <= y)) COMPARE_(geu, !(x < y))
#undef COMPARE_

// ---- operators
#define OPERATOR_(O, F, F2)                                                                  \
  inline __half operator O(const __half& a, const __half& b) { return F(a, b); }             \
  inline __half& operator O##=(__half& a, const __half& b) { a = F(a, b); return a; }        \
  inline __half2 operator O(const __half2& a, const __half2& b) { return F2(a, b); }         \
  inline __half2& operator O##=(__half2& a, const __half2& b) { a = F2(a, b); return a; }
OPERATOR_(+, __hadd, __hadd2) OPERATOR_(-, __hsub, __hsub2) OPERATOR_(*, __hmul, __hmul2) OPERATOR_(/, __hdiv, __h2div)
#undef OPERATOR_
inline __half operator+(const __half& a) { return a; }
inline __half operator-(const __half& a) { return __hneg(a); }
inline __half2 operator+(const __half2& a) { return a; }
inline __half2 operator-(const __half2& a) { return __hneg2(a); }
inline __half& operator++(__half& a) { a = __hadd(a, __half(1.0f)); return a; }
inline __half& operator--(__half& a) { a = __hsub(a, __half(1.0f)); return a; }
inline __half operator++(__half& a, int) { const __half old = a; ++a; return old; }
inline __half operator--(__half& a, int) { const __half old = a; --a; return old; }
#define OPERATOR_(O, N)                                                                        \
  inline bool operator O(const __half& a, const __half& b) { return __h##N(a, b); }            \
  inline bool operator O(const __half2& a, const __half2& b) { return __hb##N##2(a, b); }
OPERATOR_(==, eq) OPERATOR_(!=, neu) OPERATOR_(<, lt) OPERATOR_(<=, le) OPERATOR_(>, gt) OPERATOR_(>=, ge)
#undef OPERATOR_

// ---- maths
#define MATHS_(N, F)                                                              \
  inline __half h##N(__half x) { return __half(F((float)x)); }                    \
  inline __half2 h2##N(__half2 x) { return __half2(h##N(x.x), h##N(x.y)); }
MATHS_(sqrt, sqrtf) MATHS_(rsqrt, rsqrtf) MATHS_(rcp, 1.0f /) MATHS_(exp, expf) MATHS_(exp2, exp2f) MATHS_(exp10, exp10f)
MATHS_(log, logf) MATHS_(log2, log2f) MATHS_(log10, log10f) MATHS_(sin, sinf) MATHS_(cos, cosf) MATHS_(tanh, tanhf)
MATHS_(tanh_approx, tanhf) MATHS_(floor, floorf) MATHS_(ceil, ceilf) MATHS_(trunc, truncf) MATHS_(rint, rintf)
#undef MATHS_

// ---- between threads
#define SHUFFLE_(N, S)                                                                                            \
  inline __half N(unsigned int mask, __half x, S by, int width = 32) {                                            \
    return __ushort_as_half((unsigned short)N(mask, (unsigned int)x.bits_, by, width));                           \
  }                                                                                                               \
  inline __half2 N(unsigned int mask, __half2 x, S by, int width = 32) {                                          \
    const unsigned int got = N(mask, (unsigned int)x.y.bits_ << 16 | x.x.bits_, by, width);                       \
    return __half2(__ushort_as_half((unsigned short)got), __ushort_as_half((unsigned short)(got >> 16)));         \
  }
SHUFFLE_(__shfl_sync, int) SHUFFLE_(__shfl_up_sync, unsigned int) SHUFFLE_(__shfl_down_sync, unsigned int)
SHUFFLE_(__shfl_xor_sync, int)
#undef SHUFFLE_
inline __half atomicAdd(__half* p, __half x) { return __ushort_as_half(atomicAdd_half((unsigned short*)p, x.bits_)); }
inline __half2 atomicAdd(__half2* p, __half2 x) { return __half2(atomicAdd(&p->x, x.x), atomicAdd(&p->y, x.y)); }

#define CUDART_INF_FP16 __ushort_as_half((unsigned short)0x7c00)
#define CUDART_NAN_FP16 __ushort_as_half((unsigned short)0x7e00)
#define CUDART_MAX_NORMAL_FP16 __ushort_as_half((unsigned short)0x7bff)
#define CUDART_MIN_DENORM_FP16 __ushort_as_half((unsigned short)0x0001)
#define CUDART_NEG_ZERO_FP16 __ushort_as_half((unsigned short)0x8000)
#define CUDART_ZERO_FP16 __ushort_as_half((unsigned short)0x0000)
#define CUDART_ONE_FP16 __ushort_as_half((unsigned short)0x3c00)

#pragma clang attribute pop
