// A class template with operators, methods and a nested type; instances by value and by reference.
template <class T, int N> struct Vec {
    typedef T value_type;
    T v[N];
    __device__ T& operator[](int i) { return v[i]; }
    __device__ const T& operator[](int i) const { return v[i]; }
    __device__ Vec operator+(const Vec& o) const {
        Vec r;
        for (int i = 0; i < N; ++i) r.v[i] = v[i] + o.v[i];
        return r;
    }
    __device__ Vec& operator*=(T s) {
        for (T& e : v) e *= s;
        return *this;
    }
    __device__ static Vec filled(T s) {
        Vec r;
        for (int i = 0; i < N; ++i) r[i] = s;
        return r;
    }
};
template <class V> __device__ typename V::value_type dot(const V& a, const V& b) {
    typename V::value_type s = 0;
    for (int i = 0; i < int(sizeof(V) / sizeof(s)); ++i) s += a[i] * b[i];
    return s;
}
typedef Vec<float, 3> V3;
extern "C" __global__ void vectors(const V3* a, const V3* b, V3* sum, float* dots, long* ints, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    V3 s = a[i] + b[i];
    s *= 2.0f;
    sum[i] = s + V3::filled(1.0f);
    dots[i] = dot(a[i], b[i]);
    Vec<long, 2> w = {{i, 2L * i}};
    ints[i] = dot(w, w + Vec<long, 2>::filled(1));
}
