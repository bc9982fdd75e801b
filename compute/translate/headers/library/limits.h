// <limits>: std::numeric_limits of the device's types.
#pragma once
#pragma clang attribute push(__attribute__((device)), apply_to = function)

namespace std {
template <class T> class numeric_limits {
 public:
  static constexpr bool is_specialized = false;
};
#define LIMITS_(T, LOW, HIGH, DIGITS, DIGITS10)                   \
  template <> class numeric_limits<T> {                           \
   public:                                                        \
    static constexpr bool is_specialized = true;                  \
    static constexpr bool is_integer = true;                      \
    static constexpr bool is_signed = (T)-1 < (T)0;               \
    static constexpr bool has_infinity = false;                   \
    static constexpr int digits = DIGITS;                         \
    static constexpr int digits10 = DIGITS10;                     \
    static constexpr T min() { return LOW; }                      \
    static constexpr T lowest() { return LOW; }                   \
    static constexpr T max() { return HIGH; }                     \
    static constexpr T epsilon() { return 0; }                    \
  };
LIMITS_(bool, false, true, 1, 0)
LIMITS_(char, -128, 127, 7, 2)
LIMITS_(signed char, -128, 127, 7, 2)
LIMITS_(unsigned char, 0, 255, 8, 2)
LIMITS_(short, -32768, 32767, 15, 4)
LIMITS_(unsigned short, 0, 65535, 16, 4)
LIMITS_(int, INT_MIN, INT_MAX, 31, 9)
LIMITS_(unsigned int, 0, UINT_MAX, 32, 9)
LIMITS_(long, LONG_MIN, LONG_MAX, 63, 18)
LIMITS_(unsigned long, 0, ULONG_MAX, 64, 19)
LIMITS_(long long, LLONG_MIN, LLONG_MAX, 63, 18)
LIMITS_(unsigned long long, 0, ULLONG_MAX, 64, 19)
#undef LIMITS_
#define LIMITS_(T, LOW, HIGH, EPSILON, DENORM, INF, QUIET, DIGITS, DIGITS10)  \
  template <> class numeric_limits<T> {                           \
   public:                                                        \
    static constexpr bool is_specialized = true;                  \
    static constexpr bool is_integer = false;                     \
    static constexpr bool is_signed = true;                       \
    static constexpr bool has_infinity = true;                    \
    static constexpr int digits = DIGITS;                         \
    static constexpr int digits10 = DIGITS10;                     \
    static constexpr T min() { return LOW; }                      \
    static constexpr T lowest() { return -(HIGH); }               \
    static constexpr T max() { return HIGH; }                     \
    static constexpr T epsilon() { return EPSILON; }              \
    static constexpr T denorm_min() { return DENORM; }            \
    static constexpr T infinity() { return INF; }                 \
    static constexpr T quiet_NaN() { return QUIET; }              \
  };
LIMITS_(float, FLT_MIN, FLT_MAX, FLT_EPSILON, 1.401298464e-45f, __builtin_inff(), __builtin_nanf(""), 24, 6)
LIMITS_(double, DBL_MIN, DBL_MAX, DBL_EPSILON, 4.9406564584124654e-324, __builtin_inf(), __builtin_nan(""), 53, 15)
#undef LIMITS_
}  // namespace std

#pragma clang attribute pop
