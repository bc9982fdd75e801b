// One step of the leapfrog method for bodies that attract each other, in units where the gravitational constant is 1.
// A body's force is summed over all others in their order, so the bits are the same however the launch is run.

extern "C" __global__ void step(const float4* at,      // (n) x, y, z and mass
                                float4* velocity,      // (n) x, y, z
                                float4* next,          // (n) where the bodies are afterwards
                                int n, float kick,     // the time that velocities go forward
                                float drift,           // the time that places go forward
                                float softening2) {    // added to squared distances: close encounters stay tame
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float4 me = at[i], v = velocity[i];
    float x = 0, y = 0, z = 0;
    for (int j = 0; j < n; ++j) {
        float dx = at[j].x - me.x, dy = at[j].y - me.y, dz = at[j].z - me.z;
        float d2 = dx * dx + dy * dy + dz * dz + softening2;
        float pull = at[j].w / (d2 * sqrtf(d2));
        x += dx * pull;
        y += dy * pull;
        z += dz * pull;
    }
    v.x += kick * x;
    v.y += kick * y;
    v.z += kick * z;
    velocity[i] = v;
    next[i] = make_float4(me.x + drift * v.x, me.y + drift * v.y, me.z + drift * v.z, me.w);
}

extern "C" __global__ void keep(const float4* at, float4* kept, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) kept[i] = at[i];
}
