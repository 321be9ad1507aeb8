// The name under which torch knows our operators: the same schemas and shells are also compiled
// into a library for tests, whose CUDA kernels run on the interpreter.
#pragma once

#if defined(P3D_SIMT)
#define P3D_LIBRARY perception3d_simt
#else
#define P3D_LIBRARY perception3d
#endif

// torch's macro pastes its argument before it is expanded.
#define P3D_DEFINE_LIBRARY(name, module) STABLE_TORCH_LIBRARY(name, module)
