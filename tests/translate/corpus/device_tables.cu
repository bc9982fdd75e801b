// __device__ variables that are only read are constants, whole and in part; their address goes to const targets.
struct Entry { int key; float value; };
__device__ float weights[4] = {0.5f, 1.5f, 2.5f, 3.5f};
__device__ int scale = 3;
__device__ Entry entries[2] = {{1, 10.0f}, {2, 20.0f}};
static __device__ const double third = 1.0 / 3;
__device__ float matrix[2][3] = {{1, 2, 3}, {4, 5, 6}};
__device__ float sum(const float* values, int n) { float s = 0; for (int i = 0; i < n; ++i) s += values[i]; return s; }
__device__ float find(const Entry* all, int key) { return all[0].key == key ? all[0].value : all[1].value; }
extern "C" __global__ void device_tables(const float* x, double* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const float* row = matrix[i % 2];
    y[i] = x[i] * weights[i & 3] + scale * sum(weights, 4) + find(entries, 1 + i % 2) + third + row[1] + matrix[1][i % 3] +
           __ldg(&weights[2]) + max(scale, 2);
}
