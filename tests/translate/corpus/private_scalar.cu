// Private memory without a loop around it: one store, one load, at an index that is not known.
extern "C" __global__ void private_scalar(const int* x, int* out, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int slot[4] = {10, 20, 30, 40};
    slot[x[i] & 3] += i;
    int *p = &slot[x[i] >> 2 & 3], a = i, b = -i;
    int& which = x[i] & 16 ? a : b;
    which += 5;
    out[i] = *p + a * 3 + b;
}
