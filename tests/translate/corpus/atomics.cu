// Every integer atomic whose result does not depend on the order.
extern "C" __global__ void atomics(const int* x, int* i32, unsigned int* u32, unsigned long long* u64, int n) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += blockDim.x * gridDim.x) {
        int v = x[i];
        atomicAdd(i32, v); atomicSub(i32 + 1, v); atomicMin(i32 + 2, v); atomicMax(i32 + 3, v);
        atomicAnd(u32, ~(1u << (v & 31))); atomicOr(u32 + 1, 1u << (v & 15)); atomicXor(u32 + 2, (unsigned int)v);
        atomicInc(u32 + 3, 6u); atomicDec(u32 + 4, 9u);
        atomicAdd(u64, (unsigned long long)v * v); atomicMax(u64 + 1, (unsigned long long)(v & 0xffff));
    }
}
