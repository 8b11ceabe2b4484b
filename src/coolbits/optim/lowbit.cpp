// Fused updates with 8-bit states for CPUs, the same arithmetic as optim/reference.py, bit for bit: no multiplication
// and addition may be contracted to one (-ffp-contract=off), nothing is reordered. See codecs.cpp for the codes.
//
// A call makes the blocks `begin` to `end` of all tensors together, counted one tensor after the other. The codes of a
// block need its largest magnitude: its chunks are decoded and updated first and, while they are in the cache, encoded.
// The first waits for memory, the second computes: AdamW's loop does both in turns, the second one run behind, which is
// a large block or some small ones. `table` holds rows of addresses, one column a tensor.

#include <type_traits>
#include <vector>

#include "codecs.cpp"

namespace {

using LinearSigned = Linear<int8_t, 127>;
using LinearUnsigned = Linear<uint8_t, 255>;
using DynamicSigned = Dynamic<true>;
using DynamicUnsigned = Dynamic<false>;

// Calls visit(first element, number of elements) from `start` on; but for a short last part the compiler knows the number.
template <int64_t length = chunk, class Visit>
[[gnu::always_inline]] inline void for_parts(int64_t start, int64_t count, Visit visit) {
  for (; start + length <= count; start += length) visit(start, std::integral_constant<int64_t, length>());
  if (start < count) visit(start, count - start);
}

// The largest magnitude of what it has seen. Each place of a few has its own, reduced at the end only.
struct Largest {
  static constexpr int64_t places = 16;
  int32_t bits[places] = {};
  void see(int64_t place, float value) { bits[place] = std::max(bits[place], magnitude(value)); }
  float value() const {
    int32_t largest = 0;
    for (const int32_t some : bits) largest = std::max(largest, some);
    return float_of(largest);
  }
};

// Asks for a chunk that is read soon: what the other loop of a block reads, or the next block. Processors guess what comes
// next only within a page, which a block often fills. Where nothing is, nothing happens.
template <class T>
[[gnu::always_inline]] inline void fetch(const T* address) {
  constexpr int64_t line = 64 / sizeof(T);
  for (int64_t i = 0; i < chunk; i += line) __builtin_prefetch(address + i);
}

template <class T>
T* at(int64_t address, int64_t index) {
  return reinterpret_cast<T*>(address) + index;
}

// Calls visit(tensor, block of it, first element, number of elements), for runs of up to `most` blocks of a tensor.
template <class Visit>
void for_runs(const int64_t* sizes, int64_t begin, int64_t end, int64_t block_size, int64_t most, Visit visit) {
  int64_t passed = 0;
  for (int64_t tensor = 0; passed < end; ++tensor) {
    const int64_t blocks = (sizes[tensor] + block_size - 1) / block_size, last = std::min(blocks, end - passed);
    for (int64_t block = std::max<int64_t>(begin - passed, 0); block < last; block += most) {
      const int64_t start = block * block_size;
      visit(tensor, block, start, std::min(std::min(most, last - block) * block_size, sizes[tensor] - start));
    }
    passed += blocks;
  }
}

struct AdamNumbers {
  float beta1, rest1, beta2, rest2, shrink, size, inverse_root, eps;
};

// A run on its way; `average` and `square` are its new states.
template <class First, class Second>
struct AdamRun {
  int64_t count;
  float* weight;
  const float* gradient;
  typename First::Code* codes1;
  float* scales1;
  typename Second::Code* codes2;
  float* scales2;
  float *average, *square;
};

// Makes new states and scales and, chunk by chunk in turn with them, codes and weights of the run before. Meanwhile asks
// for what is read soon, of both.
//
// Codes are bytes, which may alias everything: the loops become vector code only in a function of their own, which is
// not inlined and whose pointers are __restrict.
template <class First, class Second>
[[gnu::noinline]] void adam_pass(int64_t count, const float* __restrict gradient,
                                 const typename First::Code* __restrict old_codes1, float* __restrict new_scales1,
                                 const typename Second::Code* __restrict old_codes2, float* __restrict new_scales2,
                                 float* __restrict new_average, float* __restrict new_square, int64_t count_before,
                                 float* __restrict weight, const float* __restrict average,
                                 const float* __restrict square, typename First::Code* __restrict codes1,
                                 const float* __restrict scales1, typename Second::Code* __restrict codes2,
                                 const float* __restrict scales2, int64_t block_size, const First first,
                                 const Second second, const AdamNumbers n) {
  constexpr int64_t later = 512;
  const auto ready1 = first.ready();
  const auto ready2 = second.ready();
  for (int64_t begin = 0, block = 0; begin < std::max(count, count_before); begin += block_size, ++block) {
    const float unit1 = begin < count ? first.unit(new_scales1[block]) : 0;
    const float unit2 = begin < count ? second.unit(new_scales2[block]) : 0;
    Largest largest1, largest2;
    const auto decode = [&](int64_t start, auto size) __attribute__((always_inline)) {
      fetch(gradient + start + later);
      fetch(old_codes1 + start + later);
      fetch(old_codes2 + start + later);
      float old1[chunk], old2[chunk];
      first.decode(old_codes1 + start, unit1, old1, size);
      second.decode(old_codes2 + start, unit2, old2, size);
      for_parts<Largest::places>(0, size, [&](int64_t from, auto length) __attribute__((always_inline)) {
        for (int64_t i = 0; i < length; ++i) {
          const int64_t place = from + i;
          const float g = gradient[start + place];
          const float m = old1[place] * n.beta1 + g * n.rest1;
          const float v = old2[place] * n.beta2 + g * n.rest2 * g;
          new_average[start + place] = m;
          new_square[start + place] = v;
          largest1.see(i, m);
          largest2.see(i, v);
        }
      });
    };
    const Divisor divisor1 = divisor_of<First>(begin < count_before ? scales1[block] : 0);
    const Divisor divisor2 = divisor_of<Second>(begin < count_before ? scales2[block] : 0);
    const auto encode = [&](int64_t start, auto size) __attribute__((always_inline)) {
      fetch(weight + start + later);
      const uint64_t doubt1 = guess(first, average + start, divisor1, codes1 + start, size, ready1);
      const uint64_t doubt2 = guess(second, square + start, divisor2, codes2 + start, size, ready2);
      for (int64_t i = start; i < start + size; ++i)
        weight[i] = weight[i] * n.shrink - average[i] / (std::sqrt(square[i]) * n.inverse_root + n.eps) * n.size;
      if (doubt1 | doubt2) [[unlikely]] {
        settle(first, average + start, divisor1, codes1 + start, size, doubt1);
        settle(second, square + start, divisor2, codes2 + start, size, doubt2);
      }
    };
    const int64_t end = std::min(begin + block_size, count), end_before = std::min(begin + block_size, count_before);
    const int64_t both = begin + std::max<int64_t>(std::min(end, end_before) - begin, 0) / chunk * chunk;
    for_parts(begin, both, [&](int64_t start, auto size) __attribute__((always_inline)) {
      decode(start, size);
      encode(start, size);
    });
    for_parts(both, end, decode);
    for_parts(both, end_before, encode);
    if (begin < count) {
      new_scales1[block] = largest1.value();
      new_scales2[block] = largest2.value();
    }
  }
}

template <class First, class Second>
void adam(const int64_t* const table[7], int64_t begin, int64_t end, int64_t block_size, const First first,
          const Second second, const AdamNumbers& numbers) {
  const int64_t most = std::max<int64_t>(2048 / block_size, 1), size = most * block_size;
  std::vector<float> states(4 * size);
  float* own = states.data();
  float* other = own + 2 * size;
  AdamRun<First, Second> before = {};
  const auto pass = [&](const AdamRun<First, Second>& run) {
    adam_pass(run.count, run.gradient, run.codes1, run.scales1, run.codes2, run.scales2, run.average, run.square,
              before.count, before.weight, before.average, before.square, before.codes1, before.scales1, before.codes2,
              before.scales2, block_size, first, second, numbers);
    before = run;
    std::swap(own, other);
  };
  for_runs(table[0], begin, end, block_size, most, [&](int64_t tensor, int64_t block, int64_t start, int64_t count) {
    pass({count, at<float>(table[1][tensor], start), at<float>(table[2][tensor], start),
          at<typename First::Code>(table[3][tensor], start), at<float>(table[4][tensor], block),
          at<typename Second::Code>(table[5][tensor], start), at<float>(table[6][tensor], block), own, own + size});
  });
  pass({});
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
  for_parts(0, count, [&](int64_t start, auto size) __attribute__((always_inline)) {
    float old[chunk];
    codec.decode(codes + start, unit, old, size);
    for_parts<Largest::places>(0, size, [&](int64_t begin, auto length) __attribute__((always_inline)) {
      for (int64_t i = 0; i < length; ++i) {
        const int64_t place = start + begin + i;
        const float g = gradient[place];
        const float m = old[begin + i] * n.momentum + g;
        const float direction = nesterov ? m * n.momentum + g : m;
        output[place] = update ? output[place] * n.shrink - direction * n.lr : direction;
        momentum[place] = m;
        largest.see(i, m);
      }
    });
  });
  *scale = largest.value();
  const Divisor divisor = divisor_of<Codec>(*scale);
  const auto ready = codec.ready();
  for_parts(0, count, [&](int64_t start, auto size) __attribute__((always_inline)) {
    fetch(gradient + start + count);
    fetch(output + start + count);
    fetch(codes + start + count);
    const uint64_t doubt = guess(codec, momentum + start, divisor, codes + start, size, ready);
    if (doubt) [[unlikely]]
      settle(codec, momentum + start, divisor, codes + start, size, doubt);
  });
}

template <bool update, bool nesterov, class Codec>
void momentum(const int64_t* const table[5], int64_t begin, int64_t end, int64_t block_size, const Codec codec,
              const MomentumNumbers& numbers) {
  std::vector<float> momentum(block_size);
  for_runs(table[0], begin, end, block_size, 1, [&](int64_t tensor, int64_t block, int64_t start, int64_t count) {
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
