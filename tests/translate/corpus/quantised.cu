extern "C" __global__ void quantised(const int* weights, const int* values, int* sums, int words) {
  const int row = blockIdx.x * blockDim.x + threadIdx.x;
  int sum = 0;
  for (int k = 0; k < words; ++k) sum = __dp4a(weights[row * words + k], values[k], sum);
  sums[row] = sum;
}
