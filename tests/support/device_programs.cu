// Kernels for tests of devices; device_programs.py makes programs of them.

#define I (blockIdx.x * blockDim.x + threadIdx.x)

extern "C" __global__ void saxpy(float a, const float* x, float* y, int n) {
  int i = I;
  if (i < n) y[i] = a * x[i] + 1.0f;
}

extern "C" __global__ void add_to(const float* x, float* y, int n) {
  int i = I;
  if (i < n) y[i] += x[i];
}

// Each block writes the tile of the next one.
extern "C" __global__ void spread(const float* x, float* y, int n) {
  int i = I;
  if (i < n) y[(i + blockDim.x) % n] = x[i] + 1000.0f;
}

extern "C" __global__ void reverse(const float* x, float* y, int n) {
  extern __shared__ float box[];
  int i = I;
  if (i < n) box[threadIdx.x] = x[i];
  __syncthreads();
  if (i < n) y[i] = box[blockDim.x - 1 - threadIdx.x];  // what no thread stored is zero
}

extern "C" __global__ void smooth(const float* a, float* b, int n) {
  int i = I;
  if (i < n) b[i] = 0.5f * a[i] + 0.25f * (a[i > 0 ? i - 1 : 0] + a[i < n - 1 ? i + 1 : n - 1]);
}

extern "C" __global__ void three(const float* x, float* y, int rows, int columns) {
  int i = I;
  if (i < rows * columns) y[i] = x[i] + x[i + columns] + x[i + 2 * columns];
}

extern "C" __global__ void halve(int* value, int* done, int* rounds) {
  *value /= 2;
  *done = *value == 0;
  *rounds += 1;
}

extern "C" __global__ void nans(const float* x, float* y, int n) {
  int i = I;
  if (i < n) y[i] = (x[i] - x[i]) / (i % 2 ? 0.0f : -0.0f);
}

// Just behind its array, where nothing is.
extern "C" __global__ void beside(const float* x, float* y, int n) {
  int i = I;
  if (i < n) y[i] = x[i];
  if (i == n - 1) y[n + 3] = 1.0f;
}

// Just before its array.
extern "C" __global__ void beyond(const float* x, float* y, int n) {
  int i = I;
  if (i < n) y[i] = x[i];
  if (i == n - 1) y[-2] = 1.0f;
}

extern "C" __global__ void far(const float* x, float* y, int n) {
  int i = I;
  if (i < n) y[i] = x[i + (1 << 29)];
}

extern "C" __global__ void divide(const int* x, int* y, int n) {
  int i = I;
  if (i < n) y[i] = x[i] / (x[i] - x[0]);
}

extern "C" __global__ void histogram(const int* x, int* counts, int n) {
  __shared__ int mine[16];
  if (threadIdx.x < 16) mine[threadIdx.x] = 0;
  __syncthreads();
  int i = I;
  if (i < n) atomicAdd(&mine[x[i] & 15], 1);
  __syncthreads();
  if (threadIdx.x < 16) atomicAdd(&counts[threadIdx.x], mine[threadIdx.x]);
}

// The whole launch's grid is what a kernel sees, whichever blocks a task runs.
extern "C" __global__ void last_block(const int* x, int* y, int n) {
  int i = I;
  if (i < n) y[i] = x[i] + 1000 * (gridDim.x - blockIdx.x);
}

// Its bits depend on who comes first.
extern "C" __global__ void sum_all(const float* x, float* y, int n) {
  int i = I;
  if (i < n) atomicAdd(&y[0], x[i]);
}
