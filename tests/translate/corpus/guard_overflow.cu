// A guard whose expression wraps within a row: testing the ends alone would be wrong.
extern "C" __global__ void guard_overflow(int* out, int step, int n) {
    int i = threadIdx.x * step;
    if (i < n) out[threadIdx.x] = i + 1;
}
