// Arrays of bool, bytes, shorts, and vectors of bytes.
extern "C" __global__ void small_types(const uchar4* rgba, const bool* mask, const short* gain, unsigned char* grey, bool* bright, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    uchar4 c = rgba[i];
    int v = (c.x * 77 + c.y * 150 + c.z * 29) >> 8;
    v = mask[i] ? v * gain[i] / 256 : v;
    grey[i] = (unsigned char)min(max(v, 0), 255);
    bright[i] = v > 128 && mask[i];
}
