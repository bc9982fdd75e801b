// Lloyd's k-means on the colours of a photograph. Sums are of whole numbers, so the order of the atomics leaves no trace.

#define K 8

extern "C" __global__ void assign(const unsigned char* pixels,    // (n, 3) red, green, blue
                                  unsigned char* label,           // (n) each pixel's nearest centre
                                  const float* centre,            // (K, 3)
                                  unsigned int* sums,             // (K, 4) of the pixels' colours, and their number
                                  int* moved,                     // how many pixels have changed their centre
                                  int n) {
    __shared__ unsigned int own[K * 4 + 1];                       // the same, of this block
    if (threadIdx.x <= K * 4) own[threadIdx.x] = 0;
    __syncthreads();
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        int best = 0;
        float least = 1e30f;
        for (int k = 0; k < K; ++k) {
            float r = pixels[3 * i] - centre[3 * k], g = pixels[3 * i + 1] - centre[3 * k + 1];
            float b = pixels[3 * i + 2] - centre[3 * k + 2], d2 = r * r + g * g + b * b;
            if (d2 < least) {
                least = d2;
                best = k;
            }
        }
        for (int c = 0; c < 3; ++c) atomicAdd(own + best * 4 + c, pixels[3 * i + c]);
        atomicAdd(own + best * 4 + 3, 1);
        if (label[i] != best) atomicAdd(own + K * 4, 1);
        label[i] = best;
    }
    __syncthreads();
    if (threadIdx.x < K * 4 && own[threadIdx.x]) atomicAdd(sums + threadIdx.x, own[threadIdx.x]);
    if (threadIdx.x == K * 4 && own[K * 4]) atomicAdd(moved, (int)own[K * 4]);
}

extern "C" __global__ void update(float* centre, unsigned int* sums, int* moved, int* rounds, int* done) {
    int k = threadIdx.x;                                          // one block of K threads
    unsigned int count = sums[4 * k + 3];
    for (int c = 0; c < 3; ++c) {
        if (count) centre[3 * k + c] = (float)sums[4 * k + c] / (float)count;
        sums[4 * k + c] = 0;
    }
    sums[4 * k + 3] = 0;
    if (k == 0) {
        *done = *moved == 0;
        *moved = 0;
        *rounds += 1;
    }
}
