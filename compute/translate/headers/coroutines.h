// The coroutine shape: threads that wait are C++20 coroutines, which run warp by warp, lane by lane, each until it waits.
// Only units with such kernels include this (compute/translate/includes.py).
#pragma once

#include "runtime.h"

// ---- coroutines: what the compiler wants of <coroutine>
namespace std {
template <class R, class...> struct coroutine_traits { using promise_type = typename R::promise_type; };
template <class P = void> struct coroutine_handle;
template <> struct coroutine_handle<void> {
  void* frame = nullptr;
  static coroutine_handle from_address(void* a) {
    coroutine_handle h;
    h.frame = a;
    return h;
  }
  void* address() const { return frame; }
  void resume() const { __builtin_coro_resume(frame); }
  void destroy() const { __builtin_coro_destroy(frame); }
};
template <class P> struct coroutine_handle {
  void* frame = nullptr;
  static coroutine_handle from_address(void* a) {
    coroutine_handle h;
    h.frame = a;
    return h;
  }
  static coroutine_handle from_promise(P& p) {
    return from_address(__builtin_coro_promise((char*)&p, alignof(P), true));
  }
  void* address() const { return frame; }
  P& promise() const { return *(P*)__builtin_coro_promise(frame, alignof(P), false); }
  void destroy() const { __builtin_coro_destroy(frame); }
  operator coroutine_handle<>() const { return coroutine_handle<>::from_address(frame); }
};
struct suspend_always {
  bool await_ready() const noexcept { return false; }
  void await_suspend(coroutine_handle<>) const noexcept {}
  void await_resume() const noexcept {}
};
}  // namespace std

namespace cuda {

// ---- frames: an arena with a list of free frames for each size; exhausted, it ends the task
constexpr u32 ARENA = 8 << 20;
alignas(16) static u8 arena[ARENA];
static u32 arena_top;
struct FreeFrame { FreeFrame* next; };
constexpr u32 FRAME_CLASSES = 4096;  // of 16 bytes: frames of up to 64 KiB
static FreeFrame* free_frames[FRAME_CLASSES];
static inline void* allocate(__SIZE_TYPE__ size) {
  const u32 index = (u32)(size + 15) >> 4;
  if (index >= FRAME_CLASSES) __builtin_trap();
  if (FreeFrame* frame = free_frames[index]) {
    free_frames[index] = frame->next;
    return frame;
  }
  if (arena_top + index * 16 > ARENA) __builtin_trap();
  u8* frame = arena + arena_top;
  arena_top += index * 16;
  return frame;
}
static inline void release(void* frame, __SIZE_TYPE__ size) {
  const u32 index = (u32)(size + 15) >> 4;
  ((FreeFrame*)frame)->next = free_frames[index];
  free_frames[index] = (FreeFrame*)frame;
}

// ---- threads that wait
enum State : u32 { RUNS, AT_BARRIER, IN_WARP, DONE };
enum Wish : u32 { NOTHING, SHUFFLE, BALLOT, ANY, ALL, COUNT, AND, OR };
struct Fiber : Thread {
  std::coroutine_handle<> top;  // the innermost coroutine, which is resumed
  State state;
  Wish wish;
  u32 lane, mask, source;
  u64 value;
};
static Fiber fibers[THREADS_MAX];
static Fiber* current;
static u32 at_barrier, barrier_votes, in_warp[THREADS_MAX / WARP];  // how many threads wait
static bool switched;  // a task was called or returned: go on with the same thread

struct Promise {
  std::coroutine_handle<> caller;
  void* operator new(__SIZE_TYPE__ size) { return allocate(size); }
  void operator delete(void* frame, __SIZE_TYPE__ size) { release(frame, size); }
  void unhandled_exception() { __builtin_trap(); }
  std::suspend_always initial_suspend() noexcept { return {}; }
  struct Final {
    bool await_ready() noexcept { return false; }
    template <class P> void await_suspend(std::coroutine_handle<P> h) noexcept {
      const auto caller = h.promise().caller;
      if (caller.frame) {
        current->top = caller;
        switched = true;
      } else {
        current->state = DONE;
      }
    }
    void await_resume() noexcept {}
  };
  Final final_suspend() noexcept { return {}; }
};

template <class T> struct Value {
  T result;
  void return_value(T x) { result = x; }
};
template <> struct Value<void> {
  void return_void() {}
};
template <class T> struct Task {
  struct promise_type : Promise, Value<T> {
    Task get_return_object() { return {std::coroutine_handle<promise_type>::from_promise(*this)}; }
  };
  std::coroutine_handle<promise_type> handle;
  bool await_ready() { return false; }
  template <class P> void await_suspend(std::coroutine_handle<P> caller) {
    handle.promise().caller = caller;
    current->top = handle;
    switched = true;
  }
  T await_resume() {
    if constexpr (__is_void(T)) {
      handle.destroy();
    } else {
      const T result = handle.promise().result;
      handle.destroy();
      return result;
    }
  }
};

template <class T> INLINE T answer(u64 value) {
  if constexpr (sizeof(T) == 8) return __builtin_bit_cast(T, value);
  else return __builtin_bit_cast(T, (u32)value);
}
struct Barrier {
  Wish wish;
  u32 vote;
  bool await_ready() { return false; }
  void await_suspend(std::coroutine_handle<> h) {
    current->top = h;
    current->state = AT_BARRIER;
    current->wish = wish;
    ++at_barrier;
    barrier_votes += vote;
  }
  void await_resume() {}
};
struct Count : Barrier {
  i32 await_resume() { return (i32)current->value; }
};
template <class T> struct InWarp {
  Wish wish;
  u32 mask, source;
  u64 value;
  bool await_ready() { return false; }
  void await_suspend(std::coroutine_handle<> h) {
    current->top = h;
    current->state = IN_WARP;
    current->wish = wish;
    current->mask = mask | 1u << (current->lane & 31);
    current->source = source;
    current->value = value;
    ++in_warp[current->lane / WARP];
  }
  T await_resume() { return answer<T>(current->value); }
};
struct WarpOnly : InWarp<u32> {
  void await_resume() {}
};
INLINE Barrier __syncthreads() { return {NOTHING, 0}; }
INLINE Count __syncthreads_count(i32 p) { return {{COUNT, p != 0}}; }
INLINE Count __syncthreads_and(i32 p) { return {{AND, p != 0}}; }
INLINE Count __syncthreads_or(i32 p) { return {{OR, p != 0}}; }
INLINE WarpOnly __syncwarp(u32 mask) { return {{NOTHING, mask, 0, 0}}; }
INLINE InWarp<u32> __ballot_sync(u32 mask, i32 p) { return {BALLOT, mask, 0, p != 0}; }
INLINE InWarp<i32> __any_sync(u32 mask, i32 p) { return {ANY, mask, 0, p != 0}; }
INLINE InWarp<i32> __all_sync(u32 mask, i32 p) { return {ALL, mask, 0, p != 0}; }

// Shuffles: CUDA C++ Programming Guide, "Warp Shuffle Functions"; a lane without a source keeps its own value.
template <class T> INLINE InWarp<T> shuffle(u32 mask, T v, u32 source) {
  u64 value;
  if constexpr (sizeof(T) == 8) value = __builtin_bit_cast(u64, v);
  else value = __builtin_bit_cast(u32, v);
  return {SHUFFLE, mask, source, value};
}
INLINE u32 lane() { return current->lane & 31; }
template <class T> INLINE InWarp<T> __shfl_sync(u32 mask, T v, i32 source, i32 width) {
  return shuffle(mask, v, (lane() & ~((u32)width - 1)) | ((u32)source & ((u32)width - 1)));
}
template <class T> INLINE InWarp<T> __shfl_up_sync(u32 mask, T v, u32 delta, i32 width) {
  return shuffle(mask, v, (lane() & ((u32)width - 1)) >= delta ? lane() - delta : lane());
}
template <class T> INLINE InWarp<T> __shfl_down_sync(u32 mask, T v, u32 delta, i32 width) {
  const u32 place = lane() & ((u32)width - 1);
  return shuffle(mask, v, delta < (u32)width && place + delta < (u32)width ? lane() + delta : lane());
}
template <class T> INLINE InWarp<T> __shfl_xor_sync(u32 mask, T v, i32 other, i32 width) {
  const u32 source = lane() ^ (u32)other;
  return shuffle(mask, v, source <= (lane() | ((u32)width - 1)) ? source : lane());
}

// Answer the lanes of a warp whose whole mask has arrived. Lanes that have ended are not waited for.
static bool answer_warp(Fiber* warp, u32 lanes) {
  u32 waiting = 0, ended = 0, ready = 0;
  for (u32 i = 0; i < lanes; ++i) {
    waiting |= (u32)(warp[i].state == IN_WARP) << i;
    ended |= (u32)(warp[i].state == DONE) << i;
  }
  if (lanes < WARP) ended |= ~0u << lanes;
  for (u32 i = 0; i < lanes; ++i)
    if (waiting >> i & 1 && (warp[i].mask & ~(waiting | ended)) == 0) ready |= 1u << i;
  if (!ready) return false;
  in_warp[warp->lane / WARP] -= (u32)__builtin_popcount(ready);
  CUDA_WATCHED(++warp_phase[warp->lane / WARP];)
  u64 values[WARP];
  u32 votes = 0;
  for (u32 i = 0; i < lanes; ++i) {
    values[i] = warp[i].value;
    if (ready >> i & 1) votes |= (u32)(warp[i].value != 0) << i;
  }
  for (u32 i = 0; i < lanes; ++i) {
    Fiber& f = warp[i];
    if (!(ready >> i & 1)) continue;
    const u32 asked = f.mask & ready;
    if (f.wish == SHUFFLE) f.value = f.source < lanes && ready >> f.source & 1 ? values[f.source] : f.value;
    else if (f.wish == BALLOT) f.value = votes & asked;
    else if (f.wish == ANY) f.value = (votes & asked) != 0;
    else if (f.wish == ALL) f.value = (votes & asked) == asked;
    f.state = RUNS;
  }
  return true;
}

// Let the threads at a barrier go on, if all that have not ended are there.
static bool answer_barrier(u32 threads, u32 alive) {
  if (at_barrier != alive) return false;
  CUDA_WATCHED(++phase;)
  for (u32 i = 0; i < threads; ++i) {
    Fiber& f = fibers[i];
    if (f.state != AT_BARRIER) continue;
    f.state = RUNS;
    if (f.wish != NOTHING)
      f.value = f.wish == COUNT ? barrier_votes : f.wish == AND ? barrier_votes == alive : barrier_votes != 0;
  }
  at_barrier = barrier_votes = 0;
  return true;
}

// Run one block: warp by warp, lane by lane, each thread until it waits. No thread can go on: a deadlock, which traps.
template <class Start> static inline void run_block(const Thread& k, Start start) {
  const u32 threads = k.blockDim.x * k.blockDim.y * k.blockDim.z;
  u32 alive = threads;
  for (u32 i = 0; i < threads; ++i) {
    Fiber& f = fibers[i];
    (Thread&)f = k;
    f.threadIdx = {i % k.blockDim.x, i / k.blockDim.x % k.blockDim.y, i / (k.blockDim.x * k.blockDim.y)};
    f.lane = i;
    f.state = RUNS;
  }
  for (u32 i = 0; i < threads; ++i) fibers[i].top = start(fibers[i]).handle;
  while (alive) {
    bool progress = false;
    for (u32 v = 0; v < threads; v += WARP) {
      const u32 w = WARP * turned(v / WARP, (threads + WARP - 1) / WARP);
      const u32 lanes = threads - w < WARP ? threads - w : WARP;
      do {
        for (u32 i = 0; i < lanes; ++i) {
          Fiber& f = fibers[w + turned(i, lanes)];
          if (f.state != RUNS) continue;
          progress = true;
          current = &f;
          do {
            switched = false;
            f.top.resume();
          } while (switched);
          if (f.state == DONE) {
            if (f.strayed) __builtin_trap();
            f.top.destroy();
            --alive;
          }
        }
      } while (in_warp[w / WARP] && answer_warp(fibers + w, lanes));
    }
    if (alive && !answer_barrier(threads, alive) && !progress) __builtin_trap();
  }
}

}  // namespace cuda
