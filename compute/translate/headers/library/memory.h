// <cstring>, <string.h>: the memory functions, byte by byte. Templates keep what is pointed to: integers stay exact.
#pragma once
#pragma clang attribute push(__attribute__((device)), apply_to = function)

template <class T> T* memset(T* to, int value, size_t count) {
  unsigned char* bytes = (unsigned char*)to;
  for (size_t i = 0; i < count; ++i) bytes[i] = (unsigned char)value;
  return to;
}
template <class T, class S> T* memcpy(T* to, const S* from, size_t count) {
  unsigned char* bytes = (unsigned char*)to;
  const unsigned char* source = (const unsigned char*)from;
  for (size_t i = 0; i < count; ++i) bytes[i] = source[i];
  return to;
}

namespace std {
using ::memset;
using ::memcpy;
}  // namespace std

#pragma clang attribute pop
