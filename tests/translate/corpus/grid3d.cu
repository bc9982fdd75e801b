// Three dimensions of blocks and threads.
__device__ unsigned int flat(uint3 p, dim3 size) { return (p.z * size.y + p.y) * size.x + p.x; }
extern "C" __global__ void grid3d(unsigned int* out) {
    dim3 b = blockDim, g(gridDim.x, gridDim.y, gridDim.z), one;
    uint3 t = threadIdx;
    unsigned int block = flat(blockIdx, g), thread = flat(t, b);
    out[block * (b.x * b.y * b.z) + thread] = block * 10000 + thread * 10 + one.x + one.z - 1;
}
