// Dynamic shared memory cut into arrays of several types.
extern __shared__ __align__(16) unsigned char memory[];
extern "C" __global__ void carve(const float* x, float* out, int* counts) {
    float* values = (float*)memory;
    int* flags = (int*)(values + blockDim.x);
    double* wide = reinterpret_cast<double*>(flags + blockDim.x);
    int t = threadIdx.x;
    values[t] = x[blockIdx.x * blockDim.x + t];
    flags[t] = values[t] > 0.5f;
    wide[t] = values[t] * 2.0;
    __syncthreads();
    if (t == 0) {
        int c = 0;
        for (int i = 0; i < blockDim.x; ++i) c += flags[i];
        counts[blockIdx.x] = c;
    }
    out[blockIdx.x * blockDim.x + t] = (float)wide[blockDim.x - 1 - t] + values[t];
}
