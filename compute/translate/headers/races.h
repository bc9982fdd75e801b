// The trial variant only: which threads of a block touch which bytes of its shared memory between two waits. Two of
// them, one of which changes the byte, have no defined order, whatever values come out: that ends the task. Included by
// runtime.h; compute/translate/print_trial.py prints the calls.
//
// Lanes of one warp are ordered by the warp functions between them, all threads by barriers. Threads may store the same
// where nobody reads. Atomics are not looked at.
#pragma once

namespace cuda {

constexpr u32 WATCHED_MAX = 256 << 10, RANGES_MAX = 64;
constexpr u16 MANY = 0xFFFF;  // threads of more than one warp
struct Touch {
  u32 phase, warp_phase;
  u16 thread, lanes;  // lanes: more than one, all of the thread's warp
};
struct Watched { u8* start; u32 size; };
static Watched watched[RANGES_MAX];
static u32 watched_count, phase, warp_phase[THREADS_MAX / WARP];
static Touch writes[WATCHED_MAX], reads[WATCHED_MAX];

INLINE void watch_none() {
  watched_count = 0;
  ++phase;
}
INLINE void watch(void* start, u32 size) {
  if (watched_count < RANGES_MAX) watched[watched_count++] = {(u8*)start, size};
}
INLINE u32 number_of(const Thread& k) {
  return k.threadIdx.x + k.blockDim.x * (k.threadIdx.y + k.blockDim.y * k.threadIdx.z);
}
// Whether what was done before is in order with what this thread does now.
INLINE bool in_order(const Touch& before, u32 thread) {
  if (before.phase != phase) return true;
  if (before.thread == MANY) return false;
  if (before.thread == thread && !before.lanes) return true;
  return before.thread / WARP == thread / WARP && before.warp_phase < warp_phase[thread / WARP];
}
enum Access { READ, STORE, STORE_THE_SAME };
INLINE void touch(Thread& k, u32 at, Access access) {
  const u32 thread = number_of(k), now = warp_phase[thread / WARP];
  Touch& read = reads[at];
  if (!in_order(writes[at], thread)) {
    if (access != STORE_THE_SAME) __builtin_trap();
  } else if (access != READ) {
    writes[at] = {phase, now, (u16)thread, 0};
  }
  if (access != READ) {
    if (!in_order(read, thread)) __builtin_trap();
  } else if (read.phase != phase || (read.thread != MANY && in_order(read, thread))) {
    read = {phase, now, (u16)thread, 0};
  } else if (read.thread != MANY && read.thread / WARP == thread / WARP) {
    read = {phase, now, read.thread, 1};
  } else {
    read.thread = MANY;
  }
}
static __attribute__((noinline)) void touched(Thread& k, const void* place, u32 size, Access access) {
  for (u32 i = 0, first = 0; i < watched_count; first += watched[i++].size) {
    const u32 offset = (u32)((const u8*)place - watched[i].start);
    if (offset >= watched[i].size || first + offset + size > WATCHED_MAX) continue;
    for (u32 b = 0; b < size && offset + b < watched[i].size; ++b) touch(k, first + offset + b, access);
    return;
  }
}
template <class T> INLINE T& seen(Thread& k, T& place) {
  touched(k, &place, sizeof place, READ);
  return place;
}
// Around a store: what was there, and whether it is there still.
static u8 before[1024];
static const void* before_at;
template <class T> INLINE T& stored_to(Thread&, T& place) {
  before_at = sizeof place <= sizeof before ? &place : nullptr;
  if (before_at) __builtin_memcpy(before, &place, sizeof place);
  return place;
}
template <class T> INLINE T& stored(Thread& k, T& place) {
  u32 others = before_at != &place;
  for (u32 i = 0; !others && i < sizeof place; ++i) others = before[i] != ((const u8*)&place)[i];
  touched(k, &place, sizeof place, others ? STORE : STORE_THE_SAME);
  return place;
}
template <class T> INLINE T& changed(Thread& k, T& place) {
  touched(k, &place, sizeof place, STORE);
  return place;
}

}  // namespace cuda
