// Float atomics: only with --local.
extern "C" __global__ void float_atomics(const float* x, float* sum, double* wide, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    atomicAdd(sum, x[i]);
    atomicAdd(wide, (double)x[i]);
}
