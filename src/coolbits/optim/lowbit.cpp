// Fused updates with 8-bit states for CPUs, the same arithmetic as optim/reference.py, bit for bit: no multiplication
// and addition may be contracted to one (-ffp-contract=off), nothing is reordered. See codecs.cpp for the codes.
//
// A call makes the blocks `begin` to `end` of all tensors together, counted one tensor after the other. The codes of a
// block need its largest magnitude: one loop over its chunks decodes and updates the states, a second one, while they
// are in the cache, encodes them. `table` holds rows of addresses, one column a tensor.

#include <type_traits>
#include <vector>

#include "codecs.cpp"

namespace {

using LinearSigned = Linear<int8_t, 127>;
using LinearUnsigned = Linear<uint8_t, 255>;
using DynamicSigned = Dynamic<true>;
using DynamicUnsigned = Dynamic<false>;

// Calls visit(first element, number of elements); but for a short last chunk the compiler knows the number.
template <class Visit>
[[gnu::always_inline]] inline void for_chunks(int64_t count, Visit visit) {
  int64_t start = 0;
  for (; start + chunk <= count; start += chunk) visit(start, std::integral_constant<int64_t, chunk>());
  if (start < count) visit(start, count - start);
}

// The largest magnitude of what it has seen, chunk by chunk.
struct Largest {
  int32_t bits[chunk] = {};  // of each place in a chunk: reduced at the end only
  void see(int64_t place, float value) { bits[place] = std::max(bits[place], magnitude(value)); }
  float value() const { return float_of(*std::max_element(bits, bits + chunk)); }
};

// Asks for memory that is read soon: what the other loop of a block reads, or the next block. Processors guess what comes
// next only within a page, which a block often fills. Where nothing is, nothing happens.
template <class... T>
[[gnu::always_inline]] inline void fetch(const T*... addresses) {
  (__builtin_prefetch(addresses), ...);
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

// Codes are bytes, which may alias everything: the loops become vector code only in functions of their own, which are
// not inlined and whose pointers are __restrict.
template <class First, class Second>
[[gnu::noinline]] void adam_block(float* __restrict weight, const float* __restrict gradient,
                                  typename First::Code* __restrict codes1, float* scale1,
                                  typename Second::Code* __restrict codes2, float* scale2, int64_t count,
                                  float* __restrict average, float* __restrict square, const First first,
                                  const Second second, const AdamNumbers n) {
  const float unit1 = first.unit(*scale1), unit2 = second.unit(*scale2);
  Largest largest1, largest2;
  for_chunks(count, [&](int64_t start, auto size) {
    fetch(weight + start);
    float old1[chunk], old2[chunk];
    first.decode(codes1 + start, unit1, old1, size);
    second.decode(codes2 + start, unit2, old2, size);
    for (int64_t i = 0; i < size; ++i) {
      const float g = gradient[start + i];
      const float m = old1[i] * n.beta1 + g * n.rest1;
      const float v = old2[i] * n.beta2 + g * n.rest2 * g;
      average[start + i] = m;
      square[start + i] = v;
      largest1.see(i, m);
      largest2.see(i, v);
    }
  });
  *scale1 = largest1.value();
  *scale2 = largest2.value();
  const Divisor divisor1 = divisor_of<First>(*scale1), divisor2 = divisor_of<Second>(*scale2);
  for_chunks(count, [&](int64_t start, auto size) {
    fetch(gradient + start + count, codes1 + start + count, codes2 + start + count);
    encode(first, average + start, divisor1, codes1 + start, size);
    encode(second, square + start, divisor2, codes2 + start, size);
    for (int64_t i = start; i < start + size; ++i)
      weight[i] = weight[i] * n.shrink - average[i] / (std::sqrt(square[i]) * n.inverse_root + n.eps) * n.size;
  });
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
  Largest largest;
  for_chunks(count, [&](int64_t start, auto size) {
    float old[chunk];
    codec.decode(codes + start, unit, old, size);
    for (int64_t i = 0; i < size; ++i) {
      const float g = gradient[start + i];
      const float m = old[i] * n.momentum + g;
      const float direction = nesterov ? m * n.momentum + g : m;
      output[start + i] = update ? output[start + i] * n.shrink - direction * n.lr : direction;
      momentum[start + i] = m;
      largest.see(i, m);
    }
  });
  *scale = largest.value();
  const Divisor divisor = divisor_of<Codec>(*scale);
  for_chunks(count, [&](int64_t start, auto size) {
    fetch(gradient + start + count, output + start + count, codes + start + count);
    encode(codec, momentum + start, divisor, codes + start, size);
  });
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
