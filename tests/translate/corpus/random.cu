// Philox 4x32-10 (Salmon and others, 2011): wrapping arithmetic, and a sum in a fixed order.
__device__ uint4 philox(uint4 c, uint2 k) {
    for (int r = 0; r < 10; ++r) {
        unsigned int h0 = __umulhi(0xD2511F53u, c.x), l0 = 0xD2511F53u * c.x;
        unsigned int h1 = __umulhi(0xCD9E8D57u, c.z), l1 = 0xCD9E8D57u * c.z;
        c = make_uint4(h1 ^ c.y ^ k.x, l1, h0 ^ c.w ^ k.y, l0);
        k.x += 0x9E3779B9u;
        k.y += 0xBB67AE85u;
    }
    return c;
}
extern "C" __global__ void random(unsigned int* raw, float* pi, unsigned long long seed, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int inside = 0, overflow = 0x7fffff00 + i;
    for (int k = 0; k < 32; ++k) {
        uint4 r = philox(make_uint4(i, k, 0, 0), make_uint2((unsigned int)seed, (unsigned int)(seed >> 32)));
        float x = r.x * 2.3283064e-10f, y = r.y * 2.3283064e-10f;
        inside += x * x + y * y < 1.0f;
        if (k == 7) raw[i] = r.w ^ (unsigned int)(overflow + 1000);
    }
    pi[i] = inside / 8.0f;
}
