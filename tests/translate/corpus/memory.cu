// memset and memcpy on local, shared and global memory, whole and in part; <cstdint>'s names in std.
#include <cstring>

struct Row { std::uint32_t head, cells[5]; };

extern "C" __global__ void memory(const int* x, int* out, int n) {
    __shared__ int tile[64];
    std::uint8_t bytes[8];
    short halves[4] = {0, 0, 0, 0};
    Row row, copy;
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (threadIdx.x == 0) memset(tile, -1, sizeof tile);
    __syncthreads();
    if (i < n) memcpy(&tile[threadIdx.x], x + i, 3);
    __syncthreads();
    memset(bytes, 0x105, sizeof(bytes));
    std::memcpy(halves + 1, bytes, 4);
    memset(&row, 0, sizeof(Row));
    memcpy(row.cells + 1, &tile[threadIdx.x ^ 1], sizeof(int));
    memcpy(&copy, &row, sizeof row);
    int value = (int)(copy.cells[1] + copy.head) + halves[0] + halves[1] + halves[3];
    if (i < n) memcpy(&out[i], &value, sizeof value);
}
