"""C++ as kernels use it: each source runs one block on 64 floats x[i] = i +
1 and says what x[0] has to be afterwards."""

import numpy as np
import pytest

SOURCES = {
    "operators on vector types": (
        """inline __device__ float4 operator+(float4 a, float4 b) {
            return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w); }
        inline __device__ void operator+=(float4& a, float4 b) { a.x += b.x; a.w += b.w; }
        inline __device__ float4 operator*(float s, const float4& a) { return {s * a.x, s * a.y, s * a.z, s * a.w}; }
        __global__ void k(float* x) { float4 v = reinterpret_cast<const float4*>(x)[1]; v += 2.0f * v + v;
            float t[4]; *reinterpret_cast<float4*>(t) = v; float* q = reinterpret_cast<float*>(&v);
            x[0] = t[3] + q[0] + q[1]; }""",
        32 + 20 + 6,
    ),
    "members out of line": (
        """struct A { int v; struct In { int z; }; In in[2]; __device__ int f(int) const;
            static __device__ A make(int);
            template <class T> __device__ T g(T a) const; };
        __device__ int A::f(int a) const { return a + v; }
        template <class T> __device__ T A::g(T a) const { return a * v + in[1].z; }
        __device__ A A::make(int v) { A a = {v}; a.in[1].z = 4; return a; }
        __global__ void k(float* x) { const A a = A::make(3);
            x[0] = a.f(2) + a.g(2.5f) + a.g<int>(3) + A::make(4).f(1) + A::make(5).in[1].z; }""",
        5 + 11.5 + 13 + 5 + 4,
    ),
    "lambdas in lambdas": (
        """struct A { float v; template <class F> __device__ float on(F f) const { return f(v); } };
        __global__ void k(float* x) { auto f = [=](int i) { return [=](int j) { return i * 10 + j; }; }; A a{3};
            x[0] = f(1)(2) + a.on([&](float q) { float s = 0;
                for (int i = 0; i < 3; i++) s += a.on([=](float w) { return w + q + i; });
                return s; }); }""",
        12 + 21,
    ),
    "lambdas and unnamed structs in each instance of a template": (
        """template <class T> __device__ T g(T x) { auto h = [&](T y) { return x / 2 + y; }; return h(x); }
        template <class T> __device__ T u(T x) { struct { T v; } s = {x}; return s.v / 2; }
        __global__ void k(float* x) { x[0] = g(1.0f) + g(3) + g(5.0) + u(3) + u(3.0f); }""",
        1.5 + 4 + 7.5 + 1 + 1.5,
    ),
    "alias templates and defaults": (
        """template <class T, int N = 4> struct V { T d[N]; }; template <class T> using V2 = V<T, 2>;
        template <class T, bool B = true> struct X { T v; __device__ int b() const { return B; } };
        template <class T> struct Traits { typedef T type; using pointer = T*; };
        template <class T> __device__ typename Traits<T>::type first(typename Traits<T>::pointer p) { return *p; }
        __global__ void k(float* x) { V2<float> a; V<float> b; V<int, 4> c; a.d[1] = 1; b.d[3] = 2; c.d[3] = 3;
            X<float> d; X<float, false> e;
            typename Traits<float>::type* q = x + 6; x[0] = a.d[1] + b.d[3] + c.d[3] + first<float>(q) +
            d.b() * 100 + e.b() * 1000; }""",
        6 + 7 + 100,
    ),
    "instances for 1, for -1 and for true": (
        """template <int N> struct S { int v; __device__ int f() const { return v * N; } };
        template <bool B, int N> struct D { int v; __device__ int f() const { return B ? v * N : 0; } };
        template <int N> __device__ int use(S<N> s) { return s.f(); }
        template <bool B, int N> __device__ int use(D<B, N> d) { return d.f(); }
        __global__ void k(float* x) { S<1> a = {1}; S<-1> b = {2}; D<true, 1> c = {10}; D<true, -1> d = {30};
            D<false, 1> e = {1000}; x[0] = use(a) + use(b) + use(c) + use(d) + use(e); }""",
        1 - 2 + 10 - 30,
    ),
    "packs and folds": (
        """template <class T> __device__ T sum(T a) { return a; }
        template <class T, class... R> __device__ T sum(T a, R... r) { return a + sum(r...); }
        template <class... R> __device__ float all(R... r) { return (r + ...); }
        __global__ void k(float* x) { x[0] = sum(1.0f, 2, x[1]) * 10 + all(1, 2.5f, x[2]); }""",
        50 + 6.5,
    ),
    "functors": (
        """template <class Op> __device__ float reduce(const float* x, int n, Op op, float a) { for (int i = 0;
            i < n; ++i) a = op(a, x[i]); return a; }
        struct Add { float scale; __device__ float operator()(float a, float b) const { return a + b * scale; } };
        struct Max { __device__ float operator()(float a, float b) const { return fmaxf(a, b); } };
        __global__ void k(float* x) { x[0] = reduce(x, 8, Add{2.0f}, 0.0f) + reduce(x, 9, Max(), -INFINITY) * 100;
            }""",
        72 + 900,
    ),
    "constant conditions": (
        """template <class T, class U> struct Same { static constexpr bool value = false; };
        template <class T> struct Same<T, T> { static constexpr bool value = true; };
        template <class T> __device__ T f(T a) { if constexpr (Same<T, float>::value) return a * 2;
            else if constexpr (sizeof(T) == 8) return a * 3; else return a * 4; }
        enum class Op : int { ADD, SUB };
        template <Op o> __device__ int op(int a, int b) { switch (o) { case Op::ADD: return a + b;
            case Op::SUB: return a - b; } return 0; }
        __global__ void k(float* x) { x[0] = f(1.0f) + f(10.0) + f(100) + op<Op::ADD>(5000, 3) +
            op<Op::SUB>(10000, 1); }""",
        2 + 30 + 400 + 5003 + 9999,
    ),
    "local types": (
        """__global__ void k(float* x) { struct L { int a, b; __device__ int sum() const { return a + b; } };
            typedef L Alias; Alias l{1, 2};
            enum { THREE = 3 }; using I = int; I z = THREE; const auto& r = x[4]; auto p = &x[5];
            int m[2][3] = {{1, 2, 3}, {4, 5, 6}};
            int (*row)[3] = m; auto* other = &m[1]; float s = l.sum() + z + r + *p + row[1][2] + (*other)[0];
            for (const auto& line : m) for (int v : line) s += v; x[0] = s; }""",
        3 + 3 + 5 + 6 + 6 + 4 + 21,
    ),
    "namespaces": (
        """namespace a { namespace b { struct T { float v; }; __device__ float g(const T& t) { return t.v;
            } constexpr float C = 2.5f; }
        using b::T; inline namespace c { __device__ float h(T t) { return t.v * b::C; } } } using namespace a;
            namespace short_ = a::b;
        __global__ void k(float* x) { T t{x[1]}; short_::T u; u.v = 4; x[0] = b::g(t) + h(u) + a::h(t); }""",
        2 + 10 + 5,
    ),
    "same names in different scopes": (
        """struct In { float a; }; struct A { struct In { double z, a; }; In in; }; typedef int T; namespace n {
            typedef double T; struct In { char c[3]; }; }
        __device__ float f() { typedef float T; T t = 1.75f; T* p = &t; return *p; }
        __device__ float g() { T t = 1.75f; T* p = &t; return *p + sizeof(n::In) + sizeof(A::In); }
        __global__ void k(float* x) { In i = {1}; A a; a.in.a = 5; n::T d = 0.25; n::T* p = &d;
            x[0] = f() + g() + i.a + a.in.a + *p + sizeof(In); }""",
        1.75 + 1 + 3 + 16 + 1 + 5 + 0.25 + 4,
    ),
    "friends, conversions, copies": (
        """template <class T> struct C { T r, i; __device__ C(T a = T(), T b = T()) : r(a), i(b) {}
            C(const C&) = default; C& operator=(const C&) = default;
            friend __device__ C operator*(const C& a, const C& b) {
            return C(a.r * b.r - a.i * b.i, a.r * b.i + a.i * b.r); }
            __device__ C operator-() const { return C(-r, -i); } __device__ bool operator==(const C& o) const {
            return r == o.r && i == o.i; }
            template <class U> __device__ explicit C(const C<U>& o) : r(o.r), i(o.i) {} };
        struct Counted { int a; __device__ Counted(int v) : a(v) {} __device__ Counted(const Counted& o) : a(o.a +
            1) {}
            __device__ Counted& operator=(const Counted& o) { a = o.a + 10; return *this;
            } __device__ operator float() const { return a; } };
        __device__ float value(Counted c) { return c; }
        __global__ void k(float* x) { C<float> a(x[0], x[1]), b = a * a; C<double> d(-b);
            if (b == a) b = C<float>(100); Counted c(5), e = c; e = c; x[0] = d.r * 1000 - d.i + value(e); }""",
        3000 + 4 + 16,
    ),
    "constructors": (
        """struct D { int a, b; __device__ D(int x, int y) : a(x), b(y) {} __device__ D(int x) : D(x, 2) { b += 1;
            } __device__ D() : a(1) { b = a; } int c = 5; };
        __global__ void k(float* x) { D d(x[6]), e; D f[1] = {D(30)};
            x[0] = d.a + d.b * 100 + e.b * 1000 + e.c * 10000 + f[0].a; }""",
        7 + 300 + 1000 + 50000 + 30,
    ),
    "pointers": (
        """__global__ void k(float* x) { float *p = x + 3, *e = p + 4, s = 0; while (p != e) s += *p++;
            for (p = x + 1; p < e; p += 2) s += *p * 10;
            float* q = s > 0 ? x + 8 : nullptr; if (q && !(!q)) q[0] += 1; long d = e - x; x[d] = 2; (*--p)++;
            x[0] = s + *q + x[7] + d + *p; }""",
        (4 + 5 + 6 + 7) + (2 + 4 + 6) * 10 + 10 + 2 + 7 + 8,
    ),
    "numbers": (
        """__global__ void k(float* x) { int n = x[6]; char c = n; signed char s = -1; unsigned char u = s;
            short h = (short)70000; unsigned z = -1; bool two = 2;
            x[0] = c + s + u + h - 4464 + two + (z >> 28) + ((int)z >> 1) + (float)(1LL << 20) +
            (n > 1) - n / -3 % 2 + 1'000 + 0b1011 + 0x1.8p3f + 07; }""",
        7 - 1 + 255 + 0 + 1 + 15 - 1 + 2**20 + 1 - 0 + 1000 + 11 + 12 + 7,
    ),
    "deduced results": (
        """template <class A, class B> __device__ auto mul(A a, B b) -> decltype(a * b) { return a * b;
            } __device__ auto half(int a) { return a * 0.5; }
        struct S { struct In { float v; }; __device__ In get() const { return {3}; } };
        __global__ void k(float* x) { decltype(x[0]) r = x[0]; r = mul(2, x[1]) + half(3) + S().get().v; }""",
        4 + 1.5 + 3,
    ),
    "templates of templates": (
        """template <template <class> class F, class T> __device__ T apply(T a) { return F<T>::run(a); }
        template <class T> struct Square { __device__ static T run(T a) { return a * a; } };
        __global__ void k(float* x) { x[0] = apply<Square>(x[2]) + apply<Square, int>(4); }""",
        9 + 16,
    ),
    "choices between objects": (
        """struct P { int a; }; __device__ P make(int v) { P p; p.a = v; return p; }
        __global__ void k(float* x) { P p = x[0] > 5 ? make(1) : make(2); P q; q = x[1] > 1 ? p : make(3);
            (x[0] > 5 ? p : q).a += 40; x[0] = p.a + q.a + (x[3] > 1 ? p : q).a; }""",
        2 + 42 + 2,
    ),
    "memory of templates and functions": (
        """template <int N> __device__ float table(int i) { static const float t[3] = {1.0f * N, 20.0f, 300.0f};
            __shared__ float s[N];
            if (i < N) s[i] = t[i % 3]; __syncthreads(); return s[(i + 1) % N]; }
        __device__ float row_sum(const float (*t)[9], int r) { float s = 0; for (int i = 0; i < 8;
            ++i) s += t[r][i]; return s; }
        __global__ void k(float* x) { __shared__ float t[8][9]; volatile __shared__ int flag; int i = threadIdx.x;
            t[i / 8][i % 8] = x[i]; if (!i) flag = 3;
            __syncthreads(); float v = table<4>(i) + table<8>(i) * 1000 + row_sum(t, 1) + flag;
            if (i == 0) x[0] = v; }""",
        20 + 20000 + sum(range(9, 17)) + 3,
    ),
    "macros": (
        """#define CHECK(c, v) do { if (!(c)) { x[0] = (v); return; } } while (0)
        #define EACH(i, n) for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < (n); i += blockDim.x * gridDim.x)
        __global__ void k(float* x) { if (threadIdx.x) return; assert(x[0] > 0 && "positive");
            EACH(i, 100) CHECK(i < 50, i + 0.5f); }""",
        64.5,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SOURCES)
def test_runs_as_a_gpu_would(host, build, name: str) -> None:
    source, wanted = SOURCES[name]
    threads = [64] if "threadIdx" in source else [1]
    x = np.arange(1, 65, dtype=np.float32)
    assert host.run(build(source), [1], threads, [x])[0][0] == np.float32(wanted)
