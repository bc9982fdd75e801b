// A lock-free maximum by compare and swap: its result is used, so its order may show.
extern "C" __global__ void cas_loop(const int* x, int* best, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int seen = *best;
    while (x[i] > seen) {
        int old = atomicCAS(best, seen, x[i]);
        if (old == seen) break;
        seen = old;
    }
}
