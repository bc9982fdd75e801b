// What stands above device.h when NVRTC compiles a translated kernel: clang's builtins by CUDA's own functions. Below it,
// strict_threads.h: the thread, barriers, warp functions, atomics. Together they are for a GPU what runtime.h is for wasm,
// and give the same bits: nothing here is fused, flushed or approximated.
#pragma once

#define DEPIN_STRICT 1

#define __builtin_trap ::__trap
#define __builtin_inff ::cuda_builtin::inff
#define __builtin_inf ::cuda_builtin::inf
#define __builtin_nanf ::cuda_builtin::nanf
#define __builtin_nan ::cuda_builtin::nan
#define __builtin_memcpy ::memcpy
#define __builtin_popcount ::__popc
#define __builtin_popcountll ::__popcll
#define __builtin_clz ::__clz
#define __builtin_clzll ::__clzll
#define __builtin_bitreverse32 ::__brev
#define __builtin_bitreverse64 ::__brevll

#define CUDA_UNSET(...) {}  // what nobody has set is zero, as in wasm (runtime.h)
#define CUDA_UNSET_ARRAY(name, ...) __VA_ARGS__ name = {}

// Fused only where the source asks for it: NVRTC marks inline assembly in its output, so that devices/gpu/ptx.py can tell.
namespace cuda_builtin {
inline float fma(float a, float b, float c) {
  float r;
  asm("fma.rn.f32 %0, %1, %2, %3;" : "=f"(r) : "f"(a), "f"(b), "f"(c));
  return r;
}
inline double fma(double a, double b, double c) {
  double r;
  asm("fma.rn.f64 %0, %1, %2, %3;" : "=d"(r) : "d"(a), "d"(b), "d"(c));
  return r;
}
constexpr float inff() { return __builtin_bit_cast(float, 0x7f800000u); }
constexpr double inf() { return __builtin_bit_cast(double, 0x7ff0000000000000ull); }
constexpr float nanf(const char*) { return __builtin_bit_cast(float, 0x7fc00000u); }
constexpr double nan(const char*) { return __builtin_bit_cast(double, 0x7ff8000000000000ull); }
}  // namespace cuda_builtin

// Saturating conversions: of a NaN PTX makes 0 for 32 bits from float, but the least integer for the others.
inline int __builtin_wasm_trunc_saturate_s_i32_f32(float x) { return __float2int_rz(x); }
inline unsigned __builtin_wasm_trunc_saturate_u_i32_f32(float x) { return __float2uint_rz(x); }
inline int __builtin_wasm_trunc_saturate_s_i32_f64(double x) { return x != x ? 0 : __double2int_rz(x); }
inline unsigned __builtin_wasm_trunc_saturate_u_i32_f64(double x) { return x != x ? 0u : __double2uint_rz(x); }
inline long long __builtin_wasm_trunc_saturate_s_i64_f32(float x) { return x != x ? 0 : __float2ll_rz(x); }
inline unsigned long long __builtin_wasm_trunc_saturate_u_i64_f32(float x) { return x != x ? 0 : __float2ull_rz(x); }
inline long long __builtin_wasm_trunc_saturate_s_i64_f64(double x) { return x != x ? 0 : __double2ll_rz(x); }
inline unsigned long long __builtin_wasm_trunc_saturate_u_i64_f64(double x) { return x != x ? 0 : __double2ull_rz(x); }

inline int __builtin_ctz(unsigned x) { return __clz(__brev(x)); }
inline int __builtin_ctzll(unsigned long long x) { return __clzll(__brevll(x)); }

#define ELEMENTWISE(N, F, D)                                         \
  inline float __builtin_elementwise_##N(float x) { return F(x); }   \
  inline double __builtin_elementwise_##N(double x) { return D(x); }
ELEMENTWISE(sqrt, __fsqrt_rn, __dsqrt_rn)
ELEMENTWISE(abs, fabsf, fabs)
ELEMENTWISE(floor, floorf, floor)
ELEMENTWISE(ceil, ceilf, ceil)
ELEMENTWISE(trunc, truncf, trunc)
ELEMENTWISE(rint, rintf, rint)
ELEMENTWISE(roundeven, rintf, rint)
#undef ELEMENTWISE
inline float __builtin_elementwise_copysign(float x, float s) {
  const unsigned a = __builtin_bit_cast(unsigned, x), b = __builtin_bit_cast(unsigned, s);
  return __builtin_bit_cast(float, (a & 0x7fffffffu) | (b & 0x80000000u));
}
inline double __builtin_elementwise_copysign(double x, double s) {
  const unsigned long long a = __builtin_bit_cast(unsigned long long, x), b = __builtin_bit_cast(unsigned long long, s);
  return __builtin_bit_cast(double, (a & 0x7fffffffffffffffull) | (b & 0x8000000000000000ull));
}

// max and min where neither is a NaN; -0 is less than +0.
#define EXTREME(T, U, W)                                                                                       \
  inline T __builtin_wasm_max_##W(T a, T b) {                                                                  \
    return a > b ? a : b > a ? b : __builtin_bit_cast(T, __builtin_bit_cast(U, a) & __builtin_bit_cast(U, b)); \
  }                                                                                                            \
  inline T __builtin_wasm_min_##W(T a, T b) {                                                                  \
    return a < b ? a : b < a ? b : __builtin_bit_cast(T, __builtin_bit_cast(U, a) | __builtin_bit_cast(U, b)); \
  }
EXTREME(float, unsigned, f32)
EXTREME(double, unsigned long long, f64)
#undef EXTREME
