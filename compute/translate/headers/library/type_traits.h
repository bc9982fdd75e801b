// <type_traits>, <utility>: what kernels use of them.
#pragma once
#pragma clang attribute push(__attribute__((device)), apply_to = function)

namespace std {
template <class T, T v> struct integral_constant {
  static constexpr T value = v;
  typedef T value_type;
  typedef integral_constant type;
  constexpr operator T() const { return v; }
};
template <bool b> using bool_constant = integral_constant<bool, b>;
typedef bool_constant<true> true_type;
typedef bool_constant<false> false_type;
template <bool, class T, class F> struct conditional { typedef T type; };
template <class T, class F> struct conditional<false, T, F> { typedef F type; };
template <bool, class T = void> struct enable_if {};
template <class T> struct enable_if<true, T> { typedef T type; };
template <class T> struct remove_const { typedef T type; };
template <class T> struct remove_const<const T> { typedef T type; };
template <class T> struct remove_volatile { typedef T type; };
template <class T> struct remove_volatile<volatile T> { typedef T type; };
template <class T> struct remove_cv { typedef typename remove_volatile<typename remove_const<T>::type>::type type; };
template <class T> struct remove_reference { typedef T type; };
template <class T> struct remove_reference<T&> { typedef T type; };
template <class T> struct remove_reference<T&&> { typedef T type; };
template <class T> struct remove_pointer { typedef T type; };
template <class T> struct remove_pointer<T*> { typedef T type; };
template <class T> struct decay { typedef typename remove_cv<typename remove_reference<T>::type>::type type; };
template <class T> struct make_unsigned { typedef __make_unsigned(T) type; };
template <class T> struct make_signed { typedef __make_signed(T) type; };
template <class T> struct type_identity { typedef T type; };
template <class T, class U> struct is_same : integral_constant<bool, __is_same(T, U)> {};
#define TRAIT_(N, E) template <class T> struct N : integral_constant<bool, E> {};
TRAIT_(is_void, __is_void(T)) TRAIT_(is_integral, __is_integral(T)) TRAIT_(is_floating_point, __is_floating_point(T))
TRAIT_(is_arithmetic, __is_arithmetic(T)) TRAIT_(is_signed, __is_signed(T)) TRAIT_(is_unsigned, __is_unsigned(T))
TRAIT_(is_const, __is_const(T)) TRAIT_(is_pointer, __is_pointer(T)) TRAIT_(is_reference, __is_reference(T))
TRAIT_(is_enum, __is_enum(T)) TRAIT_(is_class, __is_class(T)) TRAIT_(is_trivially_copyable, __is_trivially_copyable(T))
#undef TRAIT_
template <bool b, class T = void> using enable_if_t = typename enable_if<b, T>::type;
template <bool b, class T, class F> using conditional_t = typename conditional<b, T, F>::type;
#define TYPE_(N) template <class T> using N##_t = typename N<T>::type;
TYPE_(remove_const) TYPE_(remove_volatile) TYPE_(remove_cv) TYPE_(remove_reference) TYPE_(remove_pointer) TYPE_(decay)
TYPE_(make_unsigned) TYPE_(make_signed)
#undef TYPE_
template <class T> constexpr typename remove_reference<T>::type&& move(T&& x) {
  return static_cast<typename remove_reference<T>::type&&>(x);
}
template <class T> constexpr T&& forward(typename remove_reference<T>::type& x) { return static_cast<T&&>(x); }
template <class T> void swap(T& a, T& b) {
  T c = a;
  a = b;
  b = c;
}
#if __cplusplus >= 201402L
template <class T, class U> constexpr bool is_same_v = __is_same(T, U);
template <class T> constexpr bool is_integral_v = __is_integral(T);
template <class T> constexpr bool is_floating_point_v = __is_floating_point(T);
template <class T> constexpr bool is_arithmetic_v = __is_arithmetic(T);
template <class T> constexpr bool is_signed_v = __is_signed(T);
template <class T> constexpr bool is_unsigned_v = __is_unsigned(T);
#endif
}  // namespace std

#pragma clang attribute pop
