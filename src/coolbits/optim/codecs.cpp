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
  explicit Dynamic(const void* tables)
      : codebook(static_cast<const float*>(tables)),
        middles(codebook + 256),
        cells(static_cast<const uint32_t*>(tables) + 512) {}

  float unit(float scale) const { return scale; }

  [[gnu::always_inline]] void decode(const Code* codes, float unit, float* values, int64_t count) const {
#ifdef __AVX512F__
    if (count == chunk) {
      const __m512i wide = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)codes));
      const __m512 entries = _mm512_i32gather_ps(wide, codebook, sizeof(float));
      return _mm512_storeu_ps(values, _mm512_mul_ps(entries, _mm512_set1_ps(unit)));
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

  [[gnu::always_inline]] uint32_t guess(const float* values, float inverse, Code* codes, int64_t count) const {
    constexpr uint32_t doubtful = 10u << leading;  // ten floats: five on either side of a middle
#ifdef __AVX512F__
    if (count == chunk) {
      const __m512 stretched = _mm512_mul_ps(_mm512_loadu_ps(values), _mm512_set1_ps(inverse));
      const __m512i bits = _mm512_castps_si512(stretched);
      const __m512i cell = _mm512_i32gather_epi32(_mm512_srli_epi32(bits, 32 - leading), cells, sizeof(uint32_t));
      const __m512i rest = _mm512_slli_epi32(bits, leading);
      const __m512i code = _mm512_mask_srli_epi32(cell, _mm512_cmpgt_epu32_mask(rest, cell), cell, 8);
      _mm_storeu_si128((__m128i*)codes, _mm512_cvtepi32_epi8(code));
      return _mm512_cmple_epu32_mask(_mm512_sub_epi32(rest, cell), _mm512_set1_epi32(doubtful));
    }
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

template <class Codec>
[[gnu::always_inline]] inline void encode(const Codec codec, const float* values, float scale,
                                          typename Codec::Code* codes, int64_t count) {
  const float divisor = scale == 0 ? 1 : scale;
  // The inverse, a product and the quotient are rounded: that makes three floats, if none is out of the normal range.
  const bool is_moderate = divisor > 0x1p-100f && divisor < 0x1p100f;
  uint32_t doubt = codec.guess(values, Codec::stretch / divisor, codes, count);
  for (doubt = is_moderate ? doubt : all; __builtin_expect(doubt != 0, false); doubt &= doubt - 1) {
    const int64_t place = __builtin_ctz(doubt);
    if (place < count) codes[place] = codec.encode(values[place] / divisor);
  }
}

}  // namespace
