// Recursive device functions: Fibonacci's numbers, and quicksort of a local array.
__device__ int fibonacci(int n) { return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2); }
__device__ void sort(int* a, int lo, int hi) {
    if (lo >= hi) return;
    int p = a[hi], m = lo;
    for (int i = lo; i < hi; ++i)
        if (a[i] < p) { int t = a[i]; a[i] = a[m]; a[m] = t; ++m; }
    a[hi] = a[m];
    a[m] = p;
    sort(a, lo, m - 1);
    sort(a, m + 1, hi);
}
extern "C" __global__ void recursion(const int* x, int* out, int* fib, int rows) {
    int r = blockIdx.x * blockDim.x + threadIdx.x;
    if (r >= rows) return;
    int a[12];
    for (int i = 0; i < 12; ++i) a[i] = x[r * 12 + i];
    sort(a, 0, 11);
    for (int i = 0; i < 12; ++i) out[r * 12 + i] = a[i];
    fib[r] = fibonacci(r % 15);
}
