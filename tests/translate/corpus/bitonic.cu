// Sorting in shared memory: nested loops with barriers, comparisons by thread.
extern "C" __global__ void bitonic(unsigned int* data) {
    __shared__ unsigned int s[256];
    unsigned int t = threadIdx.x;
    s[t] = data[blockIdx.x * 256 + t];
    __syncthreads();
    for (unsigned int k = 2; k <= 256; k *= 2)
        for (unsigned int j = k / 2; j > 0; j /= 2) {
            unsigned int other = t ^ j;
            if (other > t) {
                bool up = (t & k) == 0;
                if ((s[t] > s[other]) == up) {
                    unsigned int v = s[t];
                    s[t] = s[other];
                    s[other] = v;
                }
            }
            __syncthreads();
        }
    data[blockIdx.x * 256 + t] = s[t];
}
