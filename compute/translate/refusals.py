"""What CUDA has and this compiler does not, by name, each with its reason."""

_WARP = "only the forms that end in _sync are supported: they name the lanes that take part"
_TEXTURE = "textures and surfaces are not supported: pass the array as a pointer"
_RANDOM = "curand is not supported: write a counter-based generator, such as Philox, in the kernel"
_GROUPS = "cooperative groups are not supported: use __syncthreads and the _sync warp functions"
_CLOCK = "clocks and processor ids are not supported: results may not depend on them"
_HEAP = "memory cannot be allocated inside a kernel: use local or shared arrays, or pass a pointer"
_HOST = "the CUDA runtime cannot be called from a kernel"
_HALF = "half precision needs #include <cuda_fp16.h>, for float16 <cupy/float16.cuh>"
_COMPLEX = "complex numbers need #include <cupy/complex.cuh>"
_CUCOMPLEX = "these complex numbers need #include <cuComplex.h>"
_FP8 = "floats of 8 bits are not supported: use half, or integers"
_MANAGED = "managed memory is not supported: pass the array as a pointer"
_BFLOAT = "bfloat16 is not supported: use float, or half"
_STD = "of the C++ library there are maths, <algorithm>'s min and max, <limits>, <type_traits> and <utility>"
_LIBRARY = "libraries of device code are not supported: write it in CUDA C, or as an array operation"
_ASYNC = "asynchronous copies and barriers are not supported: copy, then call __syncthreads"
_MATRIX = "tensor core functions are not supported"
_VECTOR = "SIMD video instructions are not supported"

NAMES = {
    **dict.fromkeys(("__shfl", "__shfl_up", "__shfl_down", "__shfl_xor", "__ballot", "__any", "__all"), _WARP),
    **dict.fromkeys(("__activemask", "__match_any_sync", "__match_all_sync"), "this warp function is not supported"),
    **dict.fromkeys(("cooperative_groups", "cg", "this_thread_block", "this_grid"), _GROUPS),
    **dict.fromkeys(("clock", "clock64", "__nanosleep", "globaltimer", "__globaltimer"), _CLOCK),
    **dict.fromkeys(("malloc", "free", "new", "delete", "alloca"), _HEAP),
    **dict.fromkeys(("fprintf", "puts", "putchar", "vprintf", "sprintf", "snprintf"), "printf is the only one"),
    **dict.fromkeys(("memcpy", "memset"), "the memory functions need #include <cstring>"),
    "memmove": "write a loop that begins at the right end",
    **dict.fromkeys(("half", "half2", "__half", "__half2", "float16"), _HALF),
    **dict.fromkeys(("__nv_bfloat16", "__nv_bfloat162", "nv_bfloat16", "bfloat16"), _BFLOAT),
    **dict.fromkeys(("complex", "thrust"), _COMPLEX),
    **dict.fromkeys(("cuFloatComplex", "cuDoubleComplex", "cuComplex"), _CUCOMPLEX),
    **dict.fromkeys(("std", "vector", "string", "array", "tuple", "pair", "function", "sort", "cout", "endl"), _STD),
    "cub": _LIBRARY,
    "__managed__": _MANAGED,
    **dict.fromkeys(("wmma", "nvcuda", "mma"), _MATRIX),
}
PREFIXES = {
    "tex": _TEXTURE,
    "surf": _TEXTURE,
    "cudaTexture": _TEXTURE,
    "cudaSurface": _TEXTURE,
    "curand": _RANDOM,
    "cuda": _HOST,
    "__reduce_": "warp reductions are not supported: use __shfl_down_sync",
    "__pipeline_": _ASYNC,
    "__half": _HALF,
    "__h": _HALF,
    "__float2half": _HALF,
    "__bfloat": _BFLOAT,
    "__nv_fp8": _FP8,
    "__v": _VECTOR,
}
FILES = {
    "cooperative_groups": _GROUPS,
    "curand": _RANDOM,
    "cuda_bf16": _BFLOAT,
    "cuda_fp8": _FP8,
    "cupy/bfloat16": _BFLOAT,
    "cuda/": _STD,
    "complex": _COMPLEX,
    "thrust": _LIBRARY,
    "cub/": _LIBRARY,
    "cublas": _LIBRARY,
    "cufft": _LIBRARY,
    "mma": _MATRIX,
    "texture": _TEXTURE,
    "surface": _TEXTURE,
}


def why_no_file(name: str) -> str:
    """Return why a file cannot be included."""
    for prefix, reason in FILES.items():
        if name.startswith(prefix):
            return reason
    return "a kernel is one source text, other files cannot be included"


def why_refused(name: str) -> str:
    """Return why a name that the source does not declare cannot be used."""
    if name in NAMES:
        return f"{name} is not supported: {NAMES[name]}"
    for prefix, reason in PREFIXES.items():
        if name.startswith(prefix) and len(name) > len(prefix):
            return f"{name} is not supported: {reason}"
    return f"{name} is not declared, neither in the source nor in the device header"
