// Exponential functions of vectors, from polynomials of our own: any compiler turns them into
// straight vector code.  Of the exponential, float is right to 1.3 units in the last place, double
// to 1.
//
// The coefficients are minimax fits (Remez) of the relative error.
#pragma once

#include <cstdint>
#include <cstring>

#include "cpu/vectors.h"

namespace perception3d {

template <typename Number>
struct ExpTable;

template <>
struct ExpTable<float> {
  typedef uint32_t Bits __attribute__((vector_size(64)));
  static constexpr int kMantissaBits = 23;
  static constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23: adding it leaves an integer below
  static constexpr float kLowest = -126.0f;       // 2^x is a normal number from here
  static constexpr float kHighest = 128.0f;       // 2^x is infinite from here
  // 2^f = 1 + f * poly(f) for |f| <= 1/2, relative error 9.1e-8.
  static constexpr float kExp2[] = {0.69314697759899204f, 0.24022242085376709f,
                                    0.055507337434700853f, 0.009671512639956455f,
                                    0.0013264727140072017f};
  // atanh(s) / s = 1 + s^2 * poly(s^2) for 0 <= s <= 1/3, relative error 4.5e-9.
  static constexpr float kArtanh[] = {0.333332065663662894f, 0.200108495291115807f,
                                      0.13999570544754345f, 0.140122293962449321f};
};

template <>
struct ExpTable<double> {
  typedef uint64_t Bits __attribute__((vector_size(64)));
  static constexpr int kMantissaBits = 52;
  static constexpr double kRounder = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double kLowest = -1022.0;
  static constexpr double kHighest = 1024.0;
  // Relative errors 3.4e-18 and 1.3e-18.
  static constexpr double kExp2[] = {
      0.69314718055994533,   0.24022650695910131,    0.055504108664820083,  0.0096181291075941201,
      0.0013333558146774621, 0.00015403530457112091, 1.5252733493127489e-5, 1.3215435282308488e-6,
      1.0178199571842138e-7, 7.0737832485031333e-9,  4.4347712982003773e-10};
  static constexpr double kArtanh[] = {
      0.333333333333331519,  0.200000000000786223,  0.14285714273926846,   0.111111119848709941,
      0.0909087196228379829, 0.0769327996514231083, 0.0665048674828419249, 0.0605304346053065493,
      0.0417004938616041699, 0.0850929003204825342};
};

constexpr double kLog2E = 1.4426950408889634;

template <typename Number, int kCount>
P3D_INLINE void evaluate_polynomial(const Number (&coefficients)[kCount], const Vector<Number>& x,
                                    Vector<Number>& result) {
  result = Vector<Number>{} + coefficients[kCount - 1];
  for (int k = kCount - 2; k >= 0; --k) result = result * x + coefficients[k];
}

// 2^(a * b) where kLowest <= a * b < kHighest in every lane.
template <typename Number>
P3D_INLINE void exp2_product(const Vector<Number>& a, const Vector<Number>& b,
                             Vector<Number>& result) {
  using Table = ExpTable<Number>;
  using Bits = typename Table::Bits;
  const Vector<Number> rounded = a * b + Table::kRounder;
  const Vector<Number> fraction = a * b - (rounded - Table::kRounder);
  Vector<Number> mantissa;
  evaluate_polynomial(Table::kExp2, fraction, mantissa);
  mantissa = mantissa * fraction + Number{1};
  Bits exponent, bits;
  std::memcpy(&exponent, &rounded, sizeof(exponent));
  std::memcpy(&bits, &mantissa, sizeof(bits));
  bits += exponent << Table::kMantissaBits;
  std::memcpy(&result, &bits, sizeof(result));
}

// 2^(a * b) of any numbers: 0 where it would not be a normal number, NaN stays NaN.
template <typename Number>
P3D_INLINE void exp2_product_any(const Vector<Number>& a, const Vector<Number>& b,
                                 Vector<Number>& result) {
  using Table = ExpTable<Number>;
  const Vector<Number> zero{}, one = zero + Number{1};
  const Vector<Number> product = a * b;
  const auto inside = (product >= Table::kLowest) & (product < Table::kHighest);
  // The factors, not the rounded product, so that numbers inside get the same bits as above.
  const Vector<Number> safe_a = inside ? a : zero, safe_b = inside ? b : one;
  Vector<Number> regular;
  exp2_product<Number>(safe_a, safe_b, regular);
  const Vector<Number> infinite = zero + Number(__builtin_inf());
  const Vector<Number> outside =
      product >= Table::kHighest ? infinite : (product < Table::kLowest ? zero : product);
  result = inside ? regular : outside;
}

// One of the two: kRegular promises the limits of the first.
template <bool kRegular, typename Number>
P3D_INLINE void exp2_product_if(const Vector<Number>& a, const Vector<Number>& b,
                                Vector<Number>& result) {
  if (kRegular) {
    exp2_product<Number>(a, b, result);
  } else {
    exp2_product_any<Number>(a, b, result);
  }
}

// e^x for x <= `highest`, where e^highest is a finite number; far below 0 the smallest normal
// number instead of less.  NaN stays NaN.
template <typename Number>
P3D_INLINE void exp_limited(const Vector<Number>& x, Number highest, Vector<Number>& result) {
  const Vector<Number> low = Vector<Number>{} + Number(ExpTable<Number>::kLowest / kLog2E);
  const Vector<Number> high = Vector<Number>{} + highest;
  const Vector<Number> scale = Vector<Number>{} + Number(kLog2E);
  const Vector<Number> floored = x < low ? low : x;
  const Vector<Number> limited = floored > high ? high : floored;
  exp2_product<Number>(limited, scale, result);
  result = x == x ? result : x;
}

// 1 / (1 + e^-x).
template <typename Number>
P3D_INLINE void sigmoid(const Vector<Number>& x, Vector<Number>& result) {
  Vector<Number> power;
  exp_limited<Number>(-x, Number(80), power);
  result = Number{1} / (power + Number{1});
}

// log(1 + e^x), x itself above 20 as in torch, and e^-|x|.
template <typename Number>
P3D_INLINE void softplus(const Vector<Number>& x, Vector<Number>& result, Vector<Number>& power) {
  const Vector<Number> zero{};
  const Vector<Number> small = x < zero ? x : -x;
  exp_limited<Number>(small, Number{0}, power);
  // log(1 + p) = 2 artanh(p / (2 + p))
  const Vector<Number> s = power / (power + Number{2}), square = s * s;
  Vector<Number> series;
  evaluate_polynomial(ExpTable<Number>::kArtanh, square, series);
  const Vector<Number> logarithm = Number{2} * (s + s * square * series);
  const Vector<Number> positive = x < zero ? zero : x;
  result = x > Number{20} ? x : positive + logarithm;
}

// The slope of softplus at x, given e^-|x|.
template <typename Number>
P3D_INLINE void softplus_slope(const Vector<Number>& x, const Vector<Number>& power,
                               Vector<Number>& slope) {
  const Vector<Number> zero{}, one = zero + Number{1};
  slope = x > Number{20} ? one : (x < zero ? power : one) / (power + Number{1});
}

// x times the share of a normal distribution below x: GELU in its exact form.  The relative error
// is 5e-7, and 6e-8 x^2 more where x < 0, from the rounding of x^2.
P3D_INLINE void gelu(const Vector<float>& x, Vector<float>& result) {
  // erfc(t) e^(t^2) = s * poly(s) with s = 1 / (1 + 0.3 t), t = |x| / sqrt(2) up to 9.4, where the
  // result is below all normal numbers; relative error 1.9e-8.
  static constexpr float kErfcx[] = {
      0.16919012367725372f, 0.17068466544151306f,  0.14852704107761383f,
      0.21428412199020386f, -0.09331514686346054f, 0.5459849238395691f,
      -0.5109014511108398f, 0.4849523901939392f,   -0.12940669059753418f};
  const Vector<float> zero{}, one = zero + 1.0f, size = x < zero ? -x : x;
  const Vector<float> s = 1.0f / (size * 0.21213203435596426f + 1.0f);  // 0.3 / sqrt(2)
  const Vector<float> exponent = x * x * static_cast<float>(-0.5 * kLog2E);
  const Vector<float> lowest = zero + ExpTable<float>::kLowest;
  const Vector<float> limited = exponent < lowest ? lowest : exponent;
  Vector<float> series, power;
  evaluate_polynomial(kErfcx, s, series);
  exp2_product<float>(limited, one, power);
  const Vector<float> beyond = 0.5f * s * series * (exponent < lowest ? zero : power);
  result = x * (x < zero ? beyond : one - beyond);
}

}  // namespace perception3d
