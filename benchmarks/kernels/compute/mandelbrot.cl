__kernel void mandelbrot(__global int* out, int w, int h, float x0, float y0, float dx, float dy, int maxit) {
    int px = get_global_id(0), py = get_global_id(1);
    if (px >= w || py >= h) return;
    float cr = x0 + px * dx, ci = y0 + py * dy, zr = 0.f, zi = 0.f;
    int it = 0;
    while (it < maxit && zr * zr + zi * zi < 4.0f) {
        float t = zr * zr - zi * zi + cr;
        zi = 2.0f * zr * zi + ci;
        zr = t;
        ++it;
    }
    out[py * w + px] = it;
}
