// long and size_t have 64 bits on a device.
struct Pair { long a; int b; };
extern "C" __global__ void wide_integers(const long* x, unsigned long* out, size_t n, long shift) {
    size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x;
    if (i >= n) return;
    long v = x[i] * 3000000007L + shift;
    const long* p = x + i;
    ptrdiff_t back = p - x;
    unsigned long u = (unsigned long)v >> 7;
    u ^= sizeof(long) * 1000 + sizeof(Pair) * 10 + sizeof(size_t);
    u += (unsigned long)(v < 0 ? -1L : 1L) + back;
    u ^= (1UL << 40) + (sizeof(int) - 8) / 3;
    out[i] = u;
}
