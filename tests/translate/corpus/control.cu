// Every kind of statement.
enum Kind { EVEN = 2, ODD = 5, OTHER };
enum class Small : unsigned char { A = 200, B };
__device__ int classify(int v) {
    if (int r = v % 3; r == 0) return EVEN;
    else if (r == 1) return ODD;
    return OTHER;
}
extern "C" __global__ void control(const int* x, int* out, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int v = x[i], sum = 0, j = 0;
    switch (classify(v)) {
        case EVEN: sum += 10;  // falls through
        case ODD: { int t = v & 7; sum += t; break; }
        default: sum -= 1;
    }
    for (int a = 0, b = v & 15; a < b; ++a, --b) {
        if (a == 2) continue;
        if (a + b > 40) break;
        sum += a * b;
    }
    do { sum ^= j; j += 3; } while (j < (v & 31));
    while (true) { if (--j < 0) break; sum += j & 1; }
    int table[] = {3, 1, 4, 1, 5};
    for (int e : table) sum = sum * 2 + e;
    int big, small;
    (v > 0 ? big : small) = 7;
    sum += v > 0 ? big : (small = 3, small * 2);
    sum += (int)Small::B - (Small::A == Small::B);
    for (;;) { if (sum > 0 || j > 50) { sum++; break; } sum += 1000; ++j; }
    out[i] = sum;
}
