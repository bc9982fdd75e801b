// Lambdas: captures by value and by reference, generic ones, handed to templates, in a method, around shared memory.
template <class F> __device__ float integrate(F f, float from, float to, int steps) {
    float sum = 0, width = (to - from) / steps;
    for (int i = 0; i < steps; ++i) sum += f(from + width * i);
    return sum * width;
}
template <class T, class F> __device__ T fold(const T* x, int n, T start, F&& combine) {
    for (int i = 0; i < n; ++i) start = combine(start, x[i]);
    return start;
}
struct Line {
    float slope, offset;
    __device__ float area(float to) const {
        return integrate([this](float x) { return slope * x + offset; }, 0.0f, to, 4);
    }
};
template <class T> __device__ T scaled(T x) {
    const T two = 2;
    auto twice = [&](T y) { return two * y + x; };
    return twice(x);
}
__global__ void lambdas(const float* x, float* y, int n) {
    const int rows = 4;
    int i = blockIdx.x * blockDim.x + threadIdx.x, calls = 0;
    if (i >= n) return;
    float local[rows] = {x[i], 1.0f, 2.0f};
    auto square = [](float v) { return v * v; };
    float one = local[1];
    auto shifted = [=](float v) mutable { calls += 5; return square(v) + one + rows + calls; };
    auto count = [&](auto v) { ++calls; local[3] += v; return v; };
    float parabola = integrate([&](float v) { ++calls; return square(v) * x[i]; }, 0.0f, 1.0f, 8);
    count(1);
    count(0.5f);
    Line line = {x[i], 0.25f};
    float most = fold(local, rows, local[0], [](float a, float b) { return a > b ? a : b; });
    y[i] = parabola + shifted(x[i]) + line.area(2.0f) + most + calls * 100 + scaled(x[i]) + scaled(i % 3);
}
