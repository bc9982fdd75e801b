// One partial sum a block, by warp shuffles; the caller adds up those of all blocks.
__inline__ __device__ float warpReduceSum(float v) {
    for (int o = warpSize / 2; o > 0; o >>= 1) v += __shfl_down_sync(0xffffffff, v, o);
    return v;
}

__inline__ __device__ float blockReduceSum(float v) {
    static __shared__ float sh[32];
    int lane = threadIdx.x % warpSize, wid = threadIdx.x / warpSize;
    v = warpReduceSum(v);
    if (lane == 0) sh[wid] = v;
    __syncthreads();
    v = (threadIdx.x < blockDim.x / warpSize) ? sh[lane] : 0;
    if (wid == 0) v = warpReduceSum(v);
    return v;
}

extern "C" __global__ void shuffle_reduce(const float* x, float* out, int n) {
    float v = 0.0f;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += blockDim.x * gridDim.x) v += x[i];
    v = blockReduceSum(v);
    if (threadIdx.x == 0) out[blockIdx.x] = v;
}
