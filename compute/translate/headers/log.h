// printf: formatted here, into a log of bounded size that the device reads after the run (abi.py).
//
// The compiler has checked that each conversion has an argument of its kind (printing.py). Numbers are exact to the last
// digit: a double is expanded to all of its decimal digits, at most 1,076 after the point, and rounded half to even.
#pragma once

#include "device.h"

namespace cuda {

constexpr u32 LOG_BYTES = 16 << 10;
constexpr char LOG_END[] = "\n[the log ends here: it holds 16 KiB]\n";
constexpr u32 LOG_ROOM = LOG_BYTES - (sizeof LOG_END - 1);
constexpr i32 WIDTH_MAX = 1024, PRECISION_MAX = 400;
struct Log {
  u32 length;
  u8 bytes[LOG_BYTES];
};
static Log the_log;

static inline void put(u8 c) {
  if (the_log.length < LOG_ROOM) {
    the_log.bytes[the_log.length++] = c;
  } else if (the_log.length == LOG_ROOM) {
    for (const char* p = LOG_END; *p; ++p) the_log.bytes[the_log.length++] = (u8)*p;
  }
}

// ---- one conversion: its text, without padding
struct Conversion {
  bool left, plus, space, zero, alternate;
  i32 width, precision;  // precision < 0: not given
  u8 size, letter;       // size: bytes of an integer
};
struct Text {
  u8 bytes[WIDTH_MAX + PRECISION_MAX];
  u32 length;
  void add(u8 c) { bytes[length++] = c; }
};
static Text sign, body;  // the sign comes before zeros that pad

static void add_sign(bool negative, const Conversion& c) {
  if (negative) sign.add('-');
  else if (c.plus) sign.add('+');
  else if (c.space) sign.add(' ');
}
static void add_integer(u64 value, u32 base, i32 digits, bool upper) {
  u8 reversed[PRECISION_MAX];
  i32 n = 0;
  for (; value; value /= base) reversed[n++] = (upper ? "0123456789ABCDEF" : "0123456789abcdef")[value % base];
  while (n < digits) reversed[n++] = '0';
  while (n) body.add(reversed[--n]);
}
static void format_integer(u64 value, const Conversion& c) {
  const i32 digits = c.precision < 0 ? 1 : c.precision;
  if (c.letter == 'd' || c.letter == 'i') {
    const i64 x = c.size == 8 ? (i64)value : c.size == 4 ? (i32)value : c.size == 2 ? (i16)value : (i8)value;
    add_sign(x < 0, c);
    return add_integer(x < 0 ? 0 - (u64)x : (u64)x, 10, digits, false);
  }
  const u64 x = c.size == 8 ? value : c.size == 4 ? (u32)value : c.size == 2 ? (u16)value : (u8)value;
  if (c.letter == 'u') return add_integer(x, 10, digits, false);
  if (c.letter == 'o') {
    add_integer(x, 8, digits, false);
    if (c.alternate && (!body.length || body.bytes[0] != '0')) {
      for (u32 i = body.length; i; --i) body.bytes[i] = body.bytes[i - 1];
      body.bytes[0] = '0';
      ++body.length;
    }
    return;
  }
  if ((c.alternate && x) || c.letter == 'p') {
    sign.add('0');
    sign.add(c.letter == 'X' ? 'X' : 'x');
  }
  add_integer(x, 16, digits, c.letter == 'X');
}

// ---- doubles: all decimal digits, the first `point` of them before the decimal point
struct Decimal {
  u8 digits[1520];
  i32 count, point;
};
static Decimal decimal;
static void expand(u64 mantissa, i32 exponent) {  // mantissa · 2^exponent
  constexpr i32 FRACTION = 34, LIMBS = 68;        // 32 bits each, the lowest first
  u32 limbs[LIMBS] = {};
  const u32 at = (u32)(exponent + FRACTION * 32);
  const u64 low = mantissa << (at % 32);
  limbs[at / 32] = (u32)low;
  limbs[at / 32 + 1] = (u32)(low >> 32);
  if (at % 32) limbs[at / 32 + 2] = (u32)(mantissa >> (64 - at % 32));
  u8 reversed[330];
  i32 n = 0;
  for (i32 top = LIMBS - 1; top >= FRACTION;) {
    if (!limbs[top]) {
      --top;
      continue;
    }
    u64 rest = 0;
    for (i32 i = top; i >= FRACTION; --i) {
      rest = rest << 32 | limbs[i];
      limbs[i] = (u32)(rest / 1000000000u);
      rest %= 1000000000u;
    }
    for (i32 i = 0; i < 9; ++i, rest /= 10) reversed[n++] = (u8)(rest % 10);
  }
  while (n && !reversed[n - 1]) --n;
  decimal.count = 0;
  decimal.point = n;
  while (n) decimal.digits[decimal.count++] = reversed[--n];
  for (i32 bottom = 0; bottom < FRACTION;) {
    if (!limbs[bottom]) {
      ++bottom;
      continue;
    }
    u64 carry = 0;
    for (i32 i = bottom; i < FRACTION; ++i) {
      carry += (u64)limbs[i] * 1000000000u;
      limbs[i] = (u32)carry;
      carry >>= 32;
    }
    for (u32 unit = 100000000u; unit; unit /= 10) decimal.digits[decimal.count++] = (u8)(carry / unit % 10);
  }
}
static void round_to(i32 count) {  // keep so many digits: zeros are added where there are fewer
  Decimal& d = decimal;
  bool up = false;
  if (count < d.count) {
    up = d.digits[count] >= 5;
    if (d.digits[count] == 5 && !(count && d.digits[count - 1] & 1)) {
      up = false;
      for (i32 i = count + 1; i < d.count; ++i) up |= d.digits[i] != 0;
    }
  }
  for (i32 i = d.count; i < count; ++i) d.digits[i] = 0;
  d.count = count;
  i32 i = count;
  while (up && i && d.digits[i - 1] == 9) d.digits[--i] = 0;
  if (up && i) ++d.digits[i - 1];
  if (up && !i) {
    for (i32 k = d.count; k; --k) d.digits[k] = d.digits[k - 1];
    d.digits[0] = 1;
    ++d.count;
    ++d.point;
  }
}
static i32 first_digit() {
  for (i32 i = 0; i < decimal.count; ++i)
    if (decimal.digits[i]) return i;
  return -1;
}
static void drop_zeros() {
  while (body.length && body.bytes[body.length - 1] == '0') --body.length;
  if (body.length && body.bytes[body.length - 1] == '.') --body.length;
}
static void format_fixed(i32 precision, bool alternate) {
  round_to(decimal.point + precision);
  if (!decimal.point) body.add('0');
  for (i32 i = 0; i < decimal.count; ++i) {
    if (i == decimal.point) body.add('.');
    body.add('0' + decimal.digits[i]);
  }
  if (!precision && alternate) body.add('.');
}
static void add_exponent(i32 exponent, u8 letter, i32 digits) {
  body.add(letter);
  body.add(exponent < 0 ? '-' : '+');
  add_integer((u64)(exponent < 0 ? -exponent : exponent), 10, digits, false);
}
static i32 round_scientific(i32 precision) {  // keep precision + 1 digits, return the exponent
  const i32 first = first_digit();
  if (first < 0) {
    decimal.point = 1;
    round_to(precision + 1);
    return 0;
  }
  round_to(first + precision + 1);
  return decimal.point - 1 - first_digit();
}
static void format_scientific(i32 precision, bool alternate, bool strip, u8 letter) {
  const i32 exponent = round_scientific(precision);
  const i32 first = first_digit() < 0 ? 0 : first_digit();
  for (i32 i = 0; i <= precision; ++i) {
    if (i == 1) body.add('.');
    body.add('0' + (first + i < decimal.count ? decimal.digits[first + i] : 0));
  }
  if (!precision && alternate) body.add('.');
  if (strip && precision) drop_zeros();
  add_exponent(exponent, letter, 2);
}
static void format_hexadecimal(u64 mantissa, i32 exponent, i32 precision, bool alternate, bool upper) {
  if (!mantissa) exponent = 0;
  if (precision >= 0 && precision < 13) {  // half to even
    const u32 drop = 4 * (13 - (u32)precision);
    const u64 half = 1ull << (drop - 1), rest = mantissa & ((1ull << drop) - 1);
    mantissa >>= drop;
    mantissa += rest > half || (rest == half && mantissa & 1);
    mantissa <<= drop;
  }
  sign.add('0');
  sign.add(upper ? 'X' : 'x');
  body.add('0' + (u8)(mantissa >> 52));
  i32 digits = precision;
  if (precision < 0)
    for (digits = 13; digits && !(mantissa >> (4 * (13 - digits)) & 15);) --digits;
  if (digits || alternate) body.add('.');
  for (i32 i = 0; i < digits; ++i) {
    const u32 nibble = i < 13 ? (u32)(mantissa >> (48 - 4 * i) & 15) : 0;
    body.add((upper ? "0123456789ABCDEF" : "0123456789abcdef")[nibble]);
  }
  add_exponent(exponent, upper ? 'P' : 'p', 1);
}
static void format_double(u64 bits, Conversion& c) {
  const u8 letter = c.letter | 32;
  const bool upper = letter != c.letter;
  const i32 biased = (i32)(bits >> 52 & 2047);
  u64 mantissa = bits & 0xfffffffffffffull;
  if (biased == 2047) {
    add_sign(bits >> 63 && !mantissa, c);
    c.zero = false;
    const char* name = mantissa ? (upper ? "NAN" : "nan") : (upper ? "INF" : "inf");
    while (*name) body.add((u8)*name++);
    return;
  }
  add_sign(bits >> 63, c);
  if (biased) mantissa |= 1ull << 52;
  const i32 exponent = (biased ? biased : 1) - 1023;
  if (letter == 'a') return format_hexadecimal(mantissa, exponent, c.precision, c.alternate, upper);
  expand(mantissa, exponent - 52);
  const i32 precision = c.precision < 0 ? 6 : c.precision;
  if (letter == 'f') return format_fixed(precision, c.alternate);
  if (letter == 'e') return format_scientific(precision, c.alternate, false, c.letter);
  const i32 significant = precision ? precision : 1;
  const i32 scale = round_scientific(significant - 1);
  if (scale < -4 || scale >= significant)
    return format_scientific(significant - 1, c.alternate, !c.alternate, upper ? 'E' : 'e');
  format_fixed(significant - 1 - scale, c.alternate);
  if (!c.alternate && significant - 1 > scale) drop_zeros();
}

static void pad(const Conversion& c) {
  const i32 missing = c.width - (i32)(sign.length + body.length);
  if (!c.left && !c.zero)
    for (i32 i = 0; i < missing; ++i) put(' ');
  for (u32 i = 0; i < sign.length; ++i) put(sign.bytes[i]);
  if (!c.left && c.zero)
    for (i32 i = 0; i < missing; ++i) put('0');
  for (u32 i = 0; i < body.length; ++i) put(body.bytes[i]);
  if (c.left)
    for (i32 i = 0; i < missing; ++i) put(' ');
}

// ---- the format
template <class T> INLINE u64 printed(T x) { return (u64)(i64)x; }
INLINE u64 printed(u32 x) { return x; }
INLINE u64 printed(u64 x) { return x; }
INLINE u64 printed(f64 x) { return bits<u64>(x); }
template <class T> INLINE u64 printed(T* x) { return (u32)x; }

static inline i32 clamp(i64 x, i32 most) { return (i32)(x < most ? x : most); }
__attribute__((noinline)) static void print(const i8* f, const u64* argument) {
  while (*f) {
    if (*f != '%') {
      put((u8)*f++);
      continue;
    }
    Conversion c = {};
    c.precision = -1;
    c.size = 4;
    for (++f;; ++f) {
      if (*f == '-') c.left = true;
      else if (*f == '+') c.plus = true;
      else if (*f == ' ') c.space = true;
      else if (*f == '0') c.zero = true;
      else if (*f == '#') c.alternate = true;
      else break;
    }
    if (*f == '*') {
      const i64 given = (i32)*argument++;
      c.left |= given < 0;
      c.width = clamp(given < 0 ? -given : given, WIDTH_MAX);
      ++f;
    }
    for (; *f >= '0' && *f <= '9'; ++f) c.width = clamp(c.width * 10 + (*f - '0'), WIDTH_MAX);
    if (*f == '.') {
      c.precision = 0;
      if (*++f == '*') {
        c.precision = clamp((i32)*argument++, PRECISION_MAX);
        ++f;
      }
      for (; *f >= '0' && *f <= '9'; ++f) c.precision = clamp(c.precision * 10 + (*f - '0'), PRECISION_MAX);
    }
    for (; *f == 'h'; ++f) c.size /= 2;
    for (; *f == 'l' || *f == 'z' || *f == 'j' || *f == 't'; ++f) c.size = 8;
    c.letter = (u8)*f++;
    sign.length = body.length = 0;
    if (c.letter == '%') {
      put('%');
    } else if (c.letter == 's') {
      const i8* s = (const i8*)(u32)*argument++;
      u32 n = 0;
      while (n < LOG_BYTES && (c.precision < 0 || n < (u32)c.precision) && s[n]) ++n;
      for (i32 i = (i32)n; !c.left && i < c.width; ++i) put(' ');
      for (u32 i = 0; i < n; ++i) put((u8)s[i]);
      for (i32 i = (i32)n; c.left && i < c.width; ++i) put(' ');
    } else if (c.letter == 'c') {
      c.zero = false;
      body.add((u8)*argument++);
      pad(c);
    } else if (c.letter >= 'a' ? c.letter == 'a' || (c.letter >= 'e' && c.letter <= 'g') : c.letter != 'X') {
      format_double(*argument++, c);
      pad(c);
    } else {
      if (c.letter == 'p') c.size = 8;
      c.zero = c.zero && c.precision < 0;
      format_integer(*argument++, c);
      pad(c);
    }
  }
}
template <class... A> INLINE i32 printf(const i8* format, A... arguments) {
  const u64 list[] = {printed(arguments)..., 0};
  print(format, list);
  return sizeof...(A);
}

}  // namespace cuda

extern "C" __attribute__((export_name("log"))) cuda::Log* log() { return &cuda::the_log; }
