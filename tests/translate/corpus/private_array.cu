// A local array with indices known only at run time must not be shared by the lanes of a SIMD loop.
extern "C" __global__ void private_array(const int* x, int* out, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int bins[8] = {};
    for (int k = 0; k < 16; ++k) bins[x[i * 16 + k] & 7] += k;
    int best = 0;
    for (int k = 1; k < 8; ++k) if (bins[k] > bins[best]) best = k;
    out[i] = best * 1000 + bins[best];
}
