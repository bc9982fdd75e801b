// The trial variant only: which threads touch which bytes of memory that they share, and elements outside of arrays. Two of them, one of which changes
// the byte, have no defined order unless a wait orders them, whatever values come out: that ends the task, with the
// address at the end of its log. Included by runtime.h; compute/translate/print_trial.py prints the calls.
//
// Lanes of one warp are ordered by the warp functions between them, threads of a block by barriers, blocks by nothing
// but the end of the launch. Threads may store the same where nobody reads. Atomics of one kind may meet each other, but
// neither a load or a store, nor atomics of another kind: a sum and a maximum do not commute.
//
// Of shared memory all is watched: by words, until something smaller than a word is touched; from there to the end of the
// block by bytes. Of arrays there may be gigabytes: a table has the places that were touched lately, and as many that
// were touched first and stay; what it has no room for is forgotten, and is not seen.
#pragma once

#include "log.h"

extern "C" u8 __heap_base;  // of the linker: a module's own data end here, the arrays lie beyond

namespace cuda {

constexpr u32 WATCHED_MAX = 96 << 10, RANGES_MAX = 64, PLACES = 1 << 16;
constexpr u32 LOOKS_MAX = 1u << 23;  // at arrays, of one launch: half a second's worth; what comes later is not seen
constexpr u16 MANY = 0xFFFF;         // threads of more than one warp
constexpr u32 MANY_BLOCKS = ~0u;
struct Touch {
  u32 block, phase, warp_phase;
  u16 thread, kind;  // kind: of what commutes with itself
  bool lanes;        // more than one, all of the thread's warp
};
struct Place {
  Touch store, others;  // others: loads, or atomics of one kind
  u32 address, launch;
};
struct Watched { u8* start; u32 size; };
static Watched watched[RANGES_MAX];
static u32 watched_count, launch, block, first_block, phase, warp_phase[THREADS_MAX / WARP], looks;
static Place own[WATCHED_MAX], first[PLACES], latest[PLACES];  // own: one for each byte; a word's is that of its first
static bool by_bytes;

INLINE void watch_launch() {
  ++launch;
  looks = 0;
  first_block = block + 1;
}
INLINE void watch_none() {
  watched_count = 0;
  by_bytes = false;
  ++block;
  ++phase;
}
INLINE void watch(void* start, u32 size) {
  if (watched_count < RANGES_MAX) watched[watched_count++] = {(u8*)start, size};
}
INLINE u32 number_of(const Thread& k) {
  return k.threadIdx.x + k.blockDim.x * (k.threadIdx.y + k.blockDim.y * k.threadIdx.z);
}
// Whether what was done before is in order with what this thread does now. `since`: the first block that counts.
INLINE bool in_order(const Touch& before, u32 thread, u32 since) {
  if (before.block < since) return true;
  if (before.block != block) return false;
  if (before.phase != phase) return true;
  if (before.thread == MANY) return false;
  if (before.thread == thread && !before.lanes) return true;
  return before.thread / WARP == thread / WARP && before.warp_phase < warp_phase[thread / WARP];
}
[[noreturn]] static __attribute__((noinline)) void conflict(u32 address) {
  for (const char* p = "\nrace at "; *p; ++p) put((u8)*p);
  for (i32 shift = 28; shift >= 0; shift -= 4) put((u8)"0123456789abcdef"[address >> shift & 15]);
  asm volatile("" ::: "memory");  // else nobody needs what is stored before the end
  __builtin_trap();
}
// Elements of the arrays that the kernel was given, by the pointers that it was given: others are not its own, even where
// there is memory.
constexpr u32 GIVEN_MAX = 64;
struct Given { const void* start; u32 bytes; const char* name; };  // bytes: 0 if nobody knows
static Given given_arrays[GIVEN_MAX];
static u32 given_count;
INLINE void give(const void* start, u32 bytes, const char* name) {
  if (given_count < GIVEN_MAX) given_arrays[given_count++] = {start, bytes, name};
}
static void put_text(const char* p) {
  while (*p) put((u8)*p++);
}
static void put_number(u64 i) {
  if (i > 9) put_number(i / 10);
  put((u8)('0' + i % 10));
}
[[noreturn]] static __attribute__((noinline)) void outside(const char* where, const char* name, i64 i, u32 count) {
  put_text("\noutside ");
  put_text(where);
  put_text(name);
  put_text(i < 0 ? "[-" : "[");
  put_number(i < 0 ? 0 - (u64)i : (u64)i);
  put_text("] of ");
  put_number(count);
  asm volatile("" ::: "memory");
  __builtin_trap();
}
template <class T> INLINE T& element(Thread& k, T* p, i64 i, const char* where) {
  for (u32 g = 0; g < given_count; ++g) {
    const Given& given = given_arrays[g];
    if (given.start == p && given.bytes && (u64)i >= given.bytes / sizeof(T)) outside(where, given.name, i, given.bytes / sizeof(T));
  }
  return *moved(k, p, i);
}
constexpr u16 STORE = 0xFFFF, STORE_THE_SAME = 0xFFFE, READ = 0;  // else a kind of atomics
INLINE void touch(Place& place, u32 address, u32 thread, u16 access, u32 since) {
  const Touch now = {block, phase, warp_phase[thread / WARP], (u16)thread, access, false};
  Touch& others = place.others;
  const bool stores = access >= STORE_THE_SAME;
  if (!in_order(place.store, thread, since)) {
    if (access != STORE_THE_SAME) conflict(address);
  } else if (stores) {
    place.store = now;
  }
  if (in_order(others, thread, since)) {
    if (!stores) others = now;
  } else if (stores || others.kind != access) {
    conflict(address);
  } else if (others.block != block) {
    others.block = MANY_BLOCKS;
  } else if (others.thread != MANY && others.thread / WARP == thread / WARP) {
    others.lanes = true;
  } else {
    others.thread = MANY;
  }
}
// The place of an address in the table, emptied if it is of an earlier launch, or of another address that has to go.
INLINE Place& place_of(u32 address) {
  const u32 slot = (address * 0x9E3779B1u) >> 16;
  Place* place = &first[slot];
  if (place->launch == launch && place->address != address) place = &latest[slot];
  if (place->launch != launch || place->address != address) *place = {{}, {}, address, launch};
  return *place;
}
static __attribute__((noinline)) void watched_touch(const Thread& k, const void* start, u32 size, u16 access) {
  const u32 thread = number_of(k), address = (u32)start;
  if (address >= (u32)&__heap_base) {
    const u32 width = (address | size) & 3 ? (address | size) & 1 ? 1 : 2 : 4;
    looks += size / width;
    for (u32 at = 0; at < size; at += width) touch(place_of(address + at), address + at, thread, access, first_block);
    return;
  }
  if (((address | size) & 3) && !by_bytes) {
    by_bytes = true;
    for (u32 at = 0; at < WATCHED_MAX; at += 4) own[at + 1] = own[at + 2] = own[at + 3] = own[at];
  }
  const u32 width = by_bytes ? 1 : 4;
  for (u32 i = 0, before = 0; i < watched_count; before += (watched[i++].size + 3) & ~3u) {
    const u32 offset = address - (u32)watched[i].start;
    if (offset >= watched[i].size || before + offset + size > WATCHED_MAX) continue;
    for (u32 b = 0; b < size && offset + b < watched[i].size; b += width)
      touch(own[before + offset + b], address + b, thread, access, block);
    return;
  }
}
INLINE void touched(const Thread& k, const void* start, u32 size, u16 access) {
  if ((u32)start < (u32)&__heap_base || looks < LOOKS_MAX) watched_touch(k, start, size, access);
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
// For functions that are given the address: a load, a store, an atomic of this kind.
template <class T> INLINE T* given(Thread& k, T* place, u16 access) {
  touched(k, place, sizeof *place, access);
  return place;
}

}  // namespace cuda
