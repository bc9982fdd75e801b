// Base classes without virtual functions: members first, empty ones, the curiously recurring template, copies, slices.
struct Vec2 {
    float x, y;
    __device__ Vec2(float a = 0, float b = 0) : x(a), y(b) {}
    __device__ Vec2(const Vec2& other) : x(other.x), y(other.y) {}
    __device__ ~Vec2() {}
    __device__ float dot(const Vec2& o) const { return x * o.x + y * o.y; }
};
template <class Derived> struct Shape {
    __device__ const Derived& self() const { return static_cast<const Derived&>(*this); }
    __device__ float density() const { return self().weight() / self().area(); }
};
struct Tag { __device__ int kind() const { return 7; } };
struct Body : Vec2 {
    float mass;
    __device__ Body(float a, float b, float m) : Vec2(a, b), mass(m) {}
    __device__ float weight() const { return mass * 10; }
};
struct Box : Body, Tag, Shape<Box> {
    float side = 2;
    __device__ Box(float a, float m) : Body(a, a + 1, m) { side += kind(); }
    __device__ float area() const { return side * side; }
    __device__ Box& grow(float by) { x *= by; this->y *= by; side *= by; return *this; }
};
struct Pair { Box a, b; };
__device__ float torque(const Body& b) { return b.dot(Vec2(1, 2)) * b.weight(); }
__device__ float length(Vec2 v) { return v.x + v.y; }
__global__ void inheritance(const float* x, float* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    Box box(x[i], 3);
    Box copy = box;
    Pair pair = {box, copy};
    pair.b.grow(2);
    Pair other = pair;
    other = pair;
    copy = pair.b.grow(0.5f);
    Body* base = &other.a;
    base->mass += 1;
    y[i] = box.density() + torque(other.b) + length(copy) + base->weight() + other.a.kind() + pair.b.side;
}
