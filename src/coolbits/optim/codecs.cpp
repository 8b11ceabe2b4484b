// How a chunk of a block is decoded and encoded: optim/codecs.py, bit for bit. Included by lowbit.cpp.
//
// Encoding asks for the code of a quotient rounded to float32. Instead of dividing, a codec guesses codes from products
// with the inverse of the divisor, which are up to three floats off, and tells which places of the chunk that may have
// changed, as bits: only there, at one element in some thousand, does it divide.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace {

// So small that the processor works at all steps of one chunk, and of the next ones, at the same time.
#ifdef __AVX512F__
constexpr int64_t chunk = 16;
#else
constexpr int64_t chunk = 32;  // of smaller ones, whose codes do not fill a register, GCC makes no vector code
#endif
constexpr uint32_t all = ~0u;

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

#ifdef __AVX512F__
// How far a number is from the nearest integer.
[[gnu::always_inline]] inline __m512 from_integer(__m512 number) {
#ifdef __AVX512DQ__
  return _mm512_abs_ps(_mm512_reduce_ps(number, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#else
  return _mm512_abs_ps(_mm512_sub_ps(number, _mm512_cvtepi32_ps(_mm512_cvtps_epi32(number))));
#endif
}
#endif

// Where there is AVX-512, a codec has its own code for a whole chunk. In the code for any processor and count, numbers
// become wider or narrower in loops of their own: thus GCC makes vector code.
template <class Integer, int levels>
struct Linear {
  using Code = Integer;
  static constexpr bool ahead = false;
  static constexpr float stretch = levels;
  explicit Linear(const void*) {}

  float unit(float scale) const { return scale / levels; }

  [[gnu::always_inline]] void decode(const Code* codes, float unit, float* values, int64_t count) const {
#ifdef __AVX512F__
    if (count == chunk) {
      const __m128i some = _mm_loadu_si128((const __m128i*)codes);
      const __m512i wide = Code(-1) < 0 ? _mm512_cvtepi8_epi32(some) : _mm512_cvtepu8_epi32(some);
      return _mm512_storeu_ps(values, _mm512_mul_ps(_mm512_cvtepi32_ps(wide), _mm512_set1_ps(unit)));
    }
#endif
    int32_t wide[chunk];
    for (int64_t i = 0; i < count; ++i) wide[i] = codes[i];
    for (int64_t i = 0; i < count; ++i) values[i] = float(wide[i]) * unit;
  }

  Code encode(float ratio) const { return Code(int32_t(__builtin_rintf(ratio * levels))); }

  struct Ready {};  // nothing to make ready
  Ready ready() const { return {}; }

  [[gnu::always_inline]] uint32_t guess(const float* values, float inverse, Code* codes, int64_t count,
                                        const Ready&) const {
    constexpr float doubtful = 0.4999f;  // so far from an integer
#ifdef __AVX512F__
    if (count == chunk) {
      const __m512 stretched = _mm512_mul_ps(_mm512_loadu_ps(values), _mm512_set1_ps(inverse));
      const __m512i nearest = _mm512_cvtps_epi32(stretched);
      _mm_storeu_si128((__m128i*)codes, _mm512_cvtepi32_epi8(nearest));
      return _mm512_cmp_ps_mask(from_integer(stretched), _mm512_set1_ps(doubtful), _CMP_GT_OQ);
    }
#endif
    int32_t nearest[chunk], farthest = 0;
    for (int64_t i = 0; i < count; ++i) {
      const float stretched = values[i] * inverse;
      nearest[i] = int32_t(__builtin_rintf(stretched));
      farthest = std::max(farthest, magnitude(stretched - float(nearest[i])));
    }
    for (int64_t i = 0; i < count; ++i) codes[i] = Code(nearest[i]);
    return farthest > bits_of(doubtful) ? all : 0;
  }
};

// `tables` holds the 256 entries of the codebook, the middles above them, rounded down, and cells. A cell is all floats
// with the same leading bits; ratios are looked up times `stretch`, which leaves at most one middle to a cell and none
// near its edges. From below, its 32 bits are the code of the ratios nearer to zero than that middle, the code of those
// further away, and the bits of the middle that follow the leading ones, less a few: see optim/compiled.py.
template <bool is_signed>
struct Dynamic {
  using Code = uint8_t;
#ifdef __AVX512VBMI__
  static constexpr bool ahead = true;
#else
  static constexpr bool ahead = false;
#endif
  static constexpr float stretch = 379 / 256.0f;
  static constexpr int leading = is_signed ? 15 : 16;
  const float *codebook, *middles;
  const uint32_t* cells;
  const float* spans;  // what follows the cells: the rows of `_spans` in optim/compiled.py
  const float* planes;  // what follows those: the first bytes of all entries, their second bytes, ...
  explicit Dynamic(const void* tables)
      : codebook(static_cast<const float*>(tables)),
        middles(codebook + 256),
        cells(static_cast<const uint32_t*>(tables) + 512),
        spans(codebook + 512 + (1 << leading)),
        planes(spans + 96) {}

  float unit(float scale) const { return scale; }

  [[gnu::always_inline]] void decode(const Code* codes, float unit, float* values, int64_t count) const {
#ifdef __AVX512F__
    if (count == chunk) {
      const __m512i wide = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)codes));
      return _mm512_storeu_ps(values, _mm512_mul_ps(entries(wide), _mm512_set1_ps(unit)));
    }
#endif
    int32_t wide[chunk];
    for (int64_t i = 0; i < count; ++i) wide[i] = codes[i];
    for (int64_t i = 0; i < count; ++i) values[i] = codebook[wide[i]] * unit;
  }

#ifdef __AVX512VBMI__
  // Decodes the chunks of a block, but for what is left of four: entries byte by byte, each a look-up among 256 bytes,
  // which is made for 64 codes at once, in less than half the time of `entries`.
  [[gnu::always_inline]] int64_t decode_ahead(const Code* codes, float unit, float* values, int64_t count) const {
    const __m512i turn = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512 units = _mm512_set1_ps(unit);
    int64_t start = 0;
    for (; start + 64 <= count; start += 64) {
      // Unpacking works within quarters of registers: with codes in fours turned, floats end where they belong.
      const __m512i some = _mm512_permutexvar_epi32(turn, _mm512_loadu_si512(codes + start));
      const __mmask64 high = _mm512_movepi8_mask(some);
      const auto bytes = [&](int plane) {
        const auto part = [&](int number) { return _mm512_loadu_si512(planes + 64 * plane + 16 * number); };
        return _mm512_mask_blend_epi8(high, _mm512_permutex2var_epi8(part(0), some, part(1)),
                                      _mm512_permutex2var_epi8(part(2), some, part(3)));
      };
      const __m512i byte0 = bytes(0), byte1 = bytes(1), byte2 = bytes(2), byte3 = bytes(3);
      const __m512i low0 = _mm512_unpacklo_epi8(byte0, byte1), low1 = _mm512_unpackhi_epi8(byte0, byte1);
      const __m512i high0 = _mm512_unpacklo_epi8(byte2, byte3), high1 = _mm512_unpackhi_epi8(byte2, byte3);
      const auto put = [&](int place, __m512i entry) {
        _mm512_storeu_ps(values + start + 16 * place, _mm512_mul_ps(_mm512_castsi512_ps(entry), units));
      };
      put(0, _mm512_unpacklo_epi16(low0, high0));
      put(1, _mm512_unpackhi_epi16(low0, high0));
      put(2, _mm512_unpacklo_epi16(low1, high1));
      put(3, _mm512_unpackhi_epi16(low1, high1));
    }
    return start;
  }
#endif

  Code encode(float ratio) const {
    const uint32_t cell = cells[uint32_t(bits_of(ratio * stretch)) >> (32 - leading)];
    const Code low = std::min(Code(cell), Code(cell >> 8));
    return Code(low + (ratio > middles[low]));
  }

#ifdef __AVX512F__
  // What `spans` holds, in registers: left in memory, it would be read again for each chunk.
  struct Ready {
    __m512 edges, factors, summands;
    __m512i lasts, below[2];
  };
  [[gnu::always_inline]] Ready ready() const {
    const auto numbers = [&](int first) { return _mm512_loadu_ps(spans + first); };
    const auto integers = [&](int first) { return _mm512_loadu_si512(spans + first); };
    Ready found = {numbers(0), numbers(48), numbers(64), integers(80), {integers(16), integers(32)}};
#ifdef __AVX512VBMI__
    // As bytes, whose place is the exponent modulo 64; those of 64 and 128, a number's other bytes, are 0.
    const __m512i low = _mm512_castsi128_si512(_mm512_cvtepi32_epi8(found.below[0]));
    found.below[0] = _mm512_inserti32x4(_mm512_shuffle_i32x4(_mm512_setzero_si512(), low, 0),
                                        _mm512_cvtepi32_epi8(found.below[1]), 3);
#endif
    return found;
  }

  // Entries from registers: processors gather sixteen floats in the time of a dozen such permutations, or far longer.
  [[gnu::always_inline]] __m512 entries(__m512i codes) const {
    const auto pick = [&](int first) {
      return _mm512_permutex2var_ps(_mm512_loadu_ps(codebook + first), codes, _mm512_loadu_ps(codebook + first + 16));
    };
    const auto bit = [&](int place) { return _mm512_test_epi32_mask(codes, _mm512_set1_epi32(1 << place)); };
    const __mmask16 bit5 = bit(5), bit6 = bit(6);
    const auto half = [&](int first) {
      const __m512 low = _mm512_mask_blend_ps(bit5, pick(first), pick(first + 32));
      const __m512 high = _mm512_mask_blend_ps(bit5, pick(first + 64), pick(first + 96));
      return _mm512_mask_blend_ps(bit6, low, high);
    };
    return _mm512_mask_blend_ps(bit(7), half(0), half(128));
  }

  // Entries of a power of ten are equally spaced, so a code is a number rounded. The float's exponent tells the power,
  // but for one edge at most in each octave; magnitudes near an edge are halfway between two numbers, so in doubt too.
  [[gnu::always_inline]] uint32_t guess_chunk(const float* values, float inverse, Code* codes,
                                              const Ready& ready) const {
    const __m512 stretched = _mm512_mul_ps(_mm512_loadu_ps(values), _mm512_set1_ps(inverse));
    const __m512 size = _mm512_max_ps(is_signed ? _mm512_abs_ps(stretched) : stretched, _mm512_set1_ps(0x1p-23f));
    const __m512i octave = _mm512_srli_epi32(_mm512_castps_si512(size), 23);
#ifdef __AVX512VBMI__
    const __m512i below = _mm512_permutexvar_epi8(octave, ready.below[0]);
#else
    const __m512i below = _mm512_permutex2var_epi32(ready.below[0], octave, ready.below[1]);
#endif
    const __m512 edge = _mm512_permutexvar_ps(below, ready.edges);
    const __mmask16 is_above = _mm512_cmp_ps_mask(size, edge, _CMP_GT_OQ);
    const __m512i span = _mm512_mask_add_epi32(below, is_above, below, _mm512_set1_epi32(1));
    const __m512 factor = _mm512_permutexvar_ps(span, ready.factors);
    const __m512 place = _mm512_fmadd_ps(size, factor, _mm512_permutexvar_ps(span, ready.summands));
    const __m512i rounded = _mm512_cvtps_epi32(place);
    __m512i code = _mm512_min_epi32(rounded, _mm512_permutexvar_epi32(span, ready.lasts));
    if (is_signed) {
      // Zero is 127; below it ~code + 128 is 127 - code. There is a 1, but no -1.
      const __m512i sign = _mm512_srai_epi32(_mm512_castps_si512(stretched), 31);
      code = _mm512_add_epi32(_mm512_xor_si512(code, sign), _mm512_sub_epi32(_mm512_set1_epi32(127), sign));
      code = _mm512_max_epi32(code, _mm512_setzero_si512());
    }
    _mm_storeu_si128((__m128i*)codes, _mm512_cvtepi32_epi8(code));
    return _mm512_cmp_ps_mask(from_integer(place), _mm512_set1_ps(0.4995f), _CMP_GT_OQ);
  }
#else
  struct Ready {};
  Ready ready() const { return {}; }
#endif

  [[gnu::always_inline]] uint32_t guess(const float* values, float inverse, Code* codes, int64_t count,
                                        [[maybe_unused]] const Ready& ready) const {
    constexpr uint32_t doubtful = 10u << leading;  // ten floats: five on either side of a middle
#ifdef __AVX512F__
    if (count == chunk) return guess_chunk(values, inverse, codes, ready);
#endif
    int32_t places[chunk];
    uint32_t rest[chunk], cell[chunk], nearest = ~0u;
    for (int64_t i = 0; i < count; ++i) {
      const uint32_t bits = uint32_t(bits_of(values[i] * inverse));
      places[i] = int32_t(bits >> (32 - leading));
      rest[i] = bits << leading;
    }
    for (int64_t i = 0; i < count; ++i) cell[i] = cells[places[i]];
    for (int64_t i = 0; i < count; ++i) {
      nearest = std::min(nearest, rest[i] - cell[i]);
      cell[i] = rest[i] > cell[i] ? cell[i] >> 8 : cell[i];
    }
    for (int64_t i = 0; i < count; ++i) codes[i] = Code(cell[i]);
    return nearest <= doubtful ? all : 0;
  }
};

// Puts a whole block's old states where its new ones will be, if the codec makes better code so.
template <class Codec>
[[gnu::always_inline]] inline void decode_ahead(const Codec codec, const typename Codec::Code* codes, float unit,
                                                float* values, int64_t count) {
  if constexpr (Codec::ahead) {
    int64_t start = codec.decode_ahead(codes, unit, values, count);
    for (; start < count; start += chunk)
      codec.decode(codes + start, unit, values + start, std::min(chunk, count - start));
  }
}

// The old states of a chunk, decoded now or before.
template <class Codec, class Size>
[[gnu::always_inline]] inline void decode(const Codec codec, const typename Codec::Code* codes, float unit,
                                          const float* ahead, float* values, Size size) {
  if constexpr (Codec::ahead)
    for (int64_t i = 0; i < size; ++i) values[i] = ahead[i];
  else
    codec.decode(codes, unit, values, size);
}

// A block's scale as the divisor of its values, its inverse, and the places at which guesses from that inverse are in
// doubt whatever the values are: none or all.
struct Divisor {
  float value, inverse;
  uint32_t doubt;
};

template <class Codec>
Divisor divisor_of(float scale) {
  const float value = scale == 0 ? 1 : scale;
  // The inverse, a product and the quotient are rounded: that makes three floats, if none is out of the normal range.
  return {value, Codec::stretch / value, value > 0x1p-100f && value < 0x1p100f ? 0 : all};
}

// Guesses the codes of a chunk and returns the places in doubt, which `settle` encodes.
template <class Codec>
[[gnu::always_inline]] inline uint32_t guess(const Codec codec, const float* values, const Divisor divisor,
                                             typename Codec::Code* codes, int64_t count,
                                             const typename Codec::Ready& ready) {
  return codec.guess(values, divisor.inverse, codes, count, ready) | divisor.doubt;
}

template <class Codec>
[[gnu::always_inline]] inline void settle(const Codec codec, const float* values, const Divisor divisor,
                                          typename Codec::Code* codes, int64_t count, uint32_t doubt) {
  for (; doubt != 0; doubt &= doubt - 1) {
    const int64_t place = __builtin_ctz(doubt);
    if (place < count) codes[place] = codec.encode(values[place] / divisor.value);
  }
}

}  // namespace
