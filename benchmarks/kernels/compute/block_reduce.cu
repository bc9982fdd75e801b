// One partial sum a block; the caller adds up those of all blocks.
extern "C" __global__ void block_reduce(const float* x, float* out, int n) {
    extern __shared__ float s[];
    unsigned int tid = threadIdx.x;
    unsigned int i = blockIdx.x * blockDim.x + threadIdx.x;
    float v = 0.0f;
    for (; i < n; i += blockDim.x * gridDim.x) v += x[i];
    s[tid] = v;
    __syncthreads();
    for (unsigned int k = blockDim.x / 2; k > 0; k >>= 1) {
        if (tid < k) s[tid] += s[tid + k];
        __syncthreads();
    }
    if (tid == 0) out[blockIdx.x] = s[0];
}
