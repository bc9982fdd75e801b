// Floats to integers saturate and NaN is 0; the small integer types wrap, promote and come back.
extern "C" __global__ void conversions(const float* x, const double* d, int* a, unsigned int* b, long long* c, unsigned char* e, short* f, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    a[i] = (int)x[i];
    b[i] = (unsigned int)d[i];
    c[i] = (long long)d[i] + __float2int_rn(0.0f * i + 2.5f) + __double2int_ru(1.25) + __float2ll_rd(-1.5f);
    unsigned char u = (unsigned char)i;
    u += 250; u *= 3; u <<= 1; u -= 7;
    e[i] = u;
    short s = (short)(i * 12345);
    s >>= 2; s = -s; s |= 1;
    f[i] = s;
    int scaled = 10;
    scaled *= 2.55f; scaled += 0.75; scaled -= 1e30f * (x[i] > 1e9f);
    a[i] ^= scaled;
    bool flag = x[i];
    b[i] += flag + (x[i] != x[i] ? 0x100u : 0u);
}
