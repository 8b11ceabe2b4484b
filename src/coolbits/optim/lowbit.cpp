// Fused updates with 8-bit states for CPUs, the same arithmetic as optim/reference.py, bit for bit: no multiplication
// and addition may be contracted to one (-ffp-contract=off), nothing is reordered. See optim/codecs.py for the codes.
//
// A call makes the blocks `begin` to `end` of all tensors together, counted one tensor after the other; every block is
// read once, updated and encoded while it is in the cache. `table` holds rows of addresses, one column a tensor.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

int32_t bits_of(float value) {
  int32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

float float_of(int32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// The magnitude's bits: their order is that of the magnitudes, with NaN on top.
int32_t magnitude(float value) { return bits_of(value) & 0x7fffffff; }

template <class Integer, int levels>
struct Linear {
  using Code = Integer;
  explicit Linear(const void*) {}
  float unit(float scale) const { return scale / levels; }
  float decode(Code code, float unit) const { return float(code) * unit; }
  Code encode(float ratio) const { return Code(int32_t(__builtin_rintf(ratio * levels))); }
};

// `tables` holds the 256 entries of the codebook, then the 255 middles between them, rounded down: optim/codebook.py,
// which also says how `encode` works.
template <bool is_signed>
struct Dynamic {
  using Code = uint8_t;
  const float *codebook, *middles;
  explicit Dynamic(const void* tables)
      : codebook(static_cast<const float*>(tables)), middles(static_cast<const float*>(tables) + 256) {}
  float unit(float scale) const { return scale; }
  float decode(Code code, float unit) const { return codebook[code] * unit; }
  Code encode(float ratio) const {
    const float size = std::fabs(ratio);
    float position = size * (1e6f / 0.9f) + 8 / 9.0f;
    position = std::min(position, size * (2e5f / 0.9f) + 16 / 9.0f);
    position = std::min(position, size * (4e4f / 0.9f) + 32 / 9.0f);
    position = std::min(position, size * (8e3f / 0.9f) + 64 / 9.0f);
    position = std::min(position, size * (16e2f / 0.9f) + 128 / 9.0f);
    position = std::min(position, size * (32e1f / 0.9f) + 256 / 9.0f);
    position = std::min(position, size * (64.0f / 0.9f) + 512 / 9.0f);
    int32_t below = int32_t(is_signed ? position - 0.5f : 2 * position - 1.5f);
    below = std::min(std::max(below, 0), is_signed ? 127 : 254);  // of a NaN, anything that is in the table
    if (is_signed) below = std::max(127 + (below ^ (bits_of(ratio) >> 31)), 0);  // 127 + below or 126 - below
    return Code(below + (ratio > middles[below]));
  }
};

using LinearSigned = Linear<int8_t, 127>;
using LinearUnsigned = Linear<uint8_t, 255>;
using DynamicSigned = Dynamic<true>;
using DynamicUnsigned = Dynamic<false>;

// Codes are bytes, which may alias everything: the loops become vector code only in functions of their own, which are
// not inlined and whose pointers are __restrict.
template <class Codec>
[[gnu::noinline]] void encode_block(const Codec codec, const float* __restrict values, int32_t largest,
                                    typename Codec::Code* __restrict codes, float* scale, int64_t count) {
  *scale = float_of(largest);
  const float divisor = largest == 0 ? 1.0f : float_of(largest);
  for (int64_t i = 0; i < count; ++i) codes[i] = codec.encode(values[i] / divisor);
}

template <class T>
T* at(int64_t address, int64_t index) {
  return reinterpret_cast<T*>(address) + index;
}

// Calls visit(tensor, block of it, first element, number of elements).
template <class Visit>
void for_blocks(const int64_t* sizes, int64_t begin, int64_t end, int64_t block_size, Visit visit) {
  int64_t passed = 0;
  for (int64_t tensor = 0; passed < end; ++tensor) {
    const int64_t blocks = (sizes[tensor] + block_size - 1) / block_size;
    for (int64_t block = std::max<int64_t>(begin - passed, 0); block < std::min(blocks, end - passed); ++block) {
      const int64_t start = block * block_size;
      visit(tensor, block, start, std::min(block_size, sizes[tensor] - start));
    }
    passed += blocks;
  }
}

struct AdamNumbers {
  float beta1, rest1, beta2, rest2, shrink, size, inverse_root, eps;
};

template <class First, class Second>
[[gnu::noinline]] void adam_block(float* __restrict weight, const float* __restrict gradient,
                                  typename First::Code* __restrict codes1, float* scale1,
                                  typename Second::Code* __restrict codes2, float* scale2, int64_t count,
                                  float* __restrict average, float* __restrict square, const First first,
                                  const Second second, const AdamNumbers n) {
  const float unit1 = first.unit(*scale1), unit2 = second.unit(*scale2);
  int32_t largest1 = 0, largest2 = 0;
  for (int64_t i = 0; i < count; ++i) {
    const float m = first.decode(codes1[i], unit1) * n.beta1 + gradient[i] * n.rest1;
    const float v = second.decode(codes2[i], unit2) * n.beta2 + gradient[i] * n.rest2 * gradient[i];
    weight[i] = weight[i] * n.shrink - m / (std::sqrt(v) * n.inverse_root + n.eps) * n.size;
    average[i] = m;
    square[i] = v;
    largest1 = std::max(largest1, magnitude(m));
    largest2 = std::max(largest2, magnitude(v));
  }
  encode_block(first, average, largest1, codes1, scale1, count);
  encode_block(second, square, largest2, codes2, scale2, count);
}

template <class First, class Second>
void adam(const int64_t* const table[7], int64_t begin, int64_t end, int64_t block_size, const First first,
          const Second second, const AdamNumbers& numbers) {
  std::vector<float> average(block_size), square(block_size);
  for_blocks(table[0], begin, end, block_size, [&](int64_t tensor, int64_t block, int64_t start, int64_t count) {
    adam_block(at<float>(table[1][tensor], start), at<float>(table[2][tensor], start),
               at<typename First::Code>(table[3][tensor], start), at<float>(table[4][tensor], block),
               at<typename Second::Code>(table[5][tensor], start), at<float>(table[6][tensor], block), count,
               average.data(), square.data(), first, second, numbers);
  });
}

struct MomentumNumbers {
  float momentum, shrink, lr;
};

// With `update` the outputs are weights, else they become the directions.
template <bool update, bool nesterov, class Codec>
[[gnu::noinline]] void momentum_block(float* __restrict output, const float* __restrict gradient,
                                      typename Codec::Code* __restrict codes, float* scale, int64_t count,
                                      float* __restrict momentum, const Codec codec, const MomentumNumbers n) {
  const float unit = codec.unit(*scale);
  int32_t largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    const float m = codec.decode(codes[i], unit) * n.momentum + gradient[i];
    const float direction = nesterov ? m * n.momentum + gradient[i] : m;
    output[i] = update ? output[i] * n.shrink - direction * n.lr : direction;
    momentum[i] = m;
    largest = std::max(largest, magnitude(m));
  }
  encode_block(codec, momentum, largest, codes, scale, count);
}

template <bool update, bool nesterov, class Codec>
void momentum(const int64_t* const table[5], int64_t begin, int64_t end, int64_t block_size, const Codec codec,
              const MomentumNumbers& numbers) {
  std::vector<float> momentum(block_size);
  for_blocks(table[0], begin, end, block_size, [&](int64_t tensor, int64_t block, int64_t start, int64_t count) {
    momentum_block<update, nesterov>(at<float>(table[1][tensor], start), at<float>(table[2][tensor], start),
                                     at<typename Codec::Code>(table[3][tensor], start),
                                     at<float>(table[4][tensor], block), count, momentum.data(), codec, numbers);
  });
}

template <bool update, class Codec>
void momentum(const int64_t* const table[5], int64_t begin, int64_t end, int64_t block_size, bool nesterov,
              const Codec codec, const MomentumNumbers& n) {
  if (nesterov)
    momentum<update, true>(table, begin, end, block_size, codec, n);
  else
    momentum<update, false>(table, begin, end, block_size, codec, n);
}

}  // namespace

// Rows of `table`: sizes, weights, gradients, codes and scales of the first moment, codes and scales of the second.
// Null for a codec's tables means that it is linear.
extern "C" void adam_step(const int64_t* const* table, int64_t begin, int64_t end, int64_t block_size,
                          const void* first, const void* second, const AdamNumbers* numbers) {
  if (first && second)
    adam(table, begin, end, block_size, DynamicSigned(first), DynamicUnsigned(second), *numbers);
  else if (first)
    adam(table, begin, end, block_size, DynamicSigned(first), LinearUnsigned(second), *numbers);
  else if (second)
    adam(table, begin, end, block_size, LinearSigned(first), DynamicUnsigned(second), *numbers);
  else
    adam(table, begin, end, block_size, LinearSigned(first), LinearUnsigned(second), *numbers);
}

// Rows of `table`: sizes, weights or directions, gradients, codes, scales.
extern "C" void momentum_step(const int64_t* const* table, int64_t begin, int64_t end, int64_t block_size,
                              const void* tables, bool nesterov, bool update, const MomentumNumbers* numbers) {
  if (tables && update)
    momentum<true>(table, begin, end, block_size, nesterov, DynamicSigned(tables), *numbers);
  else if (tables)
    momentum<false>(table, begin, end, block_size, nesterov, DynamicSigned(tables), *numbers);
  else if (update)
    momentum<true>(table, begin, end, block_size, nesterov, LinearSigned(tables), *numbers);
  else
    momentum<false>(table, begin, end, block_size, nesterov, LinearSigned(tables), *numbers);
}
