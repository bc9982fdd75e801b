// Qualifiers, hints and small functions that kernels are sprinkled with.
#define CHECK(e) do { if (!(e)) __trap(); } while (0)
__device__ __forceinline__ float load(const float* __restrict__ p, size_t i) { return __ldg(p + i); }
static __device__ __noinline__ int clamp_to(int v, int low, int high) { return min(max(v, low), high); }
template <typename T> __device__ inline T lerp_of(const T& a, const T& b, T t) { return a + t * (b - a); }
extern "C" __global__ void __launch_bounds__(128, 2) qualifiers(const float* __restrict__ x, float* __restrict__ y, const unsigned int n) {
    const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (__builtin_expect(i >= n, 0)) return;
    assert(i < n && "in range");
    CHECK(n > 0);
    volatile float v = load(x, i);
    int bits = __popc((unsigned)i) + __builtin_popcount(i) + __ffs(i + 1) + __clz((int)n);
    float4 four = make_float4(v, 1, 2, 3);
    int a = clamp_to(bits, 5, 9), b = 2;
    y[i] = lerp_of(four.x, four.w, 0.25f) + min(i, (size_t)5) + max(3u, (unsigned)i % 4) + fminf(v, 0.5f) + a + b + fmaxf(-v, v);
}
