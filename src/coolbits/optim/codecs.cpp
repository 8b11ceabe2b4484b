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

// Where there is AVX-512, a codec has its own code for a whole chunk. In the code for any processor and count, numbers
// become wider or narrower in loops of their own: thus GCC makes vector code.
template <class Integer, int levels>
struct Linear {
  using Code = Integer;
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

  [[gnu::always_inline]] uint32_t guess(const float* values, float inverse, Code* codes, int64_t count) const {
    constexpr float doubtful = 0.4999f;  // so far from an integer
#ifdef __AVX512F__
    if (count == chunk) {
      const __m512 stretched = _mm512_mul_ps(_mm512_loadu_ps(values), _mm512_set1_ps(inverse));
      const __m512i nearest = _mm512_cvtps_epi32(stretched);
      const __m512 distance = _mm512_abs_ps(_mm512_sub_ps(stretched, _mm512_cvtepi32_ps(nearest)));
      _mm_storeu_si128((__m128i*)codes, _mm512_cvtepi32_epi8(nearest));
      return _mm512_cmp_ps_mask(distance, _mm512_set1_ps(doubtful), _CMP_GT_OQ);
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
  static constexpr float stretch = 379 / 256.0f;
  static constexpr int leading = is_signed ? 15 : 16;
  const float *codebook, *middles;
  const uint32_t* cells;
  const float* spans;  // what follows the cells: the rows of `_spans` in optim/compiled.py
  explicit Dynamic(const void* tables)
      : codebook(static_cast<const float*>(tables)),
        middles(codebook + 256),
        cells(static_cast<const uint32_t*>(tables) + 512),
        spans(codebook + 512 + (1 << leading)) {}

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

  Code encode(float ratio) const {
    const uint32_t cell = cells[uint32_t(bits_of(ratio * stretch)) >> (32 - leading)];
    const Code low = std::min(Code(cell), Code(cell >> 8));
    return Code(low + (ratio > middles[low]));
  }

#ifdef __AVX512F__
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
  [[gnu::always_inline]] uint32_t guess_chunk(const float* values, float inverse, Code* codes) const {
    const __m512 stretched = _mm512_mul_ps(_mm512_loadu_ps(values), _mm512_set1_ps(inverse));
    const __m512 size = _mm512_max_ps(_mm512_abs_ps(stretched), _mm512_set1_ps(0x1p-23f));
    const __m512i octave = _mm512_srli_epi32(_mm512_castps_si512(size), 23);
    const auto of_octave = [&](int row) {
      const float* numbers = spans + 32 * row;
      return _mm512_permutex2var_ps(_mm512_loadu_ps(numbers), octave, _mm512_loadu_ps(numbers + 16));
    };
    const __m512i below = _mm512_castps_si512(of_octave(1));
    const __mmask16 is_above = _mm512_cmp_ps_mask(size, of_octave(0), _CMP_GT_OQ);
    const __m512i span = _mm512_mask_add_epi32(below, is_above, below, _mm512_set1_epi32(1));
    const auto of_span = [&](int row) { return _mm512_permutexvar_ps(span, _mm512_loadu_ps(spans + 64 + 16 * row)); };
    const __m512 place = _mm512_fmadd_ps(size, of_span(0), of_span(1));
    const __m512i rounded = _mm512_cvtps_epi32(place);
    const __m512 distance = _mm512_abs_ps(_mm512_sub_ps(place, _mm512_cvtepi32_ps(rounded)));
    __m512i code = _mm512_min_epi32(rounded, _mm512_castps_si512(of_span(2)));
    if (is_signed) {
      const __m512i zero = _mm512_set1_epi32(127);
      const __mmask16 negative = _mm512_cmp_ps_mask(stretched, _mm512_setzero_ps(), _CMP_LT_OQ);
      code = _mm512_mask_min_epi32(code, negative, code, zero);  // there is a 1, but no -1
      code = _mm512_mask_sub_epi32(_mm512_add_epi32(zero, code), negative, zero, code);
    }
    _mm_storeu_si128((__m128i*)codes, _mm512_cvtepi32_epi8(code));
    return _mm512_cmp_ps_mask(distance, _mm512_set1_ps(0.4995f), _CMP_GT_OQ);
  }
#endif

  [[gnu::always_inline]] uint32_t guess(const float* values, float inverse, Code* codes, int64_t count) const {
    constexpr uint32_t doubtful = 10u << leading;  // ten floats: five on either side of a middle
#ifdef __AVX512F__
    if (count == chunk) return guess_chunk(values, inverse, codes);
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

// A block's scale as the divisor of its values, its inverse, and whether guesses from that inverse can be trusted.
struct Divisor {
  float value, inverse;
  bool is_moderate;
};

template <class Codec>
Divisor divisor_of(float scale) {
  const float value = scale == 0 ? 1 : scale;
  // The inverse, a product and the quotient are rounded: that makes three floats, if none is out of the normal range.
  return {value, Codec::stretch / value, value > 0x1p-100f && value < 0x1p100f};
}

template <class Codec>
[[gnu::always_inline]] inline void encode(const Codec codec, const float* values, const Divisor divisor,
                                          typename Codec::Code* codes, int64_t count) {
  uint32_t doubt = codec.guess(values, divisor.inverse, codes, count);
  if (!divisor.is_moderate) doubt = all;
  for (; __builtin_expect(doubt != 0, false); doubt &= doubt - 1) {
    const int64_t place = __builtin_ctz(doubt);
    if (place < count) codes[place] = codec.encode(values[place] / divisor.value);
  }
}

}  // namespace
