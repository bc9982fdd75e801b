// As ReductionKernel makes it: 256 lanes of a row, then a tree.
__kernel void row_max(__global const float* x, __global float* y, int m, __local float* s) {
    int t = get_local_id(0), lanes = get_local_size(0);
    __global const float* row = x + (size_t)get_group_id(0) * m;
    float v = -INFINITY;
    for (int k = t; k < m; k += lanes) v = max(v, row[k]);
    s[t] = v;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int half_ = lanes / 2; half_ > 0; half_ /= 2) {
        if (t < half_) s[t] = max(s[t], s[t + half_]);
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    if (t == 0) y[get_group_id(0)] = s[0];
}
