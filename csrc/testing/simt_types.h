// CUDA's vector types, with CUDA's alignment.
#pragma once

#include <cstdint>

struct uint3 {
  unsigned int x, y, z;
};

struct dim3 {
  unsigned int x = 1, y = 1, z = 1;
  constexpr dim3(unsigned int x_ = 1, unsigned int y_ = 1, unsigned int z_ = 1)
      : x(x_), y(y_), z(z_) {}
};

#define P3D_SIMT_VECTORS(Type, name)                                                          \
  struct alignas(2 * sizeof(Type)) name##2 { Type x, y; };                                    \
  struct name##3 { Type x, y, z; };                                                           \
  struct alignas(4 * sizeof(Type) > 16 ? 16 : 4 * sizeof(Type)) name##4 { Type x, y, z, w; }; \
  inline name##2 make_##name##2(Type x, Type y) { return {x, y}; }                            \
  inline name##3 make_##name##3(Type x, Type y, Type z) { return {x, y, z}; }                 \
  inline name##4 make_##name##4(Type x, Type y, Type z, Type w) { return {x, y, z, w}; }

#define P3D_SIMT_VECTORS_WITHOUT_3(Type, name)                                                \
  struct alignas(2 * sizeof(Type)) name##2 { Type x, y; };                                    \
  struct alignas(4 * sizeof(Type) > 16 ? 16 : 4 * sizeof(Type)) name##4 { Type x, y, z, w; }; \
  inline name##2 make_##name##2(Type x, Type y) { return {x, y}; }                            \
  inline name##4 make_##name##4(Type x, Type y, Type z, Type w) { return {x, y, z, w}; }

P3D_SIMT_VECTORS(float, float)
P3D_SIMT_VECTORS(double, double)
P3D_SIMT_VECTORS(int, int)
P3D_SIMT_VECTORS_WITHOUT_3(unsigned int, uint)
P3D_SIMT_VECTORS(short, short)
P3D_SIMT_VECTORS(unsigned short, ushort)
P3D_SIMT_VECTORS(long long, longlong)
P3D_SIMT_VECTORS(unsigned long long, ulonglong)
P3D_SIMT_VECTORS(unsigned char, uchar)
#undef P3D_SIMT_VECTORS
#undef P3D_SIMT_VECTORS_WITHOUT_3
