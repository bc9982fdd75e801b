#include <type_traits>
#include <limits>
template <class T> __device__ T middle(T a, T b) {
  if constexpr (std::is_floating_point<T>::value) return (a + b) * T(0.5);
  else return a + (b - a) / 2;
}
template <class T, std::enable_if_t<std::is_integral_v<T>, int> = 0> __device__ int kind(T) { return 1; }
template <class T, std::enable_if_t<!std::is_integral_v<T>, int> = 0> __device__ int kind(T) { return 2; }
extern "C" __global__ void type_traits(const int* x, const float* y, float* o, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  int a = middle(x[i], x[i] + 10), b = 3;
  std::swap(a, b);
  typedef std::conditional<std::is_same<int, float>::value, int, float>::type real;
  const real limit = std::numeric_limits<int>::max() > 5 ? 1 : 0;
  o[i] = middle(y[i], 1.0f) + a + b + 100 * kind(x[i]) + 1000 * kind(y[i]) + limit;
}
