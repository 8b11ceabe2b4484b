// One span of GPTQ's sweep for CPUs: see `sweep` in ptq/sweep.py. Weights lie as [inputs, rows]; rows do not interact,
// so that a call makes the rows `begin` to `end` alone, a few registers' width at a time. An input takes the errors of
// the span's earlier ones only when its turn comes: they are read once for it, and it is never written.

#include <algorithm>
#include <cstdint>
#include <vector>

namespace {

constexpr int64_t registers = 4, bytes = 64;

template <class Real>
struct Rows {
  static constexpr int64_t width = registers * bytes / sizeof(Real);
  typedef Real Register __attribute__((vector_size(bytes)));
  Register at[registers];
  Real* values() { return reinterpret_cast<Real*>(at); }
};

// Asks for what the next rows need of an input: processors do not guess it, for an input's rows fill many pages.
template <int64_t width, class T>
[[gnu::always_inline]] inline void fetch(const T* next) {
  for (int64_t place = 0; place < width; place += bytes / sizeof(T)) __builtin_prefetch(next + place);
}

template <class Real>
void sweep_span(const Real* columns, Real* errors, uint8_t* codes, const Real* shares, const float* scales,
                const float* zeros, const float* tops, const int32_t* members, int64_t rows, int64_t start, int64_t stop,
                int64_t begin, int64_t end) {
  constexpr int64_t width = Rows<Real>::width;
  std::vector<Rows<Real>> made(stop - start);
  for (int64_t row = begin; row < end; row += width) {
    const int64_t count = std::min(width, end - row);
    for (int64_t input = start; input < stop; ++input) {
      const int64_t here = input * rows + row, group = int64_t(members[input]) * rows + row;
      fetch<width>(columns + here + width);
      fetch<width>(errors + here + width);
      fetch<width>(codes + here + width);
      Rows<Real> column = {};
      std::copy_n(columns + here, count, column.values());
      const Real* share = shares + (input - start) * (stop - start);
      for (int64_t earlier = 0; earlier < input - start; ++earlier)
        for (int64_t place = 0; place < registers; ++place) column.at[place] -= share[earlier] * made[earlier].at[place];
      Real* error = column.values();
      for (int64_t i = 0; i < count; ++i) {
        const float scale = scales[group + i], zero = zeros[group + i];
        const float nearest = __builtin_rintf(float(error[i]) / scale);
        const float multiple = std::min(std::max(nearest, -zero), tops[row + i] - zero);
        codes[here + i] = uint8_t(int32_t(multiple + zero));
        error[i] -= Real(multiple) * Real(scale);
      }
      made[input - start] = column;
      std::copy_n(column.values(), count, errors + here);
    }
  }
}

}  // namespace

// columns, errors, codes: [inputs, rows]; shares: the span's part of `spread`, transposed; scales, zeros: [groups, rows];
// tops: [rows]; members, the group of each input: [inputs].
#define SWEEP_SPAN(name, Real)                                                                                         \
  extern "C" void name(const Real* columns, Real* errors, uint8_t* codes, const Real* shares, const float* scales,     \
                       const float* zeros, const float* tops, const int32_t* members, int64_t rows, int64_t start,     \
                       int64_t stop, int64_t begin, int64_t end) {                                                     \
    sweep_span(columns, errors, codes, shares, scales, zeros, tops, members, rows, start, stop, begin, end);           \
  }
SWEEP_SPAN(sweep_span_float64, double)
SWEEP_SPAN(sweep_span_float32, float)
