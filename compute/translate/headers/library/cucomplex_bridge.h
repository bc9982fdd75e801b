// What CuPy's option translate_cucomplex puts before a source: cuComplex.h's names in terms of complex<T>.
#pragma once
#include <cupy/complex.cuh>

#define cuFloatComplex complex<float>
#define cuComplex complex<float>
#define cuDoubleComplex complex<double>
#define make_cuFloatComplex(a, b) complex<float>(a, b)
#define make_cuComplex(a, b) complex<float>(a, b)
#define make_cuDoubleComplex(a, b) complex<double>(a, b)
#define cuComplexDoubleToFloat complex<float>
#define cuComplexFloatToDouble complex<double>
#define cuCrealf real
#define cuCreal real
#define cuCimagf imag
#define cuCimag imag
#define cuConjf conj
#define cuConj conj
#define cuCabsf abs
#define cuCabs abs
#define cuCaddf(a, b) ((a) + (b))
#define cuCadd(a, b) ((a) + (b))
#define cuCsubf(a, b) ((a) - (b))
#define cuCsub(a, b) ((a) - (b))
#define cuCmulf(a, b) ((a) * (b))
#define cuCmul(a, b) ((a) * (b))
#define cuCdivf(a, b) ((a) / (b))
#define cuCdiv(a, b) ((a) / (b))
#define cuCfmaf(a, b, c) ((a) * (b) + (c))
#define cuCfma(a, b, c) ((a) * (b) + (c))
