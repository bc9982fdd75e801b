// Dynamic shared memory, a grid-stride loop, a tree with barriers.
extern __shared__ float partial[];
extern "C" __global__ void reduce_dynamic(const float* x, float* out, int n) {
    unsigned int tid = threadIdx.x;
    float v = 0.0f;
    for (unsigned int i = blockIdx.x * blockDim.x + tid; i < n; i += blockDim.x * gridDim.x) v += x[i];
    partial[tid] = v;
    __syncthreads();
    for (unsigned int k = blockDim.x / 2; k > 0; k >>= 1) {
        if (tid < k) partial[tid] += partial[tid + k];
        __syncthreads();
    }
    if (tid == 0) out[blockIdx.x] = partial[0];
}
