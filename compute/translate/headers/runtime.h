// Launches, blocks, threads: how `run` goes over blocks. How threads wait: fission.h, coroutines.h.
#pragma once

#include "device.h"

namespace cuda {

constexpr u32 THREADS_MAX = 1024, WARP = 32, DYNAMIC_MAX = 48 << 10, DEPTH_MAX = 512;

struct Thread {
  uint3 threadIdx, blockIdx;
  dim3 blockDim, gridDim;
  u32 depth;
  u64 strayed;  // not 0: an index left the 32 bits that addresses have
};

// A pointer and a 64-bit index. What leads further than an address can must not wrap around into memory: that ends the
// task, at the end of the block, because a branch here would keep loops from becoming SIMD. 1 GiB back to 3 GiB on.
template <class T> INLINE u64 beyond(T*, i64 i) {
  constexpr u64 SIZE = sizeof(T), BACK = (1ull << 30) / SIZE;
  if constexpr ((SIZE & (SIZE - 1)) == 0) return (u64)(i + (i64)BACK) & ~(4 * BACK - 1);
  else return (u64)i + BACK >= 4 * BACK;
}
template <class T> INLINE T* moved(Thread& k, T* p, i64 i) {
  k.strayed |= beyond(p, i);
  return p + (i32)i;
}
template <class T> INLINE T*& move(Thread& k, T*& p, i64 i) { return p = moved(k, p, i); }
template <class T> INLINE T& at(Thread& k, T* p, i64 i) { return *moved(k, p, i); }
// The compiler would take the difference of two addresses for a number of 32 bits with a sign.
template <class T> INLINE i64 apart(T* p, T* q) {
  return ((i64)(__UINTPTR_TYPE__)p - (i64)(__UINTPTR_TYPE__)q) / (i64)sizeof(T);
}

// A recursive function counts how deep it is: too deep ends the task, the same way on every machine.
struct Deeper {
  Thread& k;
  INLINE_MEMBER explicit Deeper(Thread& thread) : k(thread) {
    if (++k.depth > DEPTH_MAX) __builtin_trap();
  }
  INLINE_MEMBER ~Deeper() { --k.depth; }
};

// The trial variant of a module runs everything the other way round, and what nobody has set is all ones instead of
// zeros: a kernel whose bits are defined does not notice (compute/programs/trial.py).
#ifdef CUDA_TRIAL
constexpr bool TRIAL = true;
template <class T> INLINE T unset() {
  T x;
  __builtin_memset(&x, 0xFF, sizeof x);
  return x;
}
#define CUDA_UNSET(...) cuda::unset<__VA_ARGS__>()
#define CUDA_UNSET_ARRAY(name, ...) \
  __VA_ARGS__ name;                 \
  __builtin_memset(&name, 0xFF, sizeof name)
#else
constexpr bool TRIAL = false;
#define CUDA_UNSET(...) {}
#define CUDA_UNSET_ARRAY(name, ...) __VA_ARGS__ name = {}
#endif
INLINE u32 turned(u32 i, u32 count) { return TRIAL ? count - 1 - i : i; }

alignas(16) static u8 dynamic_shared[DYNAMIC_MAX];
INLINE void clear(void* shared, u32 size) { __builtin_memset(shared, TRIAL ? 0xFF : 0, size); }
INLINE void clear_dynamic(u32 size) { clear(dynamic_shared, size); }

INLINE void check_launch(i64 b0, i64 b1, u32 gx, u32 gy, u32 gz, u32 bx, u32 by, u32 bz, u32 shared_mem) {
  const bool block = bx - 1 < THREADS_MAX && by - 1 < THREADS_MAX && bz - 1 < THREADS_MAX && (u64)bx * by * bz <= THREADS_MAX;
  const bool grid = gx && gy && gz && gx < 1u << 31 && gy < 1u << 16 && gz < 1u << 16;
  if (!block || !grid || shared_mem > DYNAMIC_MAX || b0 < 0 || b0 > b1 || b1 > (i64)((u64)gx * gy * gz)) __builtin_trap();
}

INLINE Thread first_thread(i64 b0, u32 gx, u32 gy, u32 gz, u32 bx, u32 by, u32 bz) {
  const u64 row = (u64)b0 / gx;
  return {{0, 0, 0}, {(u32)((u64)b0 % gx), (u32)(row % gy), (u32)(row / gy)}, {bx, by, bz}, {gx, gy, gz}, 0};
}
INLINE void next_block(Thread& k) {
  if (k.strayed) __builtin_trap();
  if constexpr (TRIAL) {
    if (k.blockIdx.x--) return;
    k.blockIdx.x = k.gridDim.x - 1;
    if (k.blockIdx.y--) return;
    k.blockIdx.y = k.gridDim.y - 1;
    --k.blockIdx.z;
    return;
  }
  if (++k.blockIdx.x < k.gridDim.x) return;
  k.blockIdx.x = 0;
  if (++k.blockIdx.y < k.gridDim.y) return;
  k.blockIdx.y = 0;
  ++k.blockIdx.z;
}
template <class Test> INLINE bool whole_row(Thread& k, Test holds) {
  k.threadIdx.x = 0;
  const bool first = holds();
  k.threadIdx.x = k.blockDim.x - 1;
  return first && holds();
}
template <class Test> INLINE bool whole_block(Thread& k, Test holds) {
  for (k.threadIdx.z = 0; k.threadIdx.z < k.blockDim.z; ++k.threadIdx.z)
    for (k.threadIdx.y = 0; k.threadIdx.y < k.blockDim.y; ++k.threadIdx.y)
      if (!whole_row(k, holds)) return false;
  return true;
}

#define CUDA_EACH_BLOCK                                             \
  CUDA_WATCHED(cuda::watch_launch();)                                \
  cuda::Thread k = cuda::first_thread(cuda::TRIAL && b0 < b1 ? b1 - 1 : b0, gx, gy, gz, bx, by, bz);  \
  for (i64 b = b0; b < b1; ++b, cuda::next_block(k))
#define CUDA_EACH_ROW                                                     \
  for (k.threadIdx.z = 0; k.threadIdx.z < bz; ++k.threadIdx.z)            \
    for (k.threadIdx.y = 0; k.threadIdx.y < by; ++k.threadIdx.y)
#define CUDA_EACH_X for (u32 x = 0; x < bx; ++x) k.threadIdx.x = cuda::turned(x, bx),

}  // namespace cuda

#ifdef CUDA_TRIAL
#include "races.h"
#define CUDA_WATCHED(x) x
#else
#define CUDA_WATCHED(x)
#endif
