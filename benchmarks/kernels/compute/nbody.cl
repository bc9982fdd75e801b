__kernel void nbody(__global const float4* p, __global float4* acc, int n, float eps2, __local float4* tile) {
    int i = get_global_id(0), t = get_local_id(0), threads = get_local_size(0);
    float4 pi = p[i];
    float ax = 0.f, ay = 0.f, az = 0.f;
    for (int first = 0; first < n; first += threads) {
        tile[t] = p[first + t];
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int j = 0; j < threads; ++j) {
            float4 pj = tile[j];
            float dx = pj.x - pi.x, dy = pj.y - pi.y, dz = pj.z - pi.z;
            float d2 = dx * dx + dy * dy + dz * dz + eps2;
            float inv = rsqrt(d2);
            float s = pj.w * inv * inv * inv;
            ax += s * dx;
            ay += s * dy;
            az += s * dz;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    acc[i] = (float4)(ax, ay, az, 0.f);
}
