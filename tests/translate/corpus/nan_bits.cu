// The bits of a NaN are the canonical ones wherever they can be seen.
union Bits { float f; int i; unsigned short h[2]; };
extern "C" __global__ void nan_bits(const float* x, const float* y, int* out, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float q = x[i] / y[i];
    Bits u;
    u.f = -q;
    int viaunion = u.i ^ u.h[1];
    int pointer = *(int*)&q;
    float minus = -q;
    int reference = reinterpret_cast<int&>(minus);
    out[i] = __float_as_int(-q) * 3 + viaunion * 5 + pointer * 7 + reference * 11 + (int)(__double_as_longlong((double)-q) >> 32);
}
