// Shared memory of many forms: three dimensions, structs, pointers; one dynamic block carved by casts.
struct Sample { float value; int count; };
__global__ void shared_shapes(const float* x, float* y, int n) {
    __shared__ float cube[2][3][33];
    __shared__ Sample samples[32];
    __shared__ const float* from;
    __shared__ union { int whole; unsigned char bytes[4]; } mark;
    extern __shared__ __align__(16) unsigned char raw[];
    int* counts = (int*)raw;
    float2* pairs = reinterpret_cast<float2*>(raw + 32 * sizeof(int));
    int t = threadIdx.x, i = blockIdx.x * blockDim.x + t;
    if (t == 0) { from = x + blockIdx.x * blockDim.x; mark.whole = 0x01020304; }
    cube[t % 2][t % 3][t] = i < n ? x[i] : 0;
    samples[t].value = i < n ? x[i] * 2 : 0;
    samples[t].count = t;
    counts[t] = t * t;
    pairs[t] = make_float2(t, -t);
    __syncthreads();
    int other = 31 - t;
    if (i < n)
        y[i] = cube[other % 2][other % 3][other] + samples[other].value + samples[other].count + counts[other] +
               pairs[other].y + (i - t + other < n ? from[other] : 0) + mark.bytes[1];
}
