// What translated kernels are made of, apart from maths (maths.h) and threads (runtime.h). Freestanding C++20 for wasm32,
// and, below strict.h, for GPUs: there DEPIN_STRICT is defined, and strict.h has what NVRTC lacks of clang's builtins.
//
// surface.h declares to CUDA source what is implemented here. Everything is branch-free where that lets loops become
// SIMD, and uses only operations that IEEE 754 and WebAssembly define to the bit.
#pragma once

typedef signed char i8;
typedef unsigned char u8;
typedef short i16;
typedef unsigned short u16;
typedef int i32;
typedef unsigned int u32;
typedef long long i64;
typedef unsigned long long u64;
typedef float f32;
typedef double f64;
static_assert(sizeof(i32) == 4 && sizeof(i64) == 8);

#define INLINE static inline __attribute__((always_inline))
#define INLINE_MEMBER inline __attribute__((always_inline))

namespace cuda {

template <class T, u32 N> struct ArrayOf { typedef T type[N]; };
template <class T, u32 N> using array = typename ArrayOf<T, N>::type;

template <class T> INLINE T& lvalue(T&& x) { return (T&)x; }
template <class T> INLINE T load(const void* p) {
  T value;
  __builtin_memcpy(&value, p, sizeof(T));
  return value;
}

// ---- vector types
#define VECTOR(T, N, A2, A4)                                                    \
  struct N##1 { T x; };                                                         \
  struct alignas(A2) N##2 { T x, y; };                                          \
  struct N##3 { T x, y, z; };                                                   \
  struct alignas(A4) N##4 { T x, y, z, w; };                                    \
  INLINE N##1 make_##N##1(T x) { return {x}; }                                  \
  INLINE N##2 make_##N##2(T x, T y) { return {x, y}; }                          \
  INLINE N##3 make_##N##3(T x, T y, T z) { return {x, y, z}; }                  \
  INLINE N##4 make_##N##4(T x, T y, T z, T w) { return {x, y, z, w}; }
VECTOR(i8, char, 2, 4)
VECTOR(u8, uchar, 2, 4)
VECTOR(i16, short, 4, 8)
VECTOR(u16, ushort, 4, 8)
VECTOR(i32, int, 8, 16)
VECTOR(u32, uint, 8, 16)
VECTOR(i64, long, 16, 16)
VECTOR(u64, ulong, 16, 16)
VECTOR(i64, longlong, 16, 16)
VECTOR(u64, ulonglong, 16, 16)
VECTOR(f32, float, 8, 16)
VECTOR(f64, double, 16, 16)
#undef VECTOR
struct dim3 { u32 x, y, z; };

// ---- bits: a NaN is shown as the one canonical NaN, whatever bits the processor gave it
template <class T, class F> INLINE T as(F x) { return __builtin_bit_cast(T, x); }
INLINE f32 canonical(f32 x) { return x != x ? as<f32>(0x7fc00000u) : x; }
INLINE f64 canonical(f64 x) { return x != x ? as<f64>(0x7ff8000000000000ull) : x; }
template <class F, class T> INLINE T canonical_all(T x) {  // of one float, or a struct of nothing else
  constexpr u32 COUNT = sizeof(T) / sizeof(F);
  if constexpr (COUNT == 1) return as<T>(canonical(as<F>(x)));
  F parts[COUNT];
  __builtin_memcpy(parts, &x, sizeof x);
  for (u32 i = 0; i < COUNT; ++i) parts[i] = canonical(parts[i]);
  return load<T>(parts);
}
template <class F> INLINE F& made_canonical(F& place) { return place = canonical(place); }
template <class T> INLINE T bits(f32 x) { return x != x ? (T)0x7fc00000u : as<T>(x); }
template <class T> INLINE T bits(f64 x) { return x != x ? (T)0x7ff8000000000000ull : as<T>(x); }
INLINE i32 __float_as_int(f32 x) { return bits<i32>(x); }
INLINE u32 __float_as_uint(f32 x) { return bits<u32>(x); }
INLINE f32 __int_as_float(i32 x) { return as<f32>(x); }
INLINE f32 __uint_as_float(u32 x) { return as<f32>(x); }
INLINE i64 __double_as_longlong(f64 x) { return bits<i64>(x); }
INLINE f64 __longlong_as_double(i64 x) { return as<f64>(x); }
INLINE i32 __double2hiint(f64 x) { return (i32)(bits<u64>(x) >> 32); }
INLINE i32 __double2loint(f64 x) { return (i32)bits<u64>(x); }
INLINE f64 __hiloint2double(i32 hi, i32 lo) { return as<f64>((u64)(u32)hi << 32 | (u32)lo); }

// ---- conversions from float saturate, NaN gives 0; to 8 and 16 bits by way of 32, as GPUs do
template <class T> struct To;
#define CONVERT(T, V, F)                                                                    \
  template <> struct To<T> {                                                                \
    INLINE_MEMBER static T from(f32 x) { return (T)__builtin_wasm_trunc_saturate_##V##_f32(x); } \
    INLINE_MEMBER static T from(f64 x) { return (T)__builtin_wasm_trunc_saturate_##V##_f64(x); } \
  };
CONVERT(i8, s_i32, 0)
CONVERT(u8, u_i32, 0)
CONVERT(i16, s_i32, 0)
CONVERT(u16, u_i32, 0)
CONVERT(i32, s_i32, 0)
CONVERT(u32, u_i32, 0)
CONVERT(i64, s_i64, 0)
CONVERT(u64, u_i64, 0)
#undef CONVERT
template <class T, class F> INLINE T to_integer(F x) { return To<T>::from(x); }
template <class T> INLINE T to_integer(i32 x) { return (T)x; }

#define ROUNDED(F, N, T, S)                                                         \
  INLINE T __##F##2##N##_rn(S x) { return to_integer<T>(__builtin_elementwise_roundeven(x)); } \
  INLINE T __##F##2##N##_rz(S x) { return to_integer<T>(x); }                       \
  INLINE T __##F##2##N##_ru(S x) { return to_integer<T>(__builtin_elementwise_ceil(x)); }      \
  INLINE T __##F##2##N##_rd(S x) { return to_integer<T>(__builtin_elementwise_floor(x)); }
ROUNDED(float, int, i32, f32)
ROUNDED(float, uint, u32, f32)
ROUNDED(float, ll, i64, f32)
ROUNDED(float, ull, u64, f32)
ROUNDED(double, int, i32, f64)
ROUNDED(double, uint, u32, f64)
ROUNDED(double, ll, i64, f64)
ROUNDED(double, ull, u64, f64)
#undef ROUNDED
#define EXACT(N, T, S) INLINE T N(S x) { return (T)x; }
EXACT(__int2float_rn, f32, i32)
EXACT(__uint2float_rn, f32, u32)
EXACT(__ll2float_rn, f32, i64)
EXACT(__ull2float_rn, f32, u64)
EXACT(__int2double_rn, f64, i32)
EXACT(__uint2double_rn, f64, u32)
EXACT(__ll2double_rn, f64, i64)
EXACT(__ull2double_rn, f64, u64)
EXACT(__double2float_rn, f32, f64)
#undef EXACT

// ---- operators that C++ leaves undefined somewhere; the operand is in its promoted type T
template <class T> struct Unsigned { typedef u32 type; };
template <> struct Unsigned<i64> { typedef u64 type; };
template <> struct Unsigned<u64> { typedef u64 type; };
template <class T, class C> INLINE T shl(T x, C n) {
  typedef typename Unsigned<T>::type U;
  return (u64)n < sizeof(T) * 8 ? (T)((U)x << (U)n) : (T)0;
}
template <class T, class C> INLINE T shr(T x, C n) {
  typedef typename Unsigned<T>::type U;
  return (u64)n < sizeof(T) * 8 ? (T)(x >> (U)n) : (T)(x >> (sizeof(T) * 8 - 1) >> 1);
}
template <class C, class L, class N> INLINE L& shl_assign(L& l, N n) { return l = (L)shl<C>((C)l, n); }
template <class C, class L, class N> INLINE L& shr_assign(L& l, N n) { return l = (L)shr<C>((C)l, n); }
template <class C, class L> INLINE L& add_assign(L& l, C r) { return l = to_integer<L>((C)l + r); }
template <class C, class L> INLINE L& sub_assign(L& l, C r) { return l = to_integer<L>((C)l - r); }
template <class C, class L> INLINE L& mul_assign(L& l, C r) { return l = to_integer<L>((C)l * r); }
template <class C, class L> INLINE L& div_assign(L& l, C r) { return l = to_integer<L>((C)l / r); }

// ---- arithmetic that tells when a value left its type (for the test of a row's ends)
template <class T> INLINE T checked_add(T a, T b, bool& fine) {
  T r;
  fine &= !__builtin_add_overflow(a, b, &r);
  return r;
}
template <class T> INLINE T checked_sub(T a, T b, bool& fine) {
  T r;
  fine &= !__builtin_sub_overflow(a, b, &r);
  return r;
}
template <class T> INLINE T checked_mul(T a, T b, bool& fine) {
  T r;
  if constexpr (sizeof(T) == 4 && (T)-1 < 0) {
    const i64 p = (i64)a * b;
    r = (T)p;
    fine &= p == r;
  } else if constexpr (sizeof(T) == 4) {
    const u64 p = (u64)a * b;
    r = (T)p;
    fine &= p == r;
  } else if constexpr ((T)-1 < 0) {
    const bool small = a == (T)(i32)a && b == (T)(i32)b;
    fine &= small;
    r = a * b;
  } else {
    fine &= a >> 32 == 0 && b >> 32 == 0;
    r = a * b;
  }
  return r;
}
template <class T, class S> INLINE T checked_cast(S x, bool& fine) {
  const T r = (T)x;
  fine &= (S)r == x && (r < 0) == (x < 0);
  return r;
}

// ---- integers
INLINE i32 abs(i32 x) { return x < 0 ? (i32)(0u - (u32)x) : x; }
INLINE i64 abs(i64 x) { return x < 0 ? (i64)(0ull - (u64)x) : x; }
INLINE i64 labs(i64 x) { return abs(x); }
INLINE i64 llabs(i64 x) { return abs(x); }
#define LEAST(T)                                      \
  INLINE T min(T a, T b) { return b < a ? b : a; }    \
  INLINE T max(T a, T b) { return b > a ? b : a; }
LEAST(i32)
LEAST(u32)
LEAST(i64)
LEAST(u64)
#undef LEAST
#define MIXED(S, U)                                      \
  INLINE U min(S a, U b) { return min((U)a, b); }        \
  INLINE U min(U a, S b) { return min(a, (U)b); }        \
  INLINE U max(S a, U b) { return max((U)a, b); }        \
  INLINE U max(U a, S b) { return max(a, (U)b); }
MIXED(i32, u32)
MIXED(i64, u64)
#undef MIXED
INLINE i32 __popc(u32 x) { return __builtin_popcount(x); }
INLINE i32 __popcll(u64 x) { return __builtin_popcountll(x); }
INLINE i32 __clz(i32 x) { return x ? __builtin_clz((u32)x) : 32; }
INLINE i32 __clzll(i64 x) { return x ? __builtin_clzll((u64)x) : 64; }
INLINE i32 __ffs(i32 x) { return x ? __builtin_ctz((u32)x) + 1 : 0; }
INLINE i32 __ffsll(i64 x) { return x ? __builtin_ctzll((u64)x) + 1 : 0; }
INLINE u32 __brev(u32 x) { return __builtin_bitreverse32(x); }
INLINE u64 __brevll(u64 x) { return __builtin_bitreverse64(x); }
INLINE i32 __mulhi(i32 a, i32 b) { return (i32)(((i64)a * b) >> 32); }
INLINE u32 __umulhi(u32 a, u32 b) { return (u32)(((u64)a * b) >> 32); }
#ifdef DEPIN_STRICT
INLINE u64 __umul64hi(u64 a, u64 b) { return ::__umul64hi(a, b); }
#else
INLINE u64 __umul64hi(u64 a, u64 b) {
  const u64 al = (u32)a, ah = a >> 32, bl = (u32)b, bh = b >> 32;
  u64 middle = ah * bl + (al * bl >> 32);
  asm("" : "+r"(middle));  // else the optimiser sees a 128-bit product and calls __multi3
  const u64 other = al * bh + (u32)middle;
  return ah * bh + (middle >> 32) + (other >> 32);
}
#endif
INLINE i64 __mul64hi(i64 a, i64 b) {
  return (i64)(__umul64hi((u64)a, (u64)b) - (a < 0 ? (u64)b : 0) - (b < 0 ? (u64)a : 0));
}
INLINE i32 __mul24(i32 a, i32 b) { return (i32)((u32)((i32)((u32)a << 8) >> 8) * (u32)((i32)((u32)b << 8) >> 8)); }
INLINE u32 __umul24(u32 a, u32 b) { return (a & 0xffffff) * (b & 0xffffff); }
INLINE u32 __sad(i32 a, i32 b, u32 c) { return (a > b ? (u32)a - (u32)b : (u32)b - (u32)a) + c; }
INLINE u32 __usad(u32 a, u32 b, u32 c) { return (a > b ? a - b : b - a) + c; }
INLINE i32 __hadd(i32 a, i32 b) { return (i32)(((i64)a + b) >> 1); }
INLINE i32 __rhadd(i32 a, i32 b) { return (i32)(((i64)a + b + 1) >> 1); }
INLINE u32 __uhadd(u32 a, u32 b) { return (u32)(((u64)a + b) >> 1); }
INLINE u32 __urhadd(u32 a, u32 b) { return (u32)(((u64)a + b + 1) >> 1); }
INLINE u32 __byte_perm(u32 a, u32 b, u32 s) {
  const u64 v = (u64)b << 32 | a;
  u32 r = 0;
  for (u32 i = 0; i < 4; ++i) {
    const u32 control = s >> (4 * i);
    const u32 byte = (u32)(v >> (8 * (control & 7))) & 0xff;
    r |= (control & 8 ? (byte & 0x80 ? 0xffu : 0u) : byte) << (8 * i);
  }
  return r;
}
template <class T> struct SmallOf;
template <> struct SmallOf<i32> { typedef i8 byte; typedef i16 half; };
template <> struct SmallOf<u32> { typedef u8 byte; typedef u16 half; };
INLINE u32 __funnelshift_l(u32 lo, u32 hi, u32 n) { return (u32)(((u64)hi << 32 | lo) << (n & 31) >> 32); }
INLINE u32 __funnelshift_r(u32 lo, u32 hi, u32 n) { return (u32)(((u64)hi << 32 | lo) >> (n & 31)); }
INLINE u32 __funnelshift_lc(u32 lo, u32 hi, u32 n) { return n > 31 ? lo : __funnelshift_l(lo, hi, n); }
INLINE u32 __funnelshift_rc(u32 lo, u32 hi, u32 n) { return n > 31 ? hi : __funnelshift_r(lo, hi, n); }

template <class T> INLINE T dot_bytes(u32 a, u32 b, T c) {
  typedef typename SmallOf<T>::byte B;
  for (u32 i = 0; i < 32; i += 8) c = (T)((u32)c + (u32)((i32)(B)(a >> i) * (i32)(B)(b >> i)));
  return c;
}
template <class T> INLINE T dot_halves(u32 a, u32 b, T c) {
  typedef typename SmallOf<T>::half H;
  typedef typename SmallOf<T>::byte B;
  for (u32 i = 0; i < 2; ++i) c = (T)((u32)c + (u32)((i32)(H)(a >> 16 * i) * (i32)(B)(b >> 8 * i)));
  return c;
}
template <class V> INLINE u32 bytes_of(V v) { return (u8)v.x | (u32)(u8)v.y << 8 | (u32)(u8)v.z << 16 | (u32)(u8)v.w << 24; }
INLINE i32 __dp4a(i32 a, i32 b, i32 c) { return dot_bytes((u32)a, (u32)b, c); }
INLINE u32 __dp4a(u32 a, u32 b, u32 c) { return dot_bytes(a, b, c); }
INLINE i32 __dp4a(char4 a, char4 b, i32 c) { return dot_bytes(bytes_of(a), bytes_of(b), c); }
INLINE u32 __dp4a(uchar4 a, uchar4 b, u32 c) { return dot_bytes(bytes_of(a), bytes_of(b), c); }
INLINE i32 __dp2a_lo(i32 a, i32 b, i32 c) { return dot_halves((u32)a, (u32)b, c); }
INLINE i32 __dp2a_hi(i32 a, i32 b, i32 c) { return dot_halves((u32)a, (u32)b >> 16, c); }
INLINE u32 __dp2a_lo(u32 a, u32 b, u32 c) { return dot_halves(a, b, c); }
INLINE u32 __dp2a_hi(u32 a, u32 b, u32 c) { return dot_halves(a, b >> 16, c); }
INLINE u32 umin(u32 a, u32 b) { return min(a, b); }
INLINE u32 umax(u32 a, u32 b) { return max(a, b); }
INLINE i64 llmin(i64 a, i64 b) { return min(a, b); }
INLINE i64 llmax(i64 a, i64 b) { return max(a, b); }
INLINE u64 ullmin(u64 a, u64 b) { return min(a, b); }
INLINE u64 ullmax(u64 a, u64 b) { return max(a, b); }

// ---- memory
#define LOAD(N) template <class T> INLINE T N(T* p) { return *p; }
LOAD(__ldg) LOAD(__ldcg) LOAD(__ldca) LOAD(__ldcs) LOAD(__ldlu) LOAD(__ldcv)
#undef LOAD
#define STORE(N) template <class T> INLINE void N(T* p, T v) { *p = v; }
STORE(__stwb) STORE(__stcg) STORE(__stcs) STORE(__stwt)
#undef STORE
INLINE void __threadfence() {}
INLINE void __threadfence_block() {}
INLINE void __threadfence_system() {}
[[noreturn]] INLINE void __trap() { __builtin_trap(); }

// ---- atomics: one thread runs at a time, so they are plain
#ifndef DEPIN_STRICT
#define ATOMIC(N, E)                                  \
  template <class T> INLINE T N(T* p, T v) {          \
    const T old = *p;                                 \
    *p = E;                                           \
    return old;                                       \
  }
ATOMIC(atomicAdd, old + v)
ATOMIC(atomicSub, old - v)
ATOMIC(atomicExch, v)
ATOMIC(atomicMin, v < old ? v : old)
ATOMIC(atomicMax, v > old ? v : old)
ATOMIC(atomicAnd, old & v)
ATOMIC(atomicOr, old | v)
ATOMIC(atomicXor, old ^ v)
ATOMIC(atomicInc, old >= v ? 0 : old + 1)
ATOMIC(atomicDec, old == 0 || old > v ? v : old - 1)
#undef ATOMIC
template <class T> INLINE T atomicCAS(T* p, T expected, T v) {
  const T old = *p;
  if (old == expected) *p = v;
  return old;
}
#endif

}  // namespace cuda

#ifndef DEPIN_STRICT
// What the optimiser calls where it finds the upper half of a 64-bit product spelt out.
extern "C" __attribute__((visibility("hidden"))) __int128 __multi3(__int128 a, __int128 b) {
  const u64 al = (u64)a, bl = (u64)b;
  const u64 high = cuda::__umul64hi(al, bl) + (u64)(a >> 64) * bl + al * (u64)(b >> 64);
  return (__int128)((unsigned __int128)high << 64 | al * bl);
}
#endif

#ifndef CUDA_NO_MATHS  // what a text calls nothing of is left out: compute/translate/includes.py
#include "maths.h"
#ifndef CUDA_NO_SPECIAL
#include "rounding.h"
#include "special.h"
#endif
#endif
