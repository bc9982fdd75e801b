// <algorithm>: what kernels use of it.
#pragma once
#include <type_traits>
#pragma clang attribute push(__attribute__((device)), apply_to = function)

namespace std {
template <class T> constexpr const T& min(const T& a, const T& b) { return b < a ? b : a; }
template <class T> constexpr const T& max(const T& a, const T& b) { return a < b ? b : a; }
template <class T> constexpr const T& clamp(const T& x, const T& low, const T& high) {
  return x < low ? low : high < x ? high : x;
}
}  // namespace std

#pragma clang attribute pop
