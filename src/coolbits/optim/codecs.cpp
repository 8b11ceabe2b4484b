// How a chunk of a block is decoded and encoded: optim/codecs.py, bit for bit. Included by lowbit.cpp.
//
// Encoding asks for the code of a quotient rounded to float32. Instead of dividing, a codec guesses codes from products
// with the inverse of the divisor, which are up to three floats off, and tells which places of the chunk that may have
// changed, as bits: only there, at one element in some thousand, does it divide.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __AVX2__
#include <immintrin.h>
#endif
#if defined(__AVX2__) && defined(__FMA__) && !defined(__AVX512F__)
#define EIGHT_AT_ONCE
#endif

namespace {

// So many numbers that their codes fill a register, and so few that the processor works at several chunks at once.
#ifdef __AVX512F__
constexpr int64_t chunk = 64;
#else
constexpr int64_t chunk = 32;
#endif
constexpr uint64_t all = ~uint64_t{0};

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
using Quarters = __m512i[4];  // a chunk as 32-bit integers

// One byte of each integer of a chunk, the lowest is byte 0.
template <int byte>
[[gnu::always_inline]] inline __m512i bytes_of(const Quarters& quarters) {
#ifdef __AVX512VBMI__
  const __m512i order = _mm512_add_epi8(
      _mm512_set1_epi8(byte), _mm512_set_epi64(0, 0, 0, 0, 0x7c7874706c686460, 0x5c5854504c484440, 0x3c3834302c282420,
                                               0x1c1814100c080400));
  const __m512i low = _mm512_permutex2var_epi8(quarters[0], order, quarters[1]);
  const __m512i high = _mm512_permutex2var_epi8(quarters[2], order, quarters[3]);
  return _mm512_inserti64x4(low, _mm512_castsi512_si256(high), 1);
#else
  const auto quarter = [&](int number) { return _mm512_cvtepi32_epi8(_mm512_srli_epi32(quarters[number], 8 * byte)); };
  const __m256i low = _mm256_inserti128_si256(_mm256_castsi128_si256(quarter(0)), quarter(1), 1);
  const __m256i high = _mm256_inserti128_si256(_mm256_castsi128_si256(quarter(2)), quarter(3), 1);
  return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
#endif
}

[[gnu::always_inline]] inline uint64_t bits_of(const __mmask16 (&quarters)[4]) {
  const auto bits = [&](int number) { return uint64_t{_cvtmask16_u32(quarters[number])} << 16 * number; };
  return bits(0) | bits(1) | bits(2) | bits(3);
}
#endif

// Where there is AVX-512 a codec has its own code for a whole chunk, a dynamic one where there is AVX2, too. In the code
// for any processor and count, numbers become wider or narrower in loops of their own: thus GCC makes vector code.
template <class Integer, int levels>
struct Linear {
  using Code = Integer;
  static constexpr float stretch = levels;
  explicit Linear(const void*) {}

  float unit(float scale) const { return scale / levels; }

  [[gnu::always_inline]] void decode(const Code* codes, float unit, float* values, int64_t count) const {
#ifdef __AVX512F__
    if (count == chunk) {
      for (int64_t start = 0; start < chunk; start += 16) {
        const __m128i some = _mm_loadu_si128((const __m128i*)(codes + start));
        const __m512i wide = Code(-1) < 0 ? _mm512_cvtepi8_epi32(some) : _mm512_cvtepu8_epi32(some);
        _mm512_storeu_ps(values + start, _mm512_mul_ps(_mm512_cvtepi32_ps(wide), _mm512_set1_ps(unit)));
      }
      return;
    }
#endif
    int32_t wide[chunk];
    for (int64_t i = 0; i < count; ++i) wide[i] = codes[i];
    for (int64_t i = 0; i < count; ++i) values[i] = float(wide[i]) * unit;
  }

  Code encode(float ratio) const { return Code(int32_t(__builtin_rintf(ratio * levels))); }

  struct Ready {};  // nothing to make ready
  Ready ready() const { return {}; }

  [[gnu::always_inline]] uint64_t guess(const float* values, float inverse, Code* codes, int64_t count,
                                        const Ready&) const {
    constexpr float doubtful = 0.4999f;  // so far from an integer
#ifdef __AVX512F__
    if (count == chunk) {
      Quarters nearest;
      __mmask16 doubt[4];
#pragma GCC unroll 4
      for (int quarter = 0; quarter < 4; ++quarter) {
        const __m512 stretched = _mm512_mul_ps(_mm512_loadu_ps(values + 16 * quarter), _mm512_set1_ps(inverse));
        nearest[quarter] = _mm512_cvtps_epi32(stretched);
#ifdef __AVX512DQ__
        const __m512 rest = _mm512_reduce_ps(stretched, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
        const __m512 rest = _mm512_sub_ps(stretched, _mm512_cvtepi32_ps(nearest[quarter]));
#endif
        doubt[quarter] = _mm512_cmp_ps_mask(_mm512_abs_ps(rest), _mm512_set1_ps(doubtful), _CMP_GT_OQ);
      }
      _mm512_storeu_si512(codes, bytes_of<0>(nearest));
      return bits_of(doubt);
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
// further away, and the bits of the middle that follow the leading ones, less a few: see optim/lookups.py.
template <bool is_signed>
struct Dynamic {
  using Code = uint8_t;
  static constexpr float stretch = 379 / 256.0f;
  static constexpr int leading = is_signed ? 15 : 16;
  const float *codebook, *middles;
  const uint32_t* cells;
  const float* spans;  // what follows the cells: the rows of `_spans` in optim/lookups.py
  const float* planes;  // what follows those: the first bytes of all entries, their second bytes, ...
  explicit Dynamic(const void* tables)
      : codebook(static_cast<const float*>(tables)),
        middles(codebook + 256),
        cells(static_cast<const uint32_t*>(tables) + 512),
        spans(codebook + 512 + (1 << leading)),
        planes(spans + 80) {}

  float unit(float scale) const { return scale; }

  [[gnu::always_inline]] void decode(const Code* codes, float unit, float* values, int64_t count) const {
#ifdef __AVX512F__
    if (count == chunk) return decode_chunk(codes, _mm512_set1_ps(unit), values);
#elif defined(EIGHT_AT_ONCE)
    if (count == chunk) return decode_chunk(codes, _mm256_set1_ps(unit), values);
#endif
    int32_t wide[chunk];
    for (int64_t i = 0; i < count; ++i) wide[i] = codes[i];
    for (int64_t i = 0; i < count; ++i) values[i] = codebook[wide[i]] * unit;
  }

#ifdef __AVX512VBMI__
  // Entries byte by byte, each a look-up among 256 bytes, which is made for all codes of a chunk at once.
  [[gnu::always_inline]] void decode_chunk(const Code* codes, __m512 units, float* values) const {
    // Unpacking works within quarters of registers: with codes in fours turned, floats end where they belong.
    const __m512i turn = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512i some = _mm512_permutexvar_epi32(turn, _mm512_loadu_si512(codes));
    const __mmask64 high = _mm512_movepi8_mask(some);
    const float* table = planes;
    asm("" : "+r"(table));  // or GCC would copy all of it to the stack before each loop
    const auto bytes = [&](int plane) {
      const auto part = [&](int number) { return _mm512_loadu_si512(table + 64 * plane + 16 * number); };
      return _mm512_mask_blend_epi8(high, _mm512_permutex2var_epi8(part(0), some, part(1)),
                                    _mm512_permutex2var_epi8(part(2), some, part(3)));
    };
    const __m512i byte0 = bytes(0), byte1 = bytes(1), byte2 = bytes(2), byte3 = bytes(3);
    const __m512i low0 = _mm512_unpacklo_epi8(byte0, byte1), low1 = _mm512_unpackhi_epi8(byte0, byte1);
    const __m512i high0 = _mm512_unpacklo_epi8(byte2, byte3), high1 = _mm512_unpackhi_epi8(byte2, byte3);
    const auto put = [&](int quarter, __m512i entry) {
      _mm512_storeu_ps(values + 16 * quarter, _mm512_mul_ps(_mm512_castsi512_ps(entry), units));
    };
    put(0, _mm512_unpacklo_epi16(low0, high0));
    put(1, _mm512_unpackhi_epi16(low0, high0));
    put(2, _mm512_unpacklo_epi16(low1, high1));
    put(3, _mm512_unpackhi_epi16(low1, high1));
  }
#elif defined(__AVX512F__)
  // Entries from registers: processors gather sixteen floats in the time of a dozen such permutations, or far longer.
  [[gnu::always_inline]] void decode_chunk(const Code* codes, __m512 units, float* values) const {
    for (int64_t start = 0; start < chunk; start += 16) {
      const __m512i some = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)(codes + start)));
      const auto pick = [&](int first) {
        return _mm512_permutex2var_ps(_mm512_loadu_ps(codebook + first), some, _mm512_loadu_ps(codebook + first + 16));
      };
      const auto bit = [&](int place) { return _mm512_test_epi32_mask(some, _mm512_set1_epi32(1 << place)); };
      const __mmask16 bit5 = bit(5), bit6 = bit(6);
      const auto half = [&](int first) {
        const __m512 low = _mm512_mask_blend_ps(bit5, pick(first), pick(first + 32));
        const __m512 high = _mm512_mask_blend_ps(bit5, pick(first + 64), pick(first + 96));
        return _mm512_mask_blend_ps(bit6, low, high);
      };
      _mm512_storeu_ps(values + start, _mm512_mul_ps(_mm512_mask_blend_ps(bit(7), half(0), half(128)), units));
    }
  }
#elif defined(EIGHT_AT_ONCE)
  // Entries one by one: GCC would gather them, which takes a Zen 3 two and a half times as long.
  [[gnu::always_inline]] void decode_chunk(const Code* codes, __m256 units, float* values) const {
#pragma GCC unroll 4
    for (int64_t start = 0; start < chunk; start += 8) {
      const auto entry = [&](int64_t place) { return codebook[codes[start + place]]; };
      const __m256 entries =
          _mm256_setr_ps(entry(0), entry(1), entry(2), entry(3), entry(4), entry(5), entry(6), entry(7));
      _mm256_storeu_ps(values + start, _mm256_mul_ps(entries, units));
    }
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
    __m512 edges, factors, least, summand;
    __m512i below[2];
  };
  [[gnu::always_inline]] Ready ready() const {
    const auto integers = [&](int first) { return _mm512_loadu_si512(spans + first); };
    Ready found = {_mm512_loadu_ps(spans), _mm512_loadu_ps(spans + 48), _mm512_set1_ps(spans[64]),
                   _mm512_set1_ps(spans[65]), {integers(16), integers(32)}};
#ifdef __AVX512VBMI__
    // As bytes, whose place is the exponent modulo 64; those of 64 and 128, a number's other bytes, are 0.
    const __m512i low = _mm512_castsi128_si512(_mm512_cvtepi32_epi8(found.below[0]));
    found.below[0] = _mm512_inserti32x4(_mm512_shuffle_i32x4(_mm512_setzero_si512(), low, 0),
                                        _mm512_cvtepi32_epi8(found.below[1]), 3);
#endif
    return found;
  }

  // A power of ten has twice as many entries as the one before, equally spaced. So one line, the same for all powers but
  // for its slope, leads from a magnitude to a number from 1 to 2 whose leading bits are the code: those before the
  // point count the lower powers' entries. How many bits is the number of the span, by which they are turned to the
  // end. Magnitudes in doubt have zeros behind these bits, or a one and zeros: see `_spans` there.
  [[gnu::always_inline]] uint64_t guess_chunk(const float* values, float inverse, Code* codes,
                                              const Ready& ready) const {
    constexpr int certain = is_signed ? 0x7ff00000 : 0x7fe00000;
    Quarters stretched, numbers, turned;
    __mmask16 doubt[4];
#pragma GCC unroll 4
    for (int quarter = 0; quarter < 4; ++quarter) {
      const __m512 value = _mm512_mul_ps(_mm512_loadu_ps(values + 16 * quarter), _mm512_set1_ps(inverse));
#ifdef __AVX512DQ__
      const __m512 size = _mm512_range_ps(value, ready.least, 0b1011);  // the larger magnitude
#else
      const __m512 size = _mm512_max_ps(_mm512_abs_ps(value), ready.least);
#endif
      const __m512i octave = _mm512_srli_epi32(_mm512_castps_si512(size), 23);
#ifdef __AVX512VBMI__
      const __m512i below = _mm512_permutexvar_epi8(octave, ready.below[0]);
#else
      const __m512i below = _mm512_permutex2var_epi32(ready.below[0], octave, ready.below[1]);
#endif
      const __mmask16 above = _mm512_cmp_ps_mask(size, _mm512_permutexvar_ps(below, ready.edges), _CMP_GT_OQ);
      const __m512i span = _mm512_mask_add_epi32(below, above, below, _mm512_set1_epi32(1));
      const __m512 number = _mm512_fmadd_ps(size, _mm512_permutexvar_ps(span, ready.factors), ready.summand);
      stretched[quarter] = _mm512_castps_si512(value);
      numbers[quarter] = _mm512_sub_epi32(_mm512_castps_si512(number), _mm512_set1_epi32(0x3f000000));
      turned[quarter] = _mm512_rolv_epi32(numbers[quarter], span);
      doubt[quarter] = _mm512_testn_epi32_mask(turned[quarter], _mm512_set1_epi32(certain));
    }
    // Beyond the last entry of a power the number may be 2 or more, which counts one too many.
    const __m512i place = _mm512_sub_epi8(bytes_of<0>(turned), bytes_of<3>(numbers));
    __m512i code;
    if (is_signed) {  // zero is 127; there is a 1, but no -1
      const __m512i zero = _mm512_set1_epi8(127);
      const __mmask64 negative = _mm512_movepi8_mask(bytes_of<3>(stretched));
      code = _mm512_mask_subs_epu8(_mm512_add_epi8(zero, place), negative, zero, place);
    } else {
      code = _mm512_sub_epi8(place, _mm512_set1_epi8(1));
    }
    _mm512_storeu_si512(codes, code);
    return bits_of(doubt);
  }
#elif defined(EIGHT_AT_ONCE)
  // The same, of eights: by span modulo 8, of which nine are told by two factors, one for magnitudes above the edge. Two
  // octaves at a time have one edge at most as well, so that their spans are sixteen bytes.
  struct Ready {
    __m256i below;
    __m256 edges, factors, factors_above, least, summand;
  };
  [[gnu::always_inline]] Ready ready() const {
    alignas(32) float edges[8], factors[8], factors_above[8];
    alignas(16) int8_t below[16] = {};
    for (int octave = -23; octave < 1; octave += 2) {
      const int exponent = octave + 127;
      below[exponent / 2 % 16] = int8_t(bits_of(spans[16 + exponent % 32]));
    }
    constexpr int zero = is_signed ? 8 : 9;  // the first span
    for (int span = zero; span < zero + 8; ++span) {
      edges[span % 8] = spans[span % 16];
      factors[span % 8] = spans[48 + span % 16];
      factors_above[span % 8] = spans[48 + (span + 1) % 16];
    }
    return {_mm256_broadcastsi128_si256(_mm_load_si128((const __m128i*)below)),
            _mm256_load_ps(edges),
            _mm256_load_ps(factors),
            _mm256_load_ps(factors_above),
            _mm256_set1_ps(spans[64]),
            _mm256_set1_ps(spans[65])};
  }

  [[gnu::always_inline]] uint64_t guess_chunk(const float* values, float inverse, Code* codes,
                                              const Ready& ready) const {
    __m256i places[4], least_rest = _mm256_set1_epi32(-1);
#pragma GCC unroll 4
    for (int quarter = 0; quarter < 4; ++quarter) {
      const __m256 value = _mm256_mul_ps(_mm256_loadu_ps(values + 8 * quarter), _mm256_set1_ps(inverse));
      const __m256 unsigned_value =
          is_signed ? _mm256_and_ps(value, _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff))) : value;
      const __m256 size = _mm256_max_ps(unsigned_value, ready.least);
      const __m256i octaves = _mm256_srli_epi32(_mm256_castps_si256(size), 24);
      const __m256i below = _mm256_shuffle_epi8(ready.below, octaves);
      const __m256 above = _mm256_cmp_ps(size, _mm256_permutevar8x32_ps(ready.edges, below), _CMP_GT_OQ);
      const __m256 factor = _mm256_blendv_ps(_mm256_permutevar8x32_ps(ready.factors, below),
                                             _mm256_permutevar8x32_ps(ready.factors_above, below), above);
      const __m256i span = _mm256_sub_epi32(below, _mm256_castps_si256(above));
      const __m256 line = _mm256_fmadd_ps(size, factor, ready.summand);
      const __m256i number = _mm256_sub_epi32(_mm256_castps_si256(line), _mm256_set1_epi32(0x3f000000));
      // Beyond the last entry of a power the number may be 2 or more, which counts one too many.
      const __m256i below_two = _mm256_min_epu32(number, _mm256_set1_epi32(0x00ffffff));
      const __m256i place = _mm256_srlv_epi32(below_two, _mm256_sub_epi32(_mm256_set1_epi32(32), span));
      places[quarter] = is_signed ? _mm256_sign_epi32(place, _mm256_castps_si256(value)) : place;
      least_rest = _mm256_min_epu32(least_rest, _mm256_sllv_epi32(_mm256_add_epi32(number, number), span));
    }
    const __m256i zero = _mm256_set1_epi16(is_signed ? 127 : -1);
    const __m256i low = _mm256_add_epi16(_mm256_packs_epi32(places[0], places[1]), zero);
    const __m256i high = _mm256_add_epi16(_mm256_packs_epi32(places[2], places[3]), zero);
    const __m256i turn = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);  // packing works within halves of registers
    _mm256_storeu_si256((__m256i*)codes, _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high), turn));
    const __m256i certain = _mm256_set1_epi32(is_signed ? ~0x001fffff : ~0x003fffff);
    const __m256i doubt = _mm256_cmpeq_epi32(_mm256_and_si256(least_rest, certain), _mm256_setzero_si256());
    return _mm256_testz_si256(doubt, doubt) ? 0 : all;
  }
#else
  struct Ready {};
  Ready ready() const { return {}; }
#endif

  [[gnu::always_inline]] uint64_t guess(const float* values, float inverse, Code* codes, int64_t count,
                                        [[maybe_unused]] const Ready& ready) const {
    constexpr uint32_t doubtful = 10u << leading;  // ten floats: five on either side of a middle
#if defined(__AVX512F__) || defined(EIGHT_AT_ONCE)
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

// A block's scale as the divisor of its values, its inverse, and the places at which guesses from that inverse are in
// doubt whatever the values are: none or all.
struct Divisor {
  float value, inverse;
  uint64_t doubt;
};

template <class Codec>
Divisor divisor_of(float scale) {
  const float value = scale == 0 ? 1 : scale;
  // The inverse, a product and the quotient are rounded: that makes three floats, if none is out of the normal range.
  return {value, Codec::stretch / value, value > 0x1p-100f && value < 0x1p100f ? 0 : all};
}

// Guesses the codes of a chunk and returns the places in doubt, which `settle` encodes.
template <class Codec>
[[gnu::always_inline]] inline uint64_t guess(const Codec codec, const float* values, const Divisor divisor,
                                             typename Codec::Code* codes, int64_t count,
                                             const typename Codec::Ready& ready) {
  return codec.guess(values, divisor.inverse, codes, count, ready) | divisor.doubt;
}

template <class Codec>
[[gnu::always_inline]] inline void settle(const Codec codec, const float* values, const Divisor divisor,
                                          typename Codec::Code* codes, int64_t count, uint64_t doubt) {
  for (; doubt != 0; doubt &= doubt - 1) {
    const int64_t place = __builtin_ctzll(doubt);
    if (place < count) codes[place] = codec.encode(values[place] / divisor.value);
  }
}

}  // namespace
