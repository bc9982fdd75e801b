// Structs with mixed members passed by value, arrays in them, and one large enough to be all of a small matrix.
struct Camera { int width; double focal; float centre[2]; unsigned char flags; };
struct Matrix { float m[3][3]; };
struct Camera2 : Camera { long long seed; };
extern "C" __global__ void struct_parameters(float* y, Camera camera, Matrix a, Camera2 more, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n || i >= camera.width) return;
    y[i] = camera.focal * camera.centre[i & 1] + camera.flags + a.m[i % 3][i / 3 % 3] + more.seed % 100 + more.width + more.centre[1];
}
