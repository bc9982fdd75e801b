// References and pointers to locals, const references to temporaries.
__device__ void swap(int& a, int& b) { int t = a; a = b; b = t; }
__device__ const int& largest(const int& a, const int& b) { return a > b ? a : b; }
__device__ void divide(int a, int b, int* q, int* r) { *q = a / b; *r = a % b; }
__device__ int* advance(int* p, int n) { p += n; return p; }
extern "C" __global__ void references(int* x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int *mine = advance(x, 2 * i), q, r;
    if (mine[0] > mine[1]) swap(mine[0], mine[1]);
    divide(mine[1], mine[0] | 1, &q, &r);
    int limit = largest(q + 1, 5);
    auto& second = *(mine + 1);
    int (&pair)[2] = *(int (*)[2])mine;
    second += limit;
    pair[0] ^= r;
}
