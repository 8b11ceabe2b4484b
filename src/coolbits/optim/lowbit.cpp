// Fused updates with 8-bit states for CPUs, the same arithmetic as optim/reference.py, bit for bit: no multiplication
// and addition may be contracted to one (-ffp-contract=off), nothing is reordered. See codecs.cpp for the codes.
//
// A call makes the blocks `begin` to `end` of all tensors together, counted one tensor after the other. The codes of a
// block need its largest magnitude: one loop over its chunks decodes and updates the states, a second one, while they
// are in the cache, encodes them. The first waits for memory, the second computes: AdamW's take turns, the second one
// block behind. `table` holds rows of addresses, one column a tensor.

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

// The same for strips of a few chunks, which the first cache holds.
constexpr int64_t strip = 256;
template <class Visit>
[[gnu::always_inline]] inline void for_strips(int64_t count, Visit visit) {
  for (int64_t start = 0; start < count; start += strip) visit(start, std::min(strip, count - start));
}

// The places in doubt of a strip's codes, chunk by chunk. They wait for its end: a branch in each chunk would cost as
// much as a third of encoding.
struct Doubts {
  uint32_t places[strip / chunk], any = 0;
  void note(int64_t start, uint32_t doubt) {
    places[start / chunk] = doubt;
    any |= doubt;
  }
  template <class Codec>
  void settle(const Codec codec, const float* values, const Divisor divisor, typename Codec::Code* codes,
              int64_t count) const {
    if (any)
      for (int64_t start = 0; start < count; start += chunk)
        ::settle(codec, values + start, divisor, codes + start, count - start, places[start / chunk]);
  }
};

// The largest magnitude of what it has seen, chunk by chunk.
struct Largest {
  int32_t bits[chunk] = {};  // of each place in a chunk: reduced at the end only
  void see(int64_t place, float value) { bits[place] = std::max(bits[place], magnitude(value)); }
  float value() const {
#ifdef __AVX512F__
    return float_of(_mm512_reduce_max_epi32(_mm512_loadu_si512(bits)));
#else
    return float_of(*std::max_element(bits, bits + chunk));
#endif
  }
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

// A block on its way: `average` and `square` are its new states, the divisors those that encode them.
template <class First, class Second>
struct AdamBlock {
  float* weight;
  const float* gradient;
  typename First::Code* codes1;
  float* scale1;
  typename Second::Code* codes2;
  float* scale2;
  int64_t count;
  float *average, *square;
  Divisor divisor1, divisor2;
};

// Codes are bytes, which may alias everything: the loops become vector code only in functions of their own, which are
// not inlined and whose pointers are __restrict.
template <class First, class Second>
[[gnu::noinline]] void adam_moments(const float* __restrict gradient, const typename First::Code* __restrict codes1,
                                    float unit1, const typename Second::Code* __restrict codes2, float unit2,
                                    int64_t count, float* __restrict average, float* __restrict square,
                                    Largest& largest1, Largest& largest2, const First first, const Second second,
                                    const AdamNumbers n) {
  Largest seen1 = largest1, seen2 = largest2;
  decode_ahead(first, codes1, unit1, average, count);
  decode_ahead(second, codes2, unit2, square, count);
  for_chunks(count, [&](int64_t start, auto size) {
    float old1[chunk], old2[chunk];
    decode(first, codes1 + start, unit1, average + start, old1, size);
    decode(second, codes2 + start, unit2, square + start, old2, size);
    for (int64_t i = 0; i < size; ++i) {
      const float g = gradient[start + i];
      const float m = old1[i] * n.beta1 + g * n.rest1;
      const float v = old2[i] * n.beta2 + g * n.rest2 * g;
      average[start + i] = m;
      square[start + i] = v;
      seen1.see(i, m);
      seen2.see(i, v);
    }
  });
  largest1 = seen1;
  largest2 = seen2;
}

// Meanwhile asks for what is read after the next strip: of this block and, `later`, of the one after it.
template <class First, class Second>
[[gnu::noinline]] void adam_encode(float* __restrict weight, const float* __restrict average,
                                   const float* __restrict square, const Divisor divisor1,
                                   typename First::Code* __restrict codes1, const Divisor divisor2,
                                   typename Second::Code* __restrict codes2, int64_t count, const First first,
                                   const Second second, const AdamNumbers n, const float* later_gradient,
                                   const typename First::Code* later1, const typename Second::Code* later2) {
  const auto ready1 = first.ready();
  const auto ready2 = second.ready();
  Doubts doubts1, doubts2;
  for_chunks(count, [&](int64_t start, auto size) {
    fetch(weight + start + 2 * strip, later_gradient + start, later1 + start, later2 + start);
    doubts1.note(start, guess(first, average + start, divisor1, codes1 + start, size, ready1));
    doubts2.note(start, guess(second, square + start, divisor2, codes2 + start, size, ready2));
    for (int64_t i = start; i < start + size; ++i)
      weight[i] = weight[i] * n.shrink - average[i] / (std::sqrt(square[i]) * n.inverse_root + n.eps) * n.size;
  });
  doubts1.settle(first, average, divisor1, codes1, count);
  doubts2.settle(second, square, divisor2, codes2, count);
}

// Makes the new states of `block` and, strip by strip in turn with it, the codes and weights of the block before it.
template <class First, class Second>
void adam_blocks(const AdamBlock<First, Second>& before, AdamBlock<First, Second>& block, const First first,
                 const Second second, const AdamNumbers& numbers) {
  Largest largest1, largest2;
  const float unit1 = block.count ? first.unit(*block.scale1) : 0, unit2 = block.count ? second.unit(*block.scale2) : 0;
  for (int64_t start = 0; start < std::max(before.count, block.count); start += strip) {
    if (start < block.count)
      adam_moments(block.gradient + start, block.codes1 + start, unit1, block.codes2 + start, unit2,
                   std::min(strip, block.count - start), block.average + start, block.square + start, largest1,
                   largest2, first, second, numbers);
    if (start < before.count)
      adam_encode(before.weight + start, before.average + start, before.square + start, before.divisor1,
                  before.codes1 + start, before.divisor2, before.codes2 + start, std::min(strip, before.count - start),
                  first, second, numbers, block.gradient + start + 2 * strip, block.codes1 + start + 2 * strip,
                  block.codes2 + start + 2 * strip);
  }
  if (block.count == 0) return;
  *block.scale1 = largest1.value();
  *block.scale2 = largest2.value();
  block.divisor1 = divisor_of<First>(*block.scale1);
  block.divisor2 = divisor_of<Second>(*block.scale2);
}

template <class First, class Second>
void adam(const int64_t* const table[7], int64_t begin, int64_t end, int64_t block_size, const First first,
          const Second second, const AdamNumbers& numbers) {
  std::vector<float> states(4 * block_size);
  float* own = states.data();
  float* other = own + 2 * block_size;
  AdamBlock<First, Second> before = {}, block = {};
  for_blocks(table[0], begin, end, block_size, [&](int64_t tensor, int64_t place, int64_t start, int64_t count) {
    block = {at<float>(table[1][tensor], start),
             at<float>(table[2][tensor], start),
             at<typename First::Code>(table[3][tensor], start),
             at<float>(table[4][tensor], place),
             at<typename Second::Code>(table[5][tensor], start),
             at<float>(table[6][tensor], place),
             count,
             own,
             own + block_size,
             {},
             {}};
    adam_blocks(before, block, first, second, numbers);
    before = block;
    std::swap(own, other);
  });
  block = {};
  adam_blocks(before, block, first, second, numbers);
}

struct MomentumNumbers {
  float momentum, shrink, lr;
};

// With `update` the outputs are weights, else they become the directions.
// As for AdamW, but block by block.
template <bool update, bool nesterov, class Codec>
[[gnu::noinline]] void momentum_block(float* __restrict output, const float* __restrict gradient,
                                      typename Codec::Code* __restrict codes, float* scale, int64_t count,
                                      float* __restrict momentum, const Codec codec, const MomentumNumbers n) {
  const float unit = codec.unit(*scale);
  Largest largest;
  for_strips(count, [&](int64_t begin, int64_t length) {
    decode_ahead(codec, codes + begin, unit, momentum + begin, length);
    for_chunks(length, [&](int64_t place, auto size) {
      const int64_t start = begin + place;
      float old[chunk];
      decode(codec, codes + start, unit, momentum + start, old, size);
      for (int64_t i = 0; i < size; ++i) {
        const float g = gradient[start + i];
        const float m = old[i] * n.momentum + g;
        const float direction = nesterov ? m * n.momentum + g : m;
        output[start + i] = update ? output[start + i] * n.shrink - direction * n.lr : direction;
        momentum[start + i] = m;
        largest.see(i, m);
      }
    });
  });
  *scale = largest.value();
  const Divisor divisor = divisor_of<Codec>(*scale);
  const auto ready = codec.ready();
  for_strips(count, [&](int64_t begin, int64_t length) {
    Doubts doubts;
    for_chunks(length, [&](int64_t place, auto size) {
      const int64_t start = begin + place;
      fetch(gradient + start + count, output + start + count, codes + start + count);
      doubts.note(place, guess(codec, momentum + start, divisor, codes + start, size, ready));
    });
    doubts.settle(codec, momentum + begin, divisor, codes + begin, length);
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
