// Constants of every kind.
__constant__ float weights[5] = {0.0625f, 0.25f, 0.375f, 0.25f, 0.0625f};
__device__ const int offsets[2][2] = {{1, 2}, {3, 4}};
constexpr int RADIUS = 2;
template <int N> constexpr int twice = 2 * N;
struct Config { static constexpr float gain = 1.5f; enum { SIZE = 3 }; };
static __device__ const float2 points[2] = {{1.0f, 2.0f}, {3.0f, 4.0f}};
extern "C" __global__ void tables(const float* x, float* out, int n) {
    static const float bias[3] = {0.5f, 0.25f, 0.125f};
    constexpr int local[] = {7, 11, 13};
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float s = 0.0f;
    for (int k = -RADIUS; k <= RADIUS; ++k) {
        int j = i + k;
        s += weights[k + RADIUS] * (j < 0 || j >= n ? 0.0f : x[j]);
    }
    out[i] = s * Config::gain + bias[i % Config::SIZE] + offsets[i & 1][i / 2 & 1] + twice<8> + local[i % 3] + points[i & 1].y;
}
