// Shuffles and a barrier inside device functions, one of them a template; shared memory of a device function.
template <typename T> __inline__ __device__ T warp_sum(T v) {
    for (int o = warpSize / 2; o > 0; o >>= 1) v += __shfl_down_sync(0xffffffff, v, o);
    return v;
}
template <typename T> __inline__ __device__ T block_sum(T v) {
    static __shared__ T sums[32];
    int lane = threadIdx.x % warpSize, warp = threadIdx.x / warpSize;
    v = warp_sum(v);
    if (lane == 0) sums[warp] = v;
    __syncthreads();
    v = threadIdx.x < blockDim.x / warpSize ? sums[lane] : 0;
    if (warp == 0) v = warp_sum(v);
    return v;
}
extern "C" __global__ void reduce_shuffle(const double* x, double* out, long long* counts, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    double total = block_sum(i < n ? x[i] : 0.0);
    long long count = block_sum((long long)(i < n && x[i] > 0.5));
    if (threadIdx.x == 0) {
        out[blockIdx.x] = total;
        counts[blockIdx.x] = count;
    }
}
