__kernel void block_reduce(__global const float* x, __global float* out, int n, __local float* s) {
    unsigned int tid = get_local_id(0), i = get_global_id(0);
    float v = 0.0f;
    for (; i < n; i += get_global_size(0)) v += x[i];
    s[tid] = v;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (unsigned int k = get_local_size(0) / 2; k > 0; k >>= 1) {
        if (tid < k) s[tid] += s[tid + k];
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    if (tid == 0) out[get_group_id(0)] = s[0];
}
