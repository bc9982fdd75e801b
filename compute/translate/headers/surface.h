// What CUDA source sees: every name that a kernel may use is declared here, and nothing else exists.
//
// Read by the front end only (clang, as CUDA for nvptx64), never by the code generator. Only declarations: device.h,
// runtime.h and coroutines.h implement each function and type under the same name, in the namespace cuda.
#pragma once

#define __global__ __attribute__((global))
#define __device__ __attribute__((device))
#define __host__ __attribute__((host))
#define __shared__ __attribute__((shared))
#define __constant__ __attribute__((constant))
#define __forceinline__ inline __attribute__((always_inline))
#define __inline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...) __attribute__((launch_bounds(__VA_ARGS__)))
#define __align__(n) __attribute__((aligned(n)))
#define __builtin_align__(n) __attribute__((aligned(n)))
#define __grid_constant__

#define __CUDACC__ 1
#define __CUDACC_RTC__ 1
#define __NVCC__ 1
#ifdef __CUDA_ARCH__
#undef __CUDA_ARCH__
#endif
#define __CUDA_ARCH__ 750
#define CUDART_VERSION 12000
#define __DEPIN__ 1

typedef unsigned long size_t;
typedef long ptrdiff_t;
typedef unsigned long uintptr_t;
typedef long intptr_t;
typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long int64_t;
typedef unsigned long uint64_t;
typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long ulong;

#define NULL nullptr
#define INFINITY __builtin_inff()
#define NAN __builtin_nanf("")
#define HUGE_VAL __builtin_inf()
#define CUDART_INF_F __builtin_inff()
#define CUDART_INF __builtin_inf()
#define CUDART_NAN_F __builtin_nanf("")
#define CUDART_NAN __builtin_nan("")
#define CUDART_PI_F 3.141592654f
#define CUDART_PI 3.1415926535897931e+0
#define M_E 2.7182818284590452354
#define M_LOG2E 1.4426950408889634074
#define M_LOG10E 0.43429448190325182765
#define M_LN2 0.69314718055994530942
#define M_LN10 2.30258509299404568402
#define M_PI 3.14159265358979323846
#define M_PI_2 1.57079632679489661923
#define M_PI_4 0.78539816339744830962
#define M_1_PI 0.31830988618379067154
#define M_2_PI 0.63661977236758134308
#define M_2_SQRTPI 1.12837916709551257390
#define M_SQRT2 1.41421356237309504880
#define M_SQRT1_2 0.70710678118654752440
#define FLT_MAX 3.402823466e+38f
#define FLT_MIN 1.175494351e-38f
#define FLT_EPSILON 1.192092896e-07f
#define DBL_MAX 1.7976931348623158e+308
#define DBL_MIN 2.2250738585072014e-308
#define DBL_EPSILON 2.2204460492503131e-016
#define CHAR_BIT 8
#define SCHAR_MIN (-128)
#define SCHAR_MAX 127
#define UCHAR_MAX 255
#define SHRT_MIN (-32768)
#define SHRT_MAX 32767
#define USHRT_MAX 65535
#define INT_MIN (-2147483647 - 1)
#define INT_MAX 2147483647
#define UINT_MAX 4294967295u
#define LONG_MIN (-9223372036854775807L - 1)
#define LONG_MAX 9223372036854775807L
#define ULONG_MAX 18446744073709551615ul
#define LLONG_MIN (-9223372036854775807LL - 1)
#define LLONG_MAX 9223372036854775807LL
#define ULLONG_MAX 18446744073709551615ull
#define INT8_MIN (-128)
#define INT8_MAX 127
#define UINT8_MAX 255
#define INT16_MIN (-32768)
#define INT16_MAX 32767
#define UINT16_MAX 65535
#define INT32_MIN (-2147483647 - 1)
#define INT32_MAX 2147483647
#define UINT32_MAX 4294967295u
#define INT64_MIN (-9223372036854775807L - 1)
#define INT64_MAX 9223372036854775807L
#define UINT64_MAX 18446744073709551615ul

#pragma clang attribute push(__attribute__((device)), apply_to = function)

// ---- vector types (CUDA C++ Programming Guide, "Built-in Vector Types": sizes and alignments)
#define VECTOR_(T, N, A2, A4)                           \
  struct N##1 { T x; };                                 \
  struct __attribute__((aligned(A2))) N##2 { T x, y; }; \
  struct N##3 { T x, y, z; };                           \
  struct __attribute__((aligned(A4))) N##4 { T x, y, z, w; }; \
  N##1 make_##N##1(T x);                                \
  N##2 make_##N##2(T x, T y);                           \
  N##3 make_##N##3(T x, T y, T z);                      \
  N##4 make_##N##4(T x, T y, T z, T w);
VECTOR_(signed char, char, 2, 4)
VECTOR_(unsigned char, uchar, 2, 4)
VECTOR_(short, short, 4, 8)
VECTOR_(unsigned short, ushort, 4, 8)
VECTOR_(int, int, 8, 16)
VECTOR_(unsigned int, uint, 8, 16)
VECTOR_(long, long, 16, 16)
VECTOR_(unsigned long, ulong, 16, 16)
VECTOR_(long long, longlong, 16, 16)
VECTOR_(unsigned long long, ulonglong, 16, 16)
VECTOR_(float, float, 8, 16)
VECTOR_(double, double, 16, 16)
#undef VECTOR_
struct dim3 {
  unsigned int x, y, z;
  constexpr dim3(unsigned int a = 1, unsigned int b = 1, unsigned int c = 1) : x(a), y(b), z(c) {}
};

// ---- the thread and its place
extern const __attribute__((device)) uint3 threadIdx;
extern const __attribute__((device)) uint3 blockIdx;
extern const __attribute__((device)) dim3 blockDim;
extern const __attribute__((device)) dim3 gridDim;
constexpr int warpSize = 32;

// ---- synchronisation
void __syncthreads();
int __syncthreads_count(int);
int __syncthreads_and(int);
int __syncthreads_or(int);
void __syncwarp(unsigned int mask = 0xffffffffu);
void __threadfence();
void __threadfence_block();
void __threadfence_system();
[[noreturn]] void __trap();
int printf(const char*, ...);
#define assert(e) ((e) ? (void)0 : __trap())
unsigned int __ballot_sync(unsigned int, int);
int __any_sync(unsigned int, int);
int __all_sync(unsigned int, int);
#define SHUFFLE_(T)                                                     \
  T __shfl_sync(unsigned int, T, int, int width = 32);                  \
  T __shfl_up_sync(unsigned int, T, unsigned int, int width = 32);      \
  T __shfl_down_sync(unsigned int, T, unsigned int, int width = 32);    \
  T __shfl_xor_sync(unsigned int, T, int, int width = 32);
SHUFFLE_(int)
SHUFFLE_(unsigned int)
SHUFFLE_(long)
SHUFFLE_(unsigned long)
SHUFFLE_(long long)
SHUFFLE_(unsigned long long)
SHUFFLE_(float)
SHUFFLE_(double)
#undef SHUFFLE_

// ---- atomics
#define ATOMIC_(N, T) T N(T*, T);
ATOMIC_(atomicAdd, int) ATOMIC_(atomicAdd, unsigned int) ATOMIC_(atomicAdd, unsigned long long)
ATOMIC_(atomicAdd, float) ATOMIC_(atomicAdd, double)
ATOMIC_(atomicSub, int) ATOMIC_(atomicSub, unsigned int)
ATOMIC_(atomicExch, int) ATOMIC_(atomicExch, unsigned int) ATOMIC_(atomicExch, unsigned long long)
ATOMIC_(atomicExch, float)
ATOMIC_(atomicMin, int) ATOMIC_(atomicMin, unsigned int) ATOMIC_(atomicMin, unsigned long long) ATOMIC_(atomicMin, long long)
ATOMIC_(atomicMax, int) ATOMIC_(atomicMax, unsigned int) ATOMIC_(atomicMax, unsigned long long) ATOMIC_(atomicMax, long long)
ATOMIC_(atomicAnd, int) ATOMIC_(atomicAnd, unsigned int) ATOMIC_(atomicAnd, unsigned long long)
ATOMIC_(atomicOr, int) ATOMIC_(atomicOr, unsigned int) ATOMIC_(atomicOr, unsigned long long)
ATOMIC_(atomicXor, int) ATOMIC_(atomicXor, unsigned int) ATOMIC_(atomicXor, unsigned long long)
ATOMIC_(atomicInc, unsigned int) ATOMIC_(atomicDec, unsigned int)
#undef ATOMIC_
int atomicCAS(int*, int, int);
unsigned int atomicCAS(unsigned int*, unsigned int, unsigned int);
unsigned long long atomicCAS(unsigned long long*, unsigned long long, unsigned long long);
unsigned short atomicCAS(unsigned short*, unsigned short, unsigned short);

#define atomicAdd_block atomicAdd
#define atomicSub_block atomicSub
#define atomicExch_block atomicExch
#define atomicMin_block atomicMin
#define atomicMax_block atomicMax
#define atomicAnd_block atomicAnd
#define atomicOr_block atomicOr
#define atomicXor_block atomicXor
#define atomicInc_block atomicInc
#define atomicDec_block atomicDec
#define atomicCAS_block atomicCAS
#define atomicAdd_system atomicAdd
#define atomicExch_system atomicExch
#define atomicMin_system atomicMin
#define atomicMax_system atomicMax
#define atomicCAS_system atomicCAS

// ---- loads and stores with cache hints: plain ones here
#define LOAD_(N) template <class T> T N(const T* p);
LOAD_(__ldg) LOAD_(__ldcg) LOAD_(__ldca) LOAD_(__ldcs) LOAD_(__ldlu) LOAD_(__ldcv)
#undef LOAD_
#define STORE_(N) template <class T> void N(T* p, T v);
STORE_(__stwb) STORE_(__stcg) STORE_(__stcs) STORE_(__stwt)
#undef STORE_

// ---- integers
int abs(int);
long abs(long);
long long abs(long long);
long labs(long);
long long llabs(long long);
#define LEAST_(N)                                             \
  int N(int, int);                                            \
  unsigned int N(unsigned int, unsigned int);                 \
  unsigned int N(int, unsigned int);                          \
  unsigned int N(unsigned int, int);                          \
  long N(long, long);                                         \
  unsigned long N(unsigned long, unsigned long);              \
  unsigned long N(long, unsigned long);                       \
  unsigned long N(unsigned long, long);                       \
  long long N(long long, long long);                          \
  unsigned long long N(unsigned long long, unsigned long long); \
  unsigned long long N(long long, unsigned long long);        \
  unsigned long long N(unsigned long long, long long);        \
  float N(float, float);                                      \
  double N(double, double);                                   \
  double N(float, double);                                    \
  double N(double, float);
LEAST_(min) LEAST_(max)
#undef LEAST_
int __popc(unsigned int);
int __popcll(unsigned long long);
int __clz(int);
int __clzll(long long);
int __ffs(int);
int __ffsll(long long);
unsigned int __brev(unsigned int);
unsigned long long __brevll(unsigned long long);
int __mulhi(int, int);
unsigned int __umulhi(unsigned int, unsigned int);
long long __mul64hi(long long, long long);
unsigned long long __umul64hi(unsigned long long, unsigned long long);
int __mul24(int, int);
unsigned int __umul24(unsigned int, unsigned int);
unsigned int __sad(int, int, unsigned int);
unsigned int __usad(unsigned int, unsigned int, unsigned int);
int __hadd(int, int);
int __rhadd(int, int);
unsigned int __uhadd(unsigned int, unsigned int);
unsigned int __urhadd(unsigned int, unsigned int);
unsigned int __byte_perm(unsigned int, unsigned int, unsigned int);
unsigned int __funnelshift_l(unsigned int, unsigned int, unsigned int);
unsigned int __funnelshift_r(unsigned int, unsigned int, unsigned int);
unsigned int __funnelshift_lc(unsigned int, unsigned int, unsigned int);
unsigned int __funnelshift_rc(unsigned int, unsigned int, unsigned int);
int __dp4a(int, int, int);
unsigned int __dp4a(unsigned int, unsigned int, unsigned int);
int __dp4a(char4, char4, int);
unsigned int __dp4a(uchar4, uchar4, unsigned int);
int __dp2a_lo(int, int, int);
int __dp2a_hi(int, int, int);
unsigned int __dp2a_lo(unsigned int, unsigned int, unsigned int);
unsigned int __dp2a_hi(unsigned int, unsigned int, unsigned int);
unsigned int umin(unsigned int, unsigned int);
unsigned int umax(unsigned int, unsigned int);
long long llmin(long long, long long);
long long llmax(long long, long long);
unsigned long long ullmin(unsigned long long, unsigned long long);
unsigned long long ullmax(unsigned long long, unsigned long long);

// ---- bits of floats, conversions
int __float_as_int(float);
unsigned int __float_as_uint(float);
float __int_as_float(int);
float __uint_as_float(unsigned int);
long long __double_as_longlong(double);
double __longlong_as_double(long long);
int __double2hiint(double);
int __double2loint(double);
double __hiloint2double(int, int);
#define CONVERT_(F, T, S, N) T __##F##2##N##_rn(S); T __##F##2##N##_rz(S); T __##F##2##N##_ru(S); T __##F##2##N##_rd(S);
CONVERT_(float, int, float, int) CONVERT_(float, unsigned int, float, uint)
CONVERT_(float, long long, float, ll) CONVERT_(float, unsigned long long, float, ull)
CONVERT_(double, int, double, int) CONVERT_(double, unsigned int, double, uint)
CONVERT_(double, long long, double, ll) CONVERT_(double, unsigned long long, double, ull)
#undef CONVERT_
float __int2float_rn(int x);
float __uint2float_rn(unsigned int x);
float __ll2float_rn(long long x);
float __ull2float_rn(unsigned long long x);
double __int2double_rn(int x);
double __uint2double_rn(unsigned int x);
double __ll2double_rn(long long x);
double __ull2double_rn(unsigned long long x);
float __double2float_rn(double x);

// ---- what headers/library is made of
unsigned short __half_bits_rn(float);
unsigned short __half_bits_rn(double);
unsigned short __half_bits_rz(double);
unsigned short __half_bits_ru(double);
unsigned short __half_bits_rd(double);
float __half_value(unsigned short);
unsigned short atomicAdd_half(unsigned short*, unsigned short);
float atomicMax_(float*, float);
float atomicMin_(float*, float);
double atomicMax_(double*, double);
double atomicMin_(double*, double);

// ---- arithmetic with a named rounding
#define ROUNDED_(R)                                                                                             \
  float __fadd_##R(float, float); float __fsub_##R(float, float); float __fmul_##R(float, float);               \
  float __fdiv_##R(float, float); float __frcp_##R(float); float __fsqrt_##R(float);                            \
  float __fmaf_##R(float, float, float); double __dadd_##R(double, double); double __dsub_##R(double, double);  \
  double __dmul_##R(double, double); double __ddiv_##R(double, double); double __drcp_##R(double);              \
  double __dsqrt_##R(double); double __fma_##R(double, double, double); float __double2float_##R(double);       \
  float __int2float_##R(int); float __uint2float_##R(unsigned int); float __ll2float_##R(long long);            \
  float __ull2float_##R(unsigned long long); double __ll2double_##R(long long);                                 \
  double __ull2double_##R(unsigned long long);
ROUNDED_(rz) ROUNDED_(ru) ROUNDED_(rd)
#undef ROUNDED_
float __fadd_rn(float a, float b);
float __fsub_rn(float a, float b);
float __fmul_rn(float a, float b);
float __fdiv_rn(float a, float b);
float __frcp_rn(float a);
float __fsqrt_rn(float);
float __frsqrt_rn(float);
float __fmaf_rn(float, float, float);
double __dadd_rn(double a, double b);
double __dsub_rn(double a, double b);
double __dmul_rn(double a, double b);
double __ddiv_rn(double a, double b);
double __drcp_rn(double a);
double __dsqrt_rn(double);
double __fma_rn(double, double, double);
float __fdividef(float a, float b);
float fdividef(float a, float b);
float __saturatef(float);
float __expf(float);
float __exp10f(float);
float __logf(float);
float __log2f(float);
float __log10f(float);
float __sinf(float);
float __cosf(float);
float __tanf(float);
float __powf(float, float);
void __sincosf(float, float*, float*);

// ---- maths: f for float, plain for double, and the plain name for float and for integers as C++ has it
template <class T> struct Integral_ {};
template <class T, class U, class = typename Integral_<T>::Double> struct Both_ : Integral_<U> {};
#define INTEGRAL_(T) template <> struct Integral_<T> { typedef double Double; };
INTEGRAL_(bool) INTEGRAL_(char) INTEGRAL_(signed char) INTEGRAL_(unsigned char) INTEGRAL_(short) INTEGRAL_(unsigned short)
INTEGRAL_(int) INTEGRAL_(unsigned int) INTEGRAL_(long) INTEGRAL_(unsigned long) INTEGRAL_(long long)
INTEGRAL_(unsigned long long)
#undef INTEGRAL_
#define MATHS1_(N)    \
  float N##f(float);  \
  double N(double);   \
  float N(float x); \
  template <class T> typename Integral_<T>::Double N(T x);
MATHS1_(sqrt) MATHS1_(rsqrt) MATHS1_(cbrt) MATHS1_(rcbrt)
MATHS1_(exp) MATHS1_(exp2) MATHS1_(exp10) MATHS1_(expm1) MATHS1_(log) MATHS1_(log2) MATHS1_(log10) MATHS1_(log1p)
MATHS1_(sin) MATHS1_(cos) MATHS1_(tan) MATHS1_(asin) MATHS1_(acos) MATHS1_(atan)
MATHS1_(sinh) MATHS1_(cosh) MATHS1_(tanh) MATHS1_(asinh) MATHS1_(acosh) MATHS1_(atanh)
MATHS1_(erf) MATHS1_(erfc) MATHS1_(fabs) MATHS1_(floor) MATHS1_(ceil) MATHS1_(trunc) MATHS1_(rint) MATHS1_(round)
MATHS1_(nearbyint) MATHS1_(sinpi) MATHS1_(cospi) MATHS1_(tgamma) MATHS1_(lgamma) MATHS1_(erfcx) MATHS1_(erfinv)
MATHS1_(erfcinv) MATHS1_(normcdf) MATHS1_(normcdfinv) MATHS1_(cyl_bessel_i0) MATHS1_(cyl_bessel_i1) MATHS1_(logb)
#undef MATHS1_
#define MATHS2_(N)           \
  float N##f(float, float);  \
  double N(double, double);  \
  float N(float x, float y);                    \
  double N(float x, double y);             \
  double N(double x, float y);             \
  template <class T> typename Integral_<T>::Double N(T x, double y); \
  template <class T> typename Integral_<T>::Double N(double x, T y); \
  template <class T> typename Integral_<T>::Double N(T x, float y); \
  template <class T> typename Integral_<T>::Double N(float x, T y); \
  template <class T, class U> typename Both_<T, U>::Double N(T x, U y);
MATHS2_(pow) MATHS2_(atan2) MATHS2_(fmod) MATHS2_(hypot) MATHS2_(copysign) MATHS2_(fmax) MATHS2_(fmin) MATHS2_(fdim)
MATHS2_(remainder) MATHS2_(nextafter) MATHS2_(rhypot)
#undef MATHS2_
float j0f(float); float j1f(float); float y0f(float); float y1f(float); float jnf(int, float); float ynf(int, float);
double j0(double); double j1(double); double y0(double); double y1(double); double jn(int, double); double yn(int, double);
float norm3df(float, float, float);
float norm4df(float, float, float, float);
float rnorm3df(float, float, float);
float rnorm4df(float, float, float, float);
float normf(int, const float*);
float rnormf(int, const float*);
double norm3d(double, double, double);
double norm4d(double, double, double, double);
double rnorm3d(double, double, double);
double rnorm4d(double, double, double, double);
double norm(int, const double*);
double rnorm(int, const double*);
float remquof(float, float, int*);
double remquo(double, double, int*);
float remquo(float x, float y, int* n);
int ilogbf(float);
int ilogb(double);
int ilogb(float x);
void sincospif(float, float*, float*);
void sincospi(double, double*, double*);
void sincospi(float x, float* s, float* c);
float scalblnf(float, long);
double scalbln(double, long);
long long llroundf(float);
long long llround(double);
long lrint(float x);
long lround(float x);
long long llrint(float x);
long long llround(float x);
float pow(float x, int y);
float abs(float x);
double abs(double x);
float fmaf(float, float, float);
double fma(double, double, double);
float fma(float a, float b, float c);
float ldexpf(float, int);
double ldexp(double, int);
float ldexp(float x, int n);
float scalbnf(float x, int n);
double scalbn(double x, int n);
float frexpf(float, int*);
double frexp(double, int*);
float frexp(float x, int* e);
float modff(float, float*);
double modf(double, double*);
float modf(float x, float* i);
void sincosf(float, float*, float*);
void sincos(double, double*, double*);
void sincos(float x, float* s, float* c);
long lrintf(float);
long lrint(double);
long lroundf(float);
long lround(double);
long long llrintf(float);
long long llrint(double);
double nan(const char*);
float nanf(const char*);
bool isnan(float);
bool isnan(double);
bool isinf(float);
bool isinf(double);
bool isfinite(float);
bool isfinite(double);
bool signbit(float);
bool signbit(double);

namespace std {
  using ::sqrt; using ::cbrt; using ::exp; using ::exp2; using ::expm1; using ::log; using ::log2; using ::log10;
  using ::log1p; using ::sin; using ::cos; using ::tan; using ::asin; using ::acos; using ::atan; using ::sinh;
  using ::cosh; using ::tanh; using ::asinh; using ::acosh; using ::atanh; using ::erf; using ::erfc; using ::fabs;
  using ::floor; using ::ceil; using ::trunc; using ::rint; using ::round; using ::nearbyint; using ::tgamma;
  using ::lgamma; using ::logb; using ::pow; using ::atan2; using ::fmod; using ::hypot; using ::copysign; using ::fmax;
  using ::fmin; using ::fdim; using ::remainder; using ::nextafter; using ::remquo; using ::abs; using ::fma;
  using ::ldexp; using ::scalbn; using ::frexp; using ::modf; using ::ilogb; using ::lrint; using ::lround;
  using ::llrint; using ::llround; using ::isnan; using ::isinf; using ::isfinite; using ::signbit;
using ::size_t; using ::ptrdiff_t; using ::int8_t; using ::uint8_t; using ::int16_t; using ::uint16_t; using ::int32_t;
using ::uint32_t; using ::int64_t; using ::uint64_t;
}  // namespace std

#pragma clang attribute pop
