// Strips: how blocks run whose threads are lanes of loops (compute/translate/fission_print.py prints these loops).
//
// A strip of W threads that are all there is *full*; of any other, `active` has a bit for each lane that is.
#pragma once

#include "runtime.h"

namespace cuda {

constexpr u32 STATE_PAD = 64;  // strips may read beyond a block's last thread
alignas(16) static u8 ended[THREADS_MAX + STATE_PAD];

INLINE u32 count_threads(const Thread& k) { return k.blockDim.x * k.blockDim.y * k.blockDim.z; }
INLINE void none_ended(u32 threads) { clear(ended, threads); }
INLINE u32 count_ended(u32 threads) {
  u32 count = 0;
  for (u32 i = 0; i < threads; ++i) count += ended[i];
  return count;
}
INLINE u32 first_lanes(u32 count) { return count < 32 ? (1u << count) - 1 : ~0u; }
template <u32 W> INLINE u32 lanes_there(u32 base) {
  u32 there = 0;
  for (u32 l = 0; l < W; ++l) there |= (u32)(ended[base + l] == 0) << l;
  return there;
}
template <u32 W> INLINE bool any_ended(u32 base) {
  u64 any = 0;
  for (u32 l = 0; l < W; l += 8) any |= load<u64>(ended + base + l);
  return any != 0;
}

// The place of a thread in a block whose rows are not made of whole warps.
INLINE void set_place(Thread& k, u32 thread) {
  const u32 row = thread / k.blockDim.x;
  k.threadIdx = {thread - row * k.blockDim.x, row % k.blockDim.y, row / k.blockDim.y};
}

// Strips of W threads along each row, in the order of the threads' numbers: x0 is the first thread's threadIdx.x, base
// its number.
#define CUDA_EACH_STRIP(W)                                                                            \
  u32 row_base = 0;                                                                                   \
  for (k.threadIdx.z = 0; k.threadIdx.z < k.blockDim.z; ++k.threadIdx.z)                              \
    for (k.threadIdx.y = 0; k.threadIdx.y < k.blockDim.y; ++k.threadIdx.y, row_base += k.blockDim.x) \
      for (u32 x0 = 0, base = row_base; x0 < k.blockDim.x; x0 += W, base += W)
// Strips of a warp each.
#define CUDA_EACH_WARP for (u32 base = 0, x0 = 0; base < threads; base += 32)
// Whether a warp lies within a row: then this sets its place.
INLINE bool enter_warp(Thread& k, u32 base, u32 threads, u32& x0) {
  if (base + 32 > threads || (k.blockDim.x % 32 != 0 && k.blockDim.x != threads)) return false;
  set_place(k, base);
  x0 = k.threadIdx.x;
  return true;
}

// One bit for each lane.
static __attribute__((noinline)) u32 bits_of(const u8 (&truths)[32]) {
  u32 bits = 0;
  for (u32 l = 0; l < 32; ++l) bits |= (u32)truths[l] << l;
  return bits;
}
// Control flow around warp functions: all lanes of a warp go the same way.
INLINE bool agree(u32 yes, u32 active) {
  if (yes == 0) return false;
  if (yes != active) __builtin_trap();
  return true;
}

// ---- warp functions on a whole strip; arguments that are the same in all lanes come as numbers
template <class T> INLINE T at(T x, u32) { return x; }
template <class T> INLINE T at(const T (&x)[32], u32 l) { return x[l]; }
template <class T> INLINE void pick(T (&out)[32], const T (&v)[32], u32 active, u32 l, u32 source) {
  out[l] = source < 32 && active >> (source & 31) & 1 ? v[source & 31] : v[l];
}
#define CUDA_WARP_FUNCTION(...) template <class T, __VA_ARGS__> static __attribute__((noinline)) void
CUDA_WARP_FUNCTION(class S, class N)
__shfl_sync(T (&out)[32], const T (&v)[32], u32 active, const S& source, const N& width) {
  for (u32 l = 0; l < 32; ++l) {
    const u32 w = (u32)at(width, l) - 1;
    pick(out, v, active, l, (l & ~w) | ((u32)at(source, l) & w));
  }
}
CUDA_WARP_FUNCTION(class S, class N)
__shfl_up_sync(T (&out)[32], const T (&v)[32], u32 active, const S& delta, const N& width) {
  for (u32 l = 0; l < 32; ++l) {
    const u32 d = (u32)at(delta, l);
    pick(out, v, active, l, (l & ((u32)at(width, l) - 1)) >= d ? l - d : l);
  }
}
CUDA_WARP_FUNCTION(class S, class N)
__shfl_down_sync(T (&out)[32], const T (&v)[32], u32 active, const S& delta, const N& width) {
  for (u32 l = 0; l < 32; ++l) {
    const u32 d = (u32)at(delta, l), w = (u32)at(width, l), place = l & (w - 1);
    pick(out, v, active, l, d < w && place + d < w ? l + d : l);
  }
}
CUDA_WARP_FUNCTION(class S, class N)
__shfl_xor_sync(T (&out)[32], const T (&v)[32], u32 active, const S& other, const N& width) {
  for (u32 l = 0; l < 32; ++l) {
    const u32 source = l ^ (u32)at(other, l);
    pick(out, v, active, l, source <= (l | ((u32)at(width, l) - 1)) ? source : l);
  }
}
CUDA_WARP_FUNCTION(class M) __ballot_sync(T (&out)[32], u32 votes, u32 active, const M& mask) {
  for (u32 l = 0; l < 32; ++l) out[l] = votes & active & (at(mask, l) | 1u << l);
}
CUDA_WARP_FUNCTION(class M) __any_sync(T (&out)[32], u32 votes, u32 active, const M& mask) {
  for (u32 l = 0; l < 32; ++l) out[l] = (votes & active & (at(mask, l) | 1u << l)) != 0;
}
CUDA_WARP_FUNCTION(class M) __all_sync(T (&out)[32], u32 votes, u32 active, const M& mask) {
  for (u32 l = 0; l < 32; ++l) {
    const u32 asked = active & (at(mask, l) | 1u << l);
    out[l] = (votes & asked) == asked;
  }
}
#undef CUDA_WARP_FUNCTION
// Votes of all lanes that are there.
INLINE u32 __ballot_sync(u32 votes, u32 active) { return votes & active; }
INLINE i32 __any_sync(u32 votes, u32 active) { return (votes & active) != 0; }
INLINE i32 __all_sync(u32 votes, u32 active) { return (votes & active) == active; }

// ---- long functions on a whole strip, in steps of a loop each: a processor looks ahead less far than one such function
// is long, and the engine lets no two of them overlap in one loop
#ifndef CUDA_NO_MATHS
#define CUDA_LANES \
  _Pragma("clang loop vectorize(assume_safety) interleave_count(4)") for (u32 l = 0; l < W; ++l)
#define CUDA_STRIP_FUNCTION(N) \
  template <u32 W> static __attribute__((noinline)) void N(f32 (&out)[W], const f32 (&x)[W])
CUDA_STRIP_FUNCTION(expf) {
  alignas(16) static f32 r[W], shifted[W];
  CUDA_LANES {
    const Expf reduced = expf_reduce(x[l]);
    r[l] = reduced.r, shifted[l] = reduced.shifted;
  }
  CUDA_LANES out[l] = expf_finish({r[l], shifted[l]});
}
CUDA_STRIP_FUNCTION(logf) {
  alignas(16) static f32 f[W], n[W], tail[W];
  CUDA_LANES {
    const Logf reduced = logf_reduce(x[l]);
    f[l] = reduced.f, n[l] = reduced.n;
  }
  CUDA_LANES tail[l] = logf_tail(f[l]);
  CUDA_LANES out[l] = logf_finish(x[l], {f[l], n[l]}, tail[l]);
}
#undef CUDA_STRIP_FUNCTION
#undef CUDA_LANES
#endif

}  // namespace cuda
