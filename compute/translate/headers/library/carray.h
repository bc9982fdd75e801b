// cupy/carray.cuh: CuPy's view of an array of any strides, and an index that counts in its shape.
//
// A kernel makes them from a pointer, a shape and strides (in bytes). They cannot be parameters: they hold a pointer.
#pragma once
#pragma clang attribute push(__attribute__((device)), apply_to = function)

#define CUPY_FOR(i, n)                                                              \
  for (ptrdiff_t i = (ptrdiff_t)blockIdx.x * blockDim.x + threadIdx.x; i < (n);     \
       i += (ptrdiff_t)blockDim.x * gridDim.x)

template <class T, int _ndim, bool _c_contiguous = false, bool _use_32bit_indexing = false> class CArray {
  T* data_;
  ptrdiff_t size_;
  ptrdiff_t shape_[_ndim];
  ptrdiff_t strides_[_ndim];

 public:
  static const int ndim = _ndim;
  static const bool c_contiguous = _c_contiguous;
  template <class Int1, class Int2> CArray(T* data, const Int1* shape, const Int2* strides) {
    data_ = data;
    size_ = 1;
    for (int k = 0; k < _ndim; ++k) {
      size_ *= shape[k];
      shape_[k] = shape[k];
      strides_[k] = strides[k];
    }
  }
  template <class Int> CArray(T* data, const Int* shape) {
    static_assert(_c_contiguous, "give the strides of an array that is not contiguous");
    data_ = data;
    size_ = 1;
    for (int k = _ndim - 1; k >= 0; --k) {
      shape_[k] = shape[k];
      strides_[k] = size_ * (ptrdiff_t)sizeof(T);
      size_ *= shape[k];
    }
  }
  ptrdiff_t size() const { return size_; }
  const ptrdiff_t* shape() const { return shape_; }
  const ptrdiff_t* strides() const { return strides_; }
  template <class Int> T& operator[](const Int (&index)[_ndim]) const {
    ptrdiff_t at = 0;
    for (int k = 0; k < _ndim; ++k) at += strides_[k] * index[k];
    return data_[at / (ptrdiff_t)sizeof(T)];
  }
  T& operator[](ptrdiff_t i) const {
    if (_c_contiguous) return data_[i];
    ptrdiff_t at = 0;
    for (int k = _ndim - 1; k > 0; --k) {
      at += strides_[k] * (i % shape_[k]);
      i /= shape_[k];
    }
    return data_[(at + strides_[0] * i) / (ptrdiff_t)sizeof(T)];
  }
};

template <int _ndim, bool _use_32bit_indexing = false> class CIndexer {
  ptrdiff_t size_;
  ptrdiff_t shape_[_ndim];
  ptrdiff_t index_[_ndim];
  typedef ptrdiff_t index_t[_ndim];

 public:
  static const int ndim = _ndim;
  template <class Int> explicit CIndexer(const Int* shape) {
    size_ = 1;
    for (int k = 0; k < _ndim; ++k) {
      size_ *= shape[k];
      shape_[k] = shape[k];
    }
  }
  ptrdiff_t size() const { return size_; }
  const index_t& get() const { return index_; }
  void set(ptrdiff_t i) {
    for (int k = _ndim - 1; k > 0; --k) {
      index_[k] = i % shape_[k];
      i /= shape_[k];
    }
    index_[0] = i;
  }
};

inline int _floor_divide(int x, int y) { return y == 0 ? 0 : x / y - ((x < 0) != (y < 0) && x % y != 0); }
inline long long _floor_divide(long long x, long long y) { return y == 0 ? 0 : x / y - ((x < 0) != (y < 0) && x % y != 0); }
inline unsigned _floor_divide(unsigned x, unsigned y) { return y == 0 ? 0 : x / y; }
inline unsigned long long _floor_divide(unsigned long long x, unsigned long long y) { return y == 0 ? 0 : x / y; }
inline float _floor_divide(float x, float y) { return floorf(x / y); }
inline double _floor_divide(double x, double y) { return floor(x / y); }

#pragma clang attribute pop
