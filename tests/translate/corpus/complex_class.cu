// Constructors, conversions, free operators, in a namespace.
namespace maths {
struct Complex {
    float re, im;
    __device__ Complex(float r = 0, float i = 0) : re(r), im(i) {}
    __device__ explicit operator bool() const { return re != 0 || im != 0; }
    __device__ float norm() const { return re * re + im * im; }
};
__device__ inline Complex operator*(const Complex& a, const Complex& b) {
    return Complex(a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re);
}
__device__ inline Complex operator+(Complex a, Complex b) { return {a.re + b.re, a.im + b.im}; }
}
using maths::Complex;
extern "C" __global__ void complex_class(const float2* z, float2* out, float* norms, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    Complex c(z[i].x, z[i].y), power = 1.0f, sum;
    for (int k = 0; k < 4; ++k) {
        sum = sum + power;
        power = power * c;
    }
    if (!sum) sum = Complex(-1.0f);
    out[i] = make_float2(sum.re, sum.im);
    norms[i] = (power * power).norm();
}
