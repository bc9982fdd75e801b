// Threads of a strict GPU kernel, below device.h: where a thread is in the whole launch, shared memory that starts as zeros,
// barriers, warp functions, atomics, and integer arithmetic that C++ leaves undefined and wasm defines.
#pragma once

namespace cuda {

constexpr u32 THREADS = DEPIN_THREADS, DEPTH_MAX = 512;
constexpr f32 INF_32 = __builtin_inff(), NAN_32 = __builtin_nanf("");
constexpr f64 INF_64 = __builtin_inf(), NAN_64 = __builtin_nan("");

struct Thread {
  uint3 threadIdx, blockIdx;
  dim3 blockDim, gridDim;
  u32 depth;
};

// A recursive function counts how deep it is, as in runtime.h.
struct Deeper {
  Thread& k;
  INLINE_MEMBER explicit Deeper(Thread& thread) : k(thread) {
    if (++k.depth > DEPTH_MAX) __trap();
  }
  INLINE_MEMBER ~Deeper() { --k.depth; }
};

// The GPU's own grid is a row of blocks, of which the first is block b0 of the launch; gx, gy, gz are the launch's grid.
INLINE Thread this_thread(i64 b0, u32 gx, u32 gy, u32 gz) {
  const u64 block = (u64)b0 + ::blockIdx.x;
  uint3 place = {(u32)block, 0, 0};
  if (gy != 1 || gz != 1) {
    const u64 row = block / gx;
    place = {(u32)(block % gx), (u32)(row % gy), (u32)(row / gy)};
  }
  return {{::threadIdx.x, ::threadIdx.y, ::threadIdx.z}, place, {::blockDim.x, ::blockDim.y, ::blockDim.z}, {gx, gy, gz}, 0};
}
INLINE u32 thread_of_block() { return (::threadIdx.z * ::blockDim.y + ::threadIdx.y) * ::blockDim.x + ::threadIdx.x; }

// ---- shared memory: a block finds zeros, as it does in wasm; all threads write them, then meet
extern __shared__ __align__(16) u8 dynamic_shared[];
INLINE void clear_bytes(void* memory, u32 bytes) {
  const u32 threads = ::blockDim.x * ::blockDim.y * ::blockDim.z, words = bytes / 4;
  for (u32 i = thread_of_block(); i < words; i += threads) ((u32*)memory)[i] = 0;
  for (u32 i = words * 4 + thread_of_block(); i < bytes; i += threads) ((u8*)memory)[i] = 0;
}
template <class T> INLINE void clear(T& variable) { clear_bytes(&variable, sizeof(T)); }

// ---- waiting; barriers without the promise that a warp comes to them as one, so that divergent ones are defined
INLINE void __syncthreads() { __barrier_sync(0); }
INLINE i32 __syncthreads_count(i32 p) { return ::__syncthreads_count(p); }
INLINE i32 __syncthreads_and(i32 p) { return ::__syncthreads_and(p) != 0; }
INLINE i32 __syncthreads_or(i32 p) { return ::__syncthreads_or(p) != 0; }
INLINE void __syncwarp(u32 mask) { ::__syncwarp(mask); }
INLINE u32 __ballot_sync(u32 mask, i32 p) { return ::__ballot_sync(mask, p); }
INLINE i32 __any_sync(u32 mask, i32 p) { return ::__any_sync(mask, p); }
INLINE i32 __all_sync(u32 mask, i32 p) { return ::__all_sync(mask, p); }

// Shuffles: a lane whose source does not take part (out of range, not in the mask, ended) keeps its own value.
template <class T> INLINE T shuffle(u32 mask, T v, u32 source) {
  const u32 here = ::__ballot_sync(mask, 1);
  T got;
  if constexpr (sizeof(T) == 8) {
    const u64 bits = __builtin_bit_cast(u64, v);
    const u32 lo = ::__shfl_sync(mask, (u32)bits, (i32)source), hi = ::__shfl_sync(mask, (u32)(bits >> 32), (i32)source);
    got = __builtin_bit_cast(T, (u64)hi << 32 | lo);
  } else {
    got = __builtin_bit_cast(T, ::__shfl_sync(mask, __builtin_bit_cast(u32, v), (i32)source));
  }
  return source < 32 && here >> source & 1 ? got : v;
}
INLINE u32 lane() { return thread_of_block() & 31; }
template <class T> INLINE T __shfl_sync(u32 mask, T v, i32 source, i32 width) {
  return shuffle(mask, v, (lane() & ~((u32)width - 1)) | ((u32)source & ((u32)width - 1)));
}
template <class T> INLINE T __shfl_up_sync(u32 mask, T v, u32 delta, i32 width) {
  return shuffle(mask, v, (lane() & ((u32)width - 1)) >= delta ? lane() - delta : lane());
}
template <class T> INLINE T __shfl_down_sync(u32 mask, T v, u32 delta, i32 width) {
  const u32 place = lane() & ((u32)width - 1);
  return shuffle(mask, v, delta < (u32)width && place + delta < (u32)width ? lane() + delta : lane());
}
template <class T> INLINE T __shfl_xor_sync(u32 mask, T v, i32 other, i32 width) {
  const u32 source = lane() ^ (u32)other;
  return shuffle(mask, v, source <= (lane() | ((u32)width - 1)) ? source : lane());
}

// ---- atomics
#define ATOMIC(N, T) INLINE T N(T* p, T v) { return ::N(p, v); }
ATOMIC(atomicAdd, i32) ATOMIC(atomicAdd, u32) ATOMIC(atomicAdd, u64) ATOMIC(atomicAdd, f32) ATOMIC(atomicAdd, f64)
ATOMIC(atomicSub, i32) ATOMIC(atomicSub, u32)
ATOMIC(atomicExch, i32) ATOMIC(atomicExch, u32) ATOMIC(atomicExch, u64) ATOMIC(atomicExch, f32)
ATOMIC(atomicMin, i32) ATOMIC(atomicMin, u32) ATOMIC(atomicMin, u64) ATOMIC(atomicMin, i64)
ATOMIC(atomicMax, i32) ATOMIC(atomicMax, u32) ATOMIC(atomicMax, u64) ATOMIC(atomicMax, i64)
ATOMIC(atomicAnd, i32) ATOMIC(atomicAnd, u32) ATOMIC(atomicAnd, u64)
ATOMIC(atomicOr, i32) ATOMIC(atomicOr, u32) ATOMIC(atomicOr, u64)
ATOMIC(atomicXor, i32) ATOMIC(atomicXor, u32) ATOMIC(atomicXor, u64)
ATOMIC(atomicInc, u32) ATOMIC(atomicDec, u32)
#undef ATOMIC
#define EXCHANGE(T) INLINE T atomicCAS(T* p, T expected, T v) { return ::atomicCAS(p, expected, v); }
EXCHANGE(i32) EXCHANGE(u32) EXCHANGE(u64) EXCHANGE(u16)
#undef EXCHANGE

// Those that CUDA lacks: computed and exchanged, until no other thread came between. Bits are compared, so NaNs end it too.
INLINE u16 atomicAdd_half(u16* p, u16 x) {
  u16 old = *p, seen;
  do {
    seen = old;
    old = ::atomicCAS(p, seen, __half_bits_rn(__half_value(seen) + __half_value(x)));
  } while (old != seen);
  return old;
}
#define SELECTING(N, T, U, F)                                      \
  INLINE T N(T* p, T x) {                                          \
    U old = *(U*)p, seen;                                          \
    do {                                                           \
      seen = old;                                                  \
      old = ::atomicCAS((U*)p, seen, as<U>(F(as<T>(seen), x)));    \
    } while (old != seen);                                         \
    return as<T>(old);                                             \
  }
SELECTING(atomicMax_, f32, u32, fmaxf)
SELECTING(atomicMin_, f32, u32, fminf)
SELECTING(atomicMax_, f64, u64, fmax)
SELECTING(atomicMin_, f64, u64, fmin)
#undef SELECTING

// ---- integers: overflow wraps; a division by zero, or of the least integer by -1, ends the task, as in wasm
template <class T> INLINE T add(T a, T b) { return (T)((typename Unsigned<T>::type)a + (typename Unsigned<T>::type)b); }
template <class T> INLINE T sub(T a, T b) { return (T)((typename Unsigned<T>::type)a - (typename Unsigned<T>::type)b); }
template <class T> INLINE T mul(T a, T b) { return (T)((typename Unsigned<T>::type)a * (typename Unsigned<T>::type)b); }
template <class T> INLINE T least() { return (T)((typename Unsigned<T>::type)1 << (sizeof(T) * 8 - 1)); }
template <class T> INLINE T div(T a, T b) {
  if (b == 0 || ((T)-1 < (T)0 && b == (T)-1 && a == least<T>())) __trap();
  return a / b;
}
template <class T> INLINE T rem(T a, T b) {
  if (b == 0) __trap();
  return (T)-1 < (T)0 && b == (T)-1 ? (T)0 : a % b;
}
#define ASSIGN(N) template <class C, class L> INLINE L& N##_wrapping(L& l, C r) { return l = (L)N<C>((C)l, r); }
ASSIGN(add) ASSIGN(sub) ASSIGN(mul) ASSIGN(div) ASSIGN(rem)
#undef ASSIGN
template <class T> INLINE T& increment(T& x, i32 by) { return x = (T)((u64)x + (u64)(i64)by); }
template <class T> INLINE T increment_after(T& x, i32 by) {
  const T old = x;
  x = (T)((u64)x + (u64)(i64)by);
  return old;
}

}  // namespace cuda
