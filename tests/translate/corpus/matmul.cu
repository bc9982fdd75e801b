// Two dimensions, an early return, a loop over global memory.
extern "C" __global__ void matmul(const float* A, const float* B, float* C, int n) {
    int r = blockIdx.y * blockDim.y + threadIdx.y;
    int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (r >= n || c >= n) return;
    float acc = 0.0f;
    for (int k = 0; k < n; ++k) acc += A[r * n + k] * B[k * n + c];
    C[r * n + c] = acc;
}
