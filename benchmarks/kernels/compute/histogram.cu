// Of bytes: counted in shared memory, then added to the result. Integer atomics: exact, in whatever order.
template <typename T> __device__ T clampv(T v, T lo, T hi) { return v < lo ? lo : (v > hi ? hi : v); }

extern "C" __global__ void histogram(const unsigned char* d, int* h, long long n) {
    __shared__ int loc[256];
    for (int b = threadIdx.x; b < 256; b += blockDim.x) loc[b] = 0;
    __syncthreads();
    for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < n; i += (long long)blockDim.x * gridDim.x)
        atomicAdd(&loc[clampv<int>(d[i], 0, 255)], 1);
    __syncthreads();
    for (int b = threadIdx.x; b < 256; b += blockDim.x)
        if (loc[b]) atomicAdd(&h[b], loc[b]);
}
