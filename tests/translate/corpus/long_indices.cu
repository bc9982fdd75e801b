// Indices above 2^31 elements, computed in 64 bits from 32-bit parts, that come back into the array.
__global__ void long_indices(const unsigned char* x, long long* y, int n, long long stride) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const size_t wide = (size_t)i * stride + 12345;
    const long long row = (long long)(blockIdx.x + 70000) * 70000 * blockDim.x;
    const unsigned long long u = 4000000000u + (unsigned long long)i * 3;
    y[4 * (size_t)i] = wide;
    y[4 * i + 1] = row + (wide >> 40);
    y[4 * i + 2] = x[wide % n] + x[(size_t)(u - 4000000000u) / 3];
    y[4 * i + 3] = (long long)(&x[wide - (size_t)i * stride] - x) + (int)u;
}
