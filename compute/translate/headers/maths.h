#pragma once
namespace cuda {
INLINE f32 sqrtf(f32 x) { return __builtin_sqrtf(x); }
}
