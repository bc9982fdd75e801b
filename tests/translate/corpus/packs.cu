// Variadic templates, functions as template arguments, static members, constexpr functions.
__device__ float square(float x) { return x * x; }
__device__ float half_of(float x) { return x * 0.5f; }
template <float (*F)(float)> __device__ float apply(float x) { return F(x); }
template <float (*F)(float), float (*G)(float), int N> struct Chain {
    static __device__ float run(float x) {
        for (int i = 0; i < N; ++i) x = G(F(x));
        return x;
    }
};
__host__ __device__ constexpr int power(int base, int exponent) { return exponent ? base * power(base, exponent - 1) : 1; }
template <class... T> __device__ int count(T... values) { return sizeof...(T) + sizeof...(values); }
template <class... T> __device__ float total(T... values) { return (0.0f + ... + values); }
template <class T> __device__ T largest(T a) { return a; }
template <class T, class... R> __device__ T largest(T a, R... rest) {
    const T b = largest(rest...);
    return a > b ? a : b;
}
struct Settings {
    static constexpr int width = power(2, 3);
    static constexpr float weights[3] = {0.5f, 0.25f, 0.125f};
    static const int offset = width + 1;
    enum { last = width - 1 };
};
template <int N> struct Filter {
    static constexpr float gain = 1.0f / N;
    float taps[power(N, 1)];
    __device__ float sum() const { float s = 0; for (float t : taps) s += t; return s * gain; }
};
constexpr int BIG = power(3, 4);
__global__ void packs(const float* x, float* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    Filter<4> filter = {{x[i], 1, 2, 3}};
    __shared__ float tile[power(2, 7)];
    tile[threadIdx.x] = x[i];
    y[i] = apply<square>(x[i]) + apply<half_of>(x[i]) + Chain<&square, half_of, 2>::run(x[i]) + count(1, 2.0f, 'a') +
           count() + total(1, x[i], 2.0) + largest(1, i % 7, 3) + Settings::weights[i % 3] * Settings::width +
           Settings::offset + Settings::last + filter.sum() + BIG + tile[threadIdx.x];
}
