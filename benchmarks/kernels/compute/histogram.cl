__kernel void histogram(__global const uchar* d, __global int* h, long n) {
    __local int loc[256];
    for (int b = get_local_id(0); b < 256; b += get_local_size(0)) loc[b] = 0;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (long i = get_global_id(0); i < n; i += get_global_size(0)) atomic_add(&loc[clamp((int)d[i], 0, 255)], 1);
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int b = get_local_id(0); b < 256; b += get_local_size(0))
        if (loc[b]) atomic_add(&h[b], loc[b]);
}
