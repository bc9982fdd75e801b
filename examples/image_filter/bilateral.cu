// The bilateral filter (Tomasi and Manduchi, 1998): each pixel becomes the mean of those around it, weighted by how near
// they are and by how alike in colour, so that areas become smooth and edges stay. One thread a pixel.

#define RADIUS 4

__constant__ float near_weight[2 * RADIUS + 1][2 * RADIUS + 1];    // by distance
__constant__ float like_weight[3 * 255 + 1];                       // by |dr| + |dg| + |db|

extern "C" __global__ void bilateral(const unsigned char* before,  // (rows, cols, 3)
                                     unsigned char* after,
                                     int rows, int cols) {
    int col = blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y * blockDim.y + threadIdx.y;
    if (col >= cols || row < RADIUS || row >= rows - RADIUS) return;  // rows that lack neighbours are the halo's
    const unsigned char* me = before + (row * cols + col) * 3;
    float total = 0, red = 0, green = 0, blue = 0;
    for (int dy = -RADIUS; dy <= RADIUS; ++dy)
        for (int dx = -RADIUS; dx <= RADIUS; ++dx) {
            int x = col + dx < 0 ? -(col + dx) : col + dx;            // columns are mirrored at the edge,
            x = x >= cols ? 2 * (cols - 1) - x : x;                   // as edge="reflect" does with rows
            const unsigned char* other = before + ((row + dy) * cols + x) * 3;
            int apart = abs(other[0] - me[0]) + abs(other[1] - me[1]) + abs(other[2] - me[2]);
            float weight = near_weight[dy + RADIUS][dx + RADIUS] * like_weight[apart];
            total += weight;
            red += weight * other[0];
            green += weight * other[1];
            blue += weight * other[2];
        }
    unsigned char* result = after + (row * cols + col) * 3;
    result[0] = (unsigned char)(red / total + 0.5f);
    result[1] = (unsigned char)(green / total + 0.5f);
    result[2] = (unsigned char)(blue / total + 0.5f);
}
