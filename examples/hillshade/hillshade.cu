// Hill-shading after Horn (1981), "Hill shading and the reflectance map": the slope by a 3 x 3 Sobel filter, then the
// cosine of the angle between the surface's normal and the direction to the sun. One thread a pixel; edges are clamped.

__device__ float height(const short* z, int rows, int cols, int row, int col) {
    row = min(max(row, 0), rows - 1);
    col = min(max(col, 0), cols - 1);
    return (float)z[row * cols + col];
}

extern "C" __global__ void hillshade(const short* z,      // (rows, cols) heights in m
                                     float* shade,        // (rows, cols) brightness, 0 to 1
                                     int rows, int cols,
                                     float dx, float dy,  // the size of a pixel in m
                                     float east, float north, float up) {  // unit vector towards the sun
    int col = blockIdx.x * blockDim.x + threadIdx.x;
    int row = blockIdx.y * blockDim.y + threadIdx.y;
    if (row >= rows || col >= cols) return;

    float nw = height(z, rows, cols, row - 1, col - 1), n = height(z, rows, cols, row - 1, col);
    float ne = height(z, rows, cols, row - 1, col + 1), w = height(z, rows, cols, row, col - 1);
    float e = height(z, rows, cols, row, col + 1), sw = height(z, rows, cols, row + 1, col - 1);
    float s = height(z, rows, cols, row + 1, col), se = height(z, rows, cols, row + 1, col + 1);

    float p = ((ne + 2.0f * e + se) - (nw + 2.0f * w + sw)) / (8.0f * dx);  // slope towards the east
    float q = ((nw + 2.0f * n + ne) - (sw + 2.0f * s + se)) / (8.0f * dy);  // slope towards the north
    float lit = (up - east * p - north * q) / sqrtf(1.0f + p * p + q * q);
    shade[row * cols + col] = lit > 0.0f ? lit : 0.0f;
}
