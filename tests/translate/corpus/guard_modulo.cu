// A guard that is no interval, and one that is not about threads at all.
extern "C" __global__ void guard_modulo(int* out, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i % 2 == 0 || i >= n) return;
    out[i] = i;
}
