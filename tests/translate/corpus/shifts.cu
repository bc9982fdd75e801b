// Shifts by more than the width: what a GPU does.
extern "C" __global__ void shifts(const int* x, const int* by, long long* out, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        int s = by[i];
        unsigned int u = x[i];
        long long w = x[i];
        out[i] = (long long)(x[i] << s) * 3 + (x[i] >> s) * 5LL + (long long)(u << s) * 7 + (u >> s) * 11LL + (w << s) * 13 + (w >> s) * 17;
    }
}
