// Votes over warps and blocks, shuffles of every kind, a last warp that is not full.
extern "C" __global__ void votes(const int* x, unsigned int* out, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    int v = i < n ? x[i] : -1;
    unsigned int mask = __ballot_sync(0xffffffffu, v > 0);
    unsigned int h = mask;
    h = h * 31 + __any_sync(0xffffffffu, v > 90) * 2 + __all_sync(0xffffffffu, v >= 0);
    h = h * 31 + __syncthreads_count(v & 1) + __syncthreads_or(v == 17) * 1000 + __syncthreads_and(v < 100) * 2000;
    h = h * 31 + __shfl_sync(0xffffffffu, v, 3, 8);
    h = h * 31 + __shfl_up_sync(0xffffffffu, v, 2);
    h = h * 31 + __shfl_down_sync(0xffffffffu, v, 5, 16);
    h = h * 31 + __shfl_xor_sync(0xffffffffu, v, 9);
    __syncwarp();
    if ((threadIdx.x & 31) < 16) h += __shfl_xor_sync(0x0000ffffu, v, 1) * 7;
    out[i] = h;
}
