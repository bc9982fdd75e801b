// Vector types in arrays.
extern "C" __global__ void nbody(const float4* p, float4* acc, int n, float eps2) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float4 pi = p[i];
    float ax = 0.f, ay = 0.f, az = 0.f;
    for (int j = 0; j < n; ++j) {
        float4 pj = p[j];
        float dx = pj.x - pi.x, dy = pj.y - pi.y, dz = pj.z - pi.z;
        float inv = rsqrtf(dx * dx + dy * dy + dz * dz + eps2);
        float s = pj.w * inv * inv * inv;
        ax += s * dx; ay += s * dy; az += s * dz;
    }
    acc[i] = make_float4(ax, ay, az, 0.f);
}
