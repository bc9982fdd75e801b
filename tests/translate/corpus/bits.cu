// Integer intrinsics.
extern "C" __global__ void bits(const unsigned int* x, const unsigned int* y, unsigned long long* out, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    unsigned int a = x[i], b = y[i];
    unsigned long long w = (unsigned long long)a << 32 | b, h = 0;
    h = h * 31 + __popc(a) + __popcll(w);
    h = h * 31 + __clz((int)a) + __clzll((long long)w) + __ffs((int)b) + __ffsll((long long)w);
    h = h * 31 + __brev(a) + __brevll(w);
    h = h * 31 + (unsigned int)__mulhi((int)a, (int)b) + __umulhi(a, b);
    h = h * 31 + __umul64hi(w, ~w) + (unsigned long long)__mul64hi((long long)w, (long long)~w + 12345);
    h = h * 31 + __byte_perm(a, b, 0x5140 ^ (a & 0x7777)) + __funnelshift_l(a, b, a & 31) + __funnelshift_r(a, b, b & 31);
    h = h * 31 + __usad(a, b, 5u) + __uhadd(a, b) + __urhadd(a, b) + (unsigned int)__hadd((int)a, (int)b);
    h = h * 31 + __umul24(a, b) + min(a, b) + (unsigned int)max((int)a, (int)b) + abs((int)b);
    out[i] = h;
}
