// Accelerations of n bodies under gravity, tile by tile through shared memory (as in Nyland, Harris and Prins,
// "Fast N-Body Simulation with CUDA", GPU Gems 3, chapter 31). blockDim.x divides n.
extern "C" __global__ void nbody(const float4* p, float4* acc, int n, float eps2) {
    extern __shared__ float4 tile[];
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    float4 pi = p[i];
    float ax = 0.f, ay = 0.f, az = 0.f;
    for (int first = 0; first < n; first += blockDim.x) {
        tile[threadIdx.x] = p[first + threadIdx.x];
        __syncthreads();
        for (int j = 0; j < blockDim.x; ++j) {
            float4 pj = tile[j];
            float dx = pj.x - pi.x, dy = pj.y - pi.y, dz = pj.z - pi.z;
            float d2 = dx * dx + dy * dy + dz * dz + eps2;
            float inv = rsqrtf(d2);
            float s = pj.w * inv * inv * inv;
            ax += s * dx;
            ay += s * dy;
            az += s * dz;
        }
        __syncthreads();
    }
    acc[i] = make_float4(ax, ay, az, 0.f);
}
