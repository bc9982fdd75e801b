// Vector types, bytes and booleans as parameters: each at its place in the argument buffer.
extern "C" __global__ void by_value(float4 a, bool flag, double2 d, unsigned char small, float3 three, long long wide, short2 pair, double* out) {
    int i = threadIdx.x;
    double values[] = {a.x, a.w, (double)flag, d.x, d.y, (double)small, three.x, three.z, (double)wide, (double)pair.x, (double)pair.y};
    if (i < 11) out[i] = values[i];
}
