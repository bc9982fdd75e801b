// Two barriers, of which each thread meets one; then both meet again.
extern "C" __global__ void divergent_barrier(int* out) {
    __shared__ int a[64], b[64];
    int t = threadIdx.x;
    a[t] = t * 3;
    if (t < 40) {
        __syncthreads();
        b[t] = a[63 - t];
    } else {
        a[t] += 1000;
        __syncthreads();
        b[t] = a[63 - t] + 5;
    }
    __syncthreads();
    out[blockIdx.x * blockDim.x + t] = b[(t + 7) % 64];
}
