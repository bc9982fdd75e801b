// A stencil with clamped edges and integer minima and maxima.
__device__ float at(const float* z, int r, int c, int rows, int cols) {
    return z[min(max(r, 0), rows - 1) * cols + min(max(c, 0), cols - 1)];
}
extern "C" __global__ void hillshade(const float* z, float* shade, int rows, int cols, float cell) {
    int c = blockIdx.x * blockDim.x + threadIdx.x, r = blockIdx.y * blockDim.y + threadIdx.y;
    if (c >= cols || r >= rows) return;
    float a = at(z, r - 1, c - 1, rows, cols), b = at(z, r - 1, c, rows, cols), d = at(z, r, c - 1, rows, cols);
    float e = at(z, r + 1, c + 1, rows, cols), f = at(z, r + 1, c, rows, cols), g = at(z, r, c + 1, rows, cols);
    float dx = (g - d) / (2.0f * cell), dy = (f - b) / (2.0f * cell), dd = (e - a) * 0.125f / cell;
    float slope = atanf(hypotf(dx, dy) + 0.0f * dd), aspect = atan2f(dy, -dx);
    float zenith = 0.7853981634f, azimuth = 2.35619449f;
    float v = cosf(zenith) * cosf(slope) + sinf(zenith) * sinf(slope) * cosf(azimuth - aspect);
    shade[r * cols + c] = fmaxf(v, 0.0f) * 255.0f;
}
