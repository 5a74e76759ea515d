// Native kernels of residua: exact search by int8 codes with a proven bound, and what readers make of a few neighbours.
//
// One idea runs through the file: a body is written once, in plain C++, and compiled for several processors by wrappers
// with target attributes; only the scan of the codes has a version of its own for each. Nothing is kept between calls
// but the codes, which nobody changes: threads may search side by side.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <new>
#include <thread>
#include <utility>
#include <vector>

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define RESIDUA_X86 1
#include <immintrin.h>
#else
#define RESIDUA_X86 0
#endif

#if defined(_WIN32)
#define PUBLIC extern "C" __declspec(dllexport)
#else
#define PUBLIC extern "C" __attribute__((visibility("default")))
#endif

#if defined(_MSC_VER)
#define INLINE static __forceinline
#else
#define INLINE static inline __attribute__((always_inline))
#endif

namespace {

constexpr int ROWS = 64;         // of a block of codes, 4 dimensions of all rows side by side
constexpr int TOGETHER = 6;      // queries of one pass over the codes: as many as AVX-512 has registers for
constexpr int SAMPLE = 8;        // of so many blocks one tells where the nearest are, where many are wanted
constexpr double INF = std::numeric_limits<double>::infinity();
constexpr float NO_LIMIT = std::numeric_limits<float>::infinity();

enum Level { PORTABLE, AVX2, VNNI };

Level best_level() {
#if RESIDUA_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vnni"))
    return VNNI;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return AVX2;
#endif
  return PORTABLE;
}

std::atomic<int> level{best_level()};

// A body as three functions, and the choice among them.
#if RESIDUA_X86
#define FOR_EVERY_PROCESSOR(result, name, declared, given)                                            \
  result name##_portable declared { return name##_body given; }                                       \
  __attribute__((target("avx2,fma"))) result name##_avx2 declared { return name##_body given; }       \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))) result name##_avx512 declared { return name##_body given; } \
  result name declared {                                                                              \
    switch (level.load(std::memory_order_relaxed)) {                                                  \
      case VNNI: return name##_avx512 given;                                                          \
      case AVX2: return name##_avx2 given;                                                            \
      default: return name##_portable given;                                                          \
    }                                                                                                 \
  }
#else
#define FOR_EVERY_PROCESSOR(result, name, declared, given) \
  result name declared { return name##_body given; }
#endif

// ---------------------------------------------------------------------------------------------------------- distances

// In float64: beside what float32 rounds it is exact.
INLINE double squared_distance_body(const float* a, const float* b, int64_t d) {
  double sums[16] = {};
  int64_t j = 0;
  for (; j + 16 <= d; j += 16)
    for (int l = 0; l < 16; l++) {
      double apart = double(a[j + l]) - double(b[j + l]);
      sums[l] += apart * apart;
    }
  for (; j < d; j++) {
    double apart = double(a[j]) - double(b[j]);
    sums[j % 16] += apart * apart;
  }
  for (int half = 8; half; half /= 2)
    for (int l = 0; l < half; l++) sums[l] += sums[l + half];
  return sums[0];
}
FOR_EVERY_PROCESSOR(double, squared_distance, (const float* a, const float* b, int64_t d), (a, b, d))

// -------------------------------------------------------------------------------------------------------------- codes

// Key i is near lo + step * c_i, its code c_i in 0 ... 255 for each dimension; all lengths below are in steps.
struct Codes {
  int64_t n, d, groups, blocks;  // groups of 4 dimensions
  double step;                   // the same for all dimensions
  double lost;                   // the largest distance from a key to what its code says
  double widest;                 // the largest of the squared norms
  std::vector<double> middle;    // (d,): what code 128 says
  std::vector<uint8_t> memory;   // of the codes, which begin at a cache line
  std::vector<float> norms;      // (blocks * 64,): squared norms of c - 128; infinite where there is no key
  const uint8_t* of(int64_t block) const { return first + block * groups * 4 * ROWS; }
  uint8_t* first;
};

INLINE void encode_body(Codes& codes, const float* keys, int64_t begin, int64_t end, const double* lo) {
  const double inverse = 1 / codes.step;
  for (int64_t i = begin; i < end; i++) {
    const float* key = keys + i * codes.d;
    uint8_t* at = codes.first + (i / ROWS) * codes.groups * 4 * ROWS + (i % ROWS) * 4;
    double off = 0, norm = 0;
    for (int64_t j = 0; j < codes.d; j++) {
      double said = (double(key[j]) - lo[j]) * inverse;
      int code = std::min(255, std::max(0, int(said + 0.5)));
      double left = (double(key[j]) - codes.middle[j]) * inverse - (code - 128);
      off += left * left;
      norm += double(code - 128) * (code - 128);
      at[(j / 4) * 4 * ROWS + j % 4] = uint8_t(code);
    }
    codes.norms[i] = float(norm);
    codes.widest = std::max(codes.widest, norm);
    codes.lost = std::max(codes.lost, off);
  }
}
FOR_EVERY_PROCESSOR(void, encode, (Codes & codes, const float* keys, int64_t begin, int64_t end, const double* lo),
                    (codes, keys, begin, end, lo))

// A query as codes: q is near middle + step * half * v, with half the float32 number that the scan doubles.
struct Query {
  const float* given;
  std::vector<int8_t> v;  // (groups * 4,)
  float twice;            // 2 * half
  int32_t shift;          // -128 * sum of v: dot products start here, so that they are with c - 128
  double lost;            // distance from the query to what v says
  double norm;            // squared norm of half * v
  double margin;          // more than float32 arithmetic can err by
};

bool quantise(const Codes& codes, const float* given, Query& query) {
  const int most = level.load(std::memory_order_relaxed) == AVX2 ? 63 : 127;  // what its 16-bit sums can hold
  query.given = given;
  query.v.assign(codes.groups * 4, 0);
  double widest = 0;
  for (int64_t j = 0; j < codes.d; j++)
    widest = std::max(widest, std::fabs((double(given[j]) - codes.middle[j]) / codes.step));
  query.twice = float(std::max(2 * widest / most, 1e-30));
  if (!(query.twice < 1e15f)) return false;  // so far away that codes tell nothing
  const double half = double(query.twice) / 2;
  double lost = 0;
  int64_t sum = 0, squares = 0;
  for (int64_t j = 0; j < codes.d; j++) {
    double at = (double(given[j]) - codes.middle[j]) / codes.step;
    int v = std::min(most, std::max(-most, int(std::lrint(at / half))));
    query.v[j] = int8_t(v);
    sum += v;
    squares += v * v;
    lost += (at - half * v) * (at - half * v);
  }
  query.shift = int32_t(-128 * sum);
  query.lost = std::sqrt(lost) * (1 + 1e-9);
  query.norm = half * half * double(squares);
  // A norm, a factor and a dot product are rounded to float32, and so are their product and the difference.
  query.margin = std::ldexp(codes.widest + 2 * std::sqrt(query.norm * codes.widest), -20);
  return true;
}

// ------------------------------------------------------------------------------------------------------ scans of codes

// Scores are squared distances of codes less the query's norm. Each scan gives the least of each block, for several
// queries; or all 64 of one block.
INLINE void scores_of_block(const Codes& codes, const Query& query, int64_t block, float* scores) {
  const uint8_t* at = codes.of(block);
  int32_t dots[ROWS];
  for (int r = 0; r < ROWS; r++) dots[r] = query.shift;
  for (int64_t g = 0; g < codes.groups; g++, at += 4 * ROWS) {
    const int8_t* v = query.v.data() + 4 * g;
    for (int r = 0; r < ROWS; r++)
      dots[r] += at[4 * r] * v[0] + at[4 * r + 1] * v[1] + at[4 * r + 2] * v[2] + at[4 * r + 3] * v[3];
  }
  const float* norms = codes.norms.data() + block * ROWS;
  for (int r = 0; r < ROWS; r++) scores[r] = norms[r] - query.twice * float(dots[r]);
}

void block_scores_portable(const Codes& codes, const Query& query, int64_t block, float* scores) {
  scores_of_block(codes, query, block, scores);
}

void scan_portable(const Codes& codes, const Query* queries, int count, float* least) {
  float scores[ROWS];
  for (int64_t b = 0; b < codes.blocks; b++)
    for (int i = 0; i < count; i++) {
      scores_of_block(codes, queries[i], b, scores);
      least[i * codes.blocks + b] = *std::min_element(scores, scores + ROWS);
    }
}

#if RESIDUA_X86
#define TARGET_AVX2 __attribute__((target("avx2,fma")))
#define TARGET_VNNI __attribute__((target("avx512f,avx512bw,avx512vnni,avx512dq,avx512vl,avx2,fma")))

TARGET_AVX2 void block_scores_avx2(const Codes& codes, const Query& query, int64_t block, float* scores) {
  const uint8_t* at = codes.of(block);
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i dots[8];
  for (auto& dot : dots) dot = _mm256_set1_epi32(query.shift);
  for (int64_t g = 0; g < codes.groups; g++, at += 4 * ROWS) {
    int32_t four;
    std::memcpy(&four, query.v.data() + 4 * g, 4);
    const __m256i v = _mm256_set1_epi32(four);
    for (int r = 0; r < 8; r++) {
      __m256i pairs = _mm256_maddubs_epi16(_mm256_loadu_si256((const __m256i*)(at + 32 * r)), v);
      dots[r] = _mm256_add_epi32(dots[r], _mm256_madd_epi16(pairs, ones));
    }
  }
  const float* norms = codes.norms.data() + block * ROWS;
  const __m256 twice = _mm256_set1_ps(query.twice);
  for (int r = 0; r < 8; r++)
    _mm256_storeu_ps(scores + 8 * r, _mm256_fnmadd_ps(twice, _mm256_cvtepi32_ps(dots[r]), _mm256_loadu_ps(norms + 8 * r)));
}

TARGET_AVX2 void scan_avx2(const Codes& codes, const Query* queries, int count, float* least) {
  alignas(32) float scores[ROWS];
  for (int64_t b = 0; b < codes.blocks; b++)
    for (int i = 0; i < count; i++) {
      block_scores_avx2(codes, queries[i], b, scores);
      __m256 low = _mm256_load_ps(scores);
      for (int r = 1; r < 8; r++) low = _mm256_min_ps(low, _mm256_load_ps(scores + 8 * r));
      _mm256_store_ps(scores, low);
      least[i * codes.blocks + b] = *std::min_element(scores, scores + 8);
    }
}

template <int COUNT>
TARGET_VNNI void dots_vnni(const Codes& codes, const Query* queries, int64_t block, __m512i (&dots)[COUNT][4]) {
  const uint8_t* at = codes.of(block);
  for (int i = 0; i < COUNT; i++)
    for (int r = 0; r < 4; r++) dots[i][r] = _mm512_set1_epi32(queries[i].shift);
  for (int64_t g = 0; g < codes.groups; g++, at += 4 * ROWS) {
    __m512i c[4];
    for (int r = 0; r < 4; r++) c[r] = _mm512_load_si512(at + 64 * r);
#pragma GCC unroll 6
    for (int i = 0; i < COUNT; i++) {
      int32_t four;
      std::memcpy(&four, queries[i].v.data() + 4 * g, 4);
      const __m512i v = _mm512_set1_epi32(four);
      for (int r = 0; r < 4; r++) dots[i][r] = _mm512_dpbusd_epi32(dots[i][r], c[r], v);
    }
  }
}

TARGET_VNNI void block_scores_vnni(const Codes& codes, const Query& query, int64_t block, float* scores) {
  __m512i dots[1][4];
  dots_vnni<1>(codes, &query, block, dots);
  const float* norms = codes.norms.data() + block * ROWS;
  const __m512 twice = _mm512_set1_ps(query.twice);
  for (int r = 0; r < 4; r++)
    _mm512_storeu_ps(scores + 16 * r, _mm512_fnmadd_ps(twice, _mm512_cvtepi32_ps(dots[0][r]), _mm512_loadu_ps(norms + 16 * r)));
}

template <int COUNT>
TARGET_VNNI void scan_vnni_of(const Codes& codes, const Query* queries, float* least) {
  for (int64_t b = 0; b < codes.blocks; b++) {
    __m512i dots[COUNT][4];
    dots_vnni<COUNT>(codes, queries, b, dots);
    const float* norms = codes.norms.data() + b * ROWS;
    for (int i = 0; i < COUNT; i++) {
      const __m512 twice = _mm512_set1_ps(queries[i].twice);
      __m512 low = _mm512_fnmadd_ps(twice, _mm512_cvtepi32_ps(dots[i][0]), _mm512_loadu_ps(norms));
      for (int r = 1; r < 4; r++)
        low = _mm512_min_ps(low, _mm512_fnmadd_ps(twice, _mm512_cvtepi32_ps(dots[i][r]), _mm512_loadu_ps(norms + 16 * r)));
      least[i * codes.blocks + b] = _mm512_reduce_min_ps(low);
    }
  }
}

TARGET_VNNI void scan_vnni(const Codes& codes, const Query* queries, int count, float* least) {
  if (count == TOGETHER) return scan_vnni_of<TOGETHER>(codes, queries, least);
  for (int i = 0; i < count; i++) scan_vnni_of<1>(codes, queries + i, least + i * codes.blocks);
}
#endif

void block_scores(const Codes& codes, const Query& query, int64_t block, float* scores) {
#if RESIDUA_X86
  switch (level.load(std::memory_order_relaxed)) {
    case VNNI: return block_scores_vnni(codes, query, block, scores);
    case AVX2: return block_scores_avx2(codes, query, block, scores);
  }
#endif
  block_scores_portable(codes, query, block, scores);
}

void scan(const Codes& codes, const Query* queries, int count, float* least) {
#if RESIDUA_X86
  switch (level.load(std::memory_order_relaxed)) {
    case VNNI: return scan_vnni(codes, queries, count, least);
    case AVX2: return scan_avx2(codes, queries, count, least);
  }
#endif
  scan_portable(codes, queries, count, least);
}

// ------------------------------------------------------------------------------------------------------- exact search

struct Scored {
  float score;
  int64_t at;
  bool operator<(const Scored& other) const { return score < other.score; }
};

struct Search {
  const Codes& codes;
  const float* keys;
  int64_t k;
  std::vector<Scored> near;
  std::vector<double> squared;  // of those in `near` that were measured
  std::vector<double> sorted;
  std::vector<float> least;

  void prefetch(int64_t at) const {
#if defined(__GNUC__) || defined(__clang__)
    const char* key = (const char*)(keys + at * codes.d);
    for (int64_t byte = 0; byte < std::min<int64_t>(codes.d * 4, 512); byte += 64) __builtin_prefetch(key + byte);
#endif
  }

  // Keys with low < score <= high.
  void collect(const Query& query, const float* blocks, float low, float high) {
    float scores[ROWS];
    for (int64_t b = 0; b < codes.blocks; b++) {
      if (!(blocks[b] <= high)) continue;
      block_scores(codes, query, b, scores);
      const int64_t end = std::min<int64_t>(ROWS, codes.n - b * ROWS);
      for (int64_t r = 0; r < end; r++)
        if ((scores[r] > low) & (scores[r] <= high)) {  // one branch, seldom taken
          near.push_back({scores[r], b * ROWS + r});
          prefetch(b * ROWS + r);
        }
    }
  }

  // A score that k keys or somewhat more do not exceed, most likely: any will do.
  float threshold(const Query& query, const float* blocks) {
    if (8 * k <= codes.blocks) {  // one in each of k blocks
      least.assign(blocks, blocks + codes.blocks);
      std::nth_element(least.begin(), least.begin() + (k - 1), least.end());
      return least[k - 1];
    }
    const int64_t sampled = codes.blocks / SAMPLE;
    const double share = double(k) * double(sampled * ROWS) / double(codes.n);
    const int64_t rank = int64_t(share + 2 * std::sqrt(share) + 1);
    if (2 * rank > sampled * ROWS) return NO_LIMIT;
    least.resize(sampled * ROWS);
    for (int64_t b = 0; b < sampled; b++) block_scores(codes, query, b * SAMPLE, least.data() + b * ROWS);
    std::nth_element(least.begin(), least.begin() + (rank - 1), least.end());
    return least[rank - 1];
  }

  double kth() {
    sorted = squared;
    std::nth_element(sorted.begin(), sorted.begin() + (k - 1), sorted.end());
    return sorted[k - 1];
  }

  // The squared distance that no key exceeds which may be among the k nearest, whose distances are sums of d squares in
  // float32, in any order.
  double furthest(double squared_of_kth) const {
    const double rounding = double(codes.d + 8) * 0x1p-24;
    const double limit = squared_of_kth * (1 + 2.5 * rounding) + double(codes.d) * 0x1p-120;
    return limit < 3.0e38 ? limit : INF;  // sums of more overflow, and are alike
  }

  // Places of all keys that may be among the k nearest, up to `room` of them, -1 behind, and where asked for their
  // squared distances; how many there are.
  int64_t run(const Query* query, const float* given, const float* blocks, int64_t room, int64_t* places,
              float* distances = nullptr) {
    near.clear();
    squared.clear();
    const auto measure = [&](int64_t at) { squared.push_back(squared_distance(given, keys + at * codes.d, codes.d)); };
    if (!query) {  // codes tell nothing
      for (int64_t i = 0; i < codes.n; i++) near.push_back({0, i}), measure(i);
    } else {
      float high = threshold(*query, blocks);
      collect(*query, blocks, -NO_LIMIT, high);
      if (int64_t(near.size()) < k) {
        near.clear();
        collect(*query, blocks, -NO_LIMIT, high = NO_LIMIT);
      }
      std::nth_element(near.begin(), near.begin() + (k - 1), near.end());
      for (int64_t i = 0; i < k; i++) measure(near[i].at);
      // k keys are at most so far, in steps; what is nearer has a code at most that much further from the query's.
      double reach = std::sqrt(furthest(*std::max_element(squared.begin(), squared.end()))) / codes.step;
      reach = (reach + query->lost + codes.lost) * (1 + 1e-9);
      const double exact = reach * reach - query->norm * (1 - 1e-12) + query->margin;
      const float needed = std::nextafter(float(exact), NO_LIMIT);  // not below it
      if (needed > high) collect(*query, blocks, high, needed);
      auto end = std::partition(near.begin() + k, near.end(), [&](const Scored& one) { return one.score <= needed; });
      near.erase(end, near.end());
      for (size_t i = k; i < near.size(); i++) measure(near[i].at);
    }
    const double limit = furthest(kth());
    int64_t count = 0;
    for (size_t i = 0; i < near.size(); i++)
      if (squared[i] <= limit && count++ < room) {
        places[count - 1] = near[i].at;
        if (distances) distances[count - 1] = float(squared[i]);
      }
    std::fill(places + std::min(count, room), places + room, int64_t(-1));
    return count;
  }
};

// -------------------------------------------------------------------------------------------------------------- reads

constexpr int LANES = 16;
constexpr float NOTICE = 1e-18f, TINY = std::numeric_limits<float>::min();

// exp of x <= 0, within 2 units of the last place; 0 below -87.
INLINE float exponential(float x) {
  const float kept = x < -87.0f ? -87.0f : x;
  const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number
  const float whole = (kept * 1.44269504f + magic) - magic;
  const float r = (kept - whole * 0.693359375f) + whole * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const int32_t bits = (int32_t(whole) + 127) << 23;
  float power;
  std::memcpy(&power, &bits, 4);
  return x < -87.0f ? 0.0f : p * power;
}

struct Passed {
  float top;     // the largest
  double total;  // the sum of exp(x - top)
};

// One vector of `scale` * logits; `exps`, where given, gets exp(x - top). A top of NaN: not all are finite.
INLINE Passed passed(const float* logits, int64_t L, float scale, float* exps) {
  float tops[LANES], odd[LANES] = {};
  for (float& top : tops) top = -std::numeric_limits<float>::infinity();
  int64_t j = 0;
  for (; j + LANES <= L; j += LANES)
    for (int l = 0; l < LANES; l++) {
      const float x = logits[j + l] * scale;
      tops[l] = x > tops[l] ? x : tops[l];
      odd[l] += x - x;
    }
  for (; j < L; j++) {
    const float x = logits[j] * scale;
    tops[0] = x > tops[0] ? x : tops[0];
    odd[0] += x - x;
  }
  float top = tops[0], bad = odd[0];
  for (int l = 1; l < LANES; l++) top = tops[l] > top ? tops[l] : top, bad += odd[l];
  if (!(bad == 0)) return {std::numeric_limits<float>::quiet_NaN(), 0};
  double total = 0;
  for (int64_t start = 0; start < L; start += 4096) {  // float32 sums of a few each
    const int64_t stop = std::min(L, start + 4096);
    float sums[LANES] = {};
    for (j = start; j + LANES <= stop; j += LANES)
      for (int l = 0; l < LANES; l++) {
        const float e = exponential(logits[j + l] * scale - top);
        if (exps) exps[j + l] = e;
        sums[l] += e;
      }
    for (; j < stop; j++) {
      const float e = exponential(logits[j] * scale - top);
      if (exps) exps[j] = e;
      sums[0] += e;
    }
    for (float sum : sums) total += double(sum);
  }
  return {top, total};
}

// Kernel weights of a sum of `share` from squared distances, in any order.
INLINE void weigh(const float* squared, int64_t k, float sigma, bool gaussian, float share, float* weights) {
  float nearest = squared[0];
  for (int64_t i = 1; i < k; i++) nearest = squared[i] < nearest ? squared[i] : nearest;
  const float start = std::sqrt(nearest);
  for (int64_t i = 0; i < k; i++) {
    const float distance = std::sqrt(squared[i]);
    float apart = distance - start;
    if (gaussian) apart *= distance + start;
    apart = apart / -sigma;
    const float weight = exponential(apart != apart ? 0.0f : apart);  // infinitely far, as the nearest is
    weights[i] = weight < NOTICE ? 0.0f : weight;
  }
  double total = 0;
  for (int64_t i = 0; i < k; i++) total += double(weights[i]);
  const float each = float(double(share) / total);
  for (int64_t i = 0; i < k; i++) weights[i] *= each;
}

// A reader of residuals (ResMem, eq. 7-8), or of labels (kNN-LM, eq. 3), over one memory.
struct Reader {
  const void* labels;  // (n,)
  const float* said;   // (n, L): what the model said; null for labels
  int64_t L, k;
  float temperature, sigma;
  int32_t gaussian, in_logits;
  float left, given, floor;
  int32_t label_bytes;  // 1, 2 or 4: int8, int16 or int32
};

INLINE int64_t label_of(const Reader& reader, int64_t row) {
  if (reader.label_bytes == 1) return static_cast<const int8_t*>(reader.labels)[row];
  if (reader.label_bytes == 2) return static_cast<const int16_t*>(reader.labels)[row];
  return static_cast<const int32_t*>(reader.labels)[row];
}

// Logits whose softmax are the probabilities, and whose logsumexp is that of the model's own; false: left to others.
INLINE bool residuals_body(const Reader& reader, const int64_t* rows, const float* squared, const float* logits,
                           float* work, float* out) {
  const int64_t L = reader.L, k = reader.k;
  float *weights = work, *change = weights + k, *said = change + L, *start = said + L;
#if defined(__GNUC__) || defined(__clang__)
  for (int64_t i = 0; i < k; i++)
    for (int64_t j = 0; j < std::min<int64_t>(L, 256); j += 16) __builtin_prefetch(reader.said + rows[i] * L + j);
#endif
  const float scale = 1 / reader.temperature;
  const Passed own = passed(logits, L, 1, nullptr);
  if (own.top != own.top) return false;
  const float partition = own.top + float(std::log(own.total));
  weigh(squared, k, reader.sigma, reader.gaussian, 1, weights);
  for (int64_t j = 0; j < L; j++) change[j] = 0;
  for (int64_t i = 0; i < k; i++) {
    const Passed there = passed(reader.said + rows[i] * L, L, scale, said);
    const float total = float(there.total), each = weights[i] / total;
    said[label_of(reader, rows[i])] -= total;  // first: so no residual is no change, exactly
    for (int64_t j = 0; j < L; j++) change[j] += each * said[j];
  }
  const Passed base = passed(logits, L, scale, start);
  const float share = 1 / float(base.total);
  if (reader.in_logits) {
    for (int64_t j = 0; j < L; j++) out[j] = logits[j] * scale * reader.left - change[j] * reader.given;
    const Passed made = passed(out, L, 1, nullptr);
    const float moved = partition - made.top - float(std::log(made.total)), least = std::log(TINY) + partition;
    for (int64_t j = 0; j < L; j++) out[j] = std::max(out[j] + moved, least);
    return true;
  }
  double total = 0;
  for (int64_t j = 0; j < L; j++) {
    const float now = start[j] * share, low = reader.floor * now;
    const float score = now * reader.left - change[j] * reader.given;
    out[j] = score > low ? score : low;
    total += double(out[j]);
  }
  const float each = float(1 / total);
  for (int64_t j = 0; j < L; j++) out[j] = std::log(std::max(out[j] * each, TINY)) + partition;
  return true;
}
FOR_EVERY_PROCESSOR(bool, residuals,
                    (const Reader& reader, const int64_t* rows, const float* squared, const float* logits, float* work,
                     float* out),
                    (reader, rows, squared, logits, work, out))

// The same of labels, where no token can be on the floor. `heard` (L,) is all 0, and is left so.
INLINE bool tokens_body(const Reader& reader, const int64_t* rows, const float* squared, const float* logits,
                        float* weights, float* heard, float* out) {
  const int64_t L = reader.L, k = reader.k;
  const float scale = 1 / reader.temperature;
  const Passed own = passed(logits, L, 1, nullptr);
  if (own.top != own.top) return false;
  const Passed base = reader.temperature == 1 ? own : passed(logits, L, scale, nullptr);
  const float partition = own.top + float(std::log(own.total));
  const float moved = partition - base.top - float(std::log(base.total / double(reader.left)));
  for (int64_t j = 0; j < L; j++) out[j] = logits[j] * scale + moved;
  weigh(squared, k, reader.sigma, reader.gaussian, reader.given, weights);
  for (int64_t i = 0; i < k; i++) heard[label_of(reader, rows[i])] += weights[i];
  const float share = reader.left / float(base.total);
  for (int64_t i = 0; i < k; i++) {
    const int64_t label = label_of(reader, rows[i]);
    const float said = exponential(logits[label] * scale - base.top) * share + heard[label];
    out[label] = std::log(std::max(said, TINY)) + partition;
  }
  for (int64_t i = 0; i < k; i++) heard[label_of(reader, rows[i])] = 0;
  return true;
}
FOR_EVERY_PROCESSOR(bool, tokens,
                    (const Reader& reader, const int64_t* rows, const float* squared, const float* logits,
                     float* weights, float* heard, float* out),
                    (reader, rows, squared, logits, weights, heard, out))

bool read_one(const Reader& reader, const int64_t* rows, const float* squared, const float* logits, float* out) {
  static thread_local std::vector<float> work, heard;
  work.resize(std::max<size_t>(work.size(), reader.k + (reader.said ? 3 * reader.L : 0)));
  if (reader.said) return residuals(reader, rows, squared, logits, work.data(), out);
  heard.resize(std::max<size_t>(heard.size(), reader.L), 0.0f);
  return tokens(reader, rows, squared, logits, work.data(), heard.data(), out);
}

// ------------------------------------------------------------------------------------------------------------ rerank

enum Number { FLOAT32, FLOAT16, BFLOAT16 };

INLINE float widened(uint16_t half) {  // of a finite float16
  const uint32_t bits = uint32_t(half & 0x7fff) << 13, sign = uint32_t(half & 0x8000) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  value *= 5.192296858534828e33f;  // 2^112: between the two exponents' biases
  uint32_t made;
  std::memcpy(&made, &value, 4);
  made |= sign;
  std::memcpy(&value, &made, 4);
  return value;
}

INLINE void widen_body(const void* key, int kind, int64_t d, float* out) {
  const uint16_t* halves = static_cast<const uint16_t*>(key);
  if (kind == FLOAT16) {
    for (int64_t j = 0; j < d; j++) out[j] = widened(halves[j]);
  } else {
    for (int64_t j = 0; j < d; j++) {
      const uint32_t bits = uint32_t(halves[j]) << 16;
      std::memcpy(out + j, &bits, 4);
    }
  }
}
FOR_EVERY_PROCESSOR(void, widen, (const void* key, int kind, int64_t d, float* out), (key, kind, d, out))

}  // namespace

// ---------------------------------------------------------------------------------------------------------- the C ABI

PUBLIC int residua_abi() { return 2; }

// 2: AVX-512 with VNNI; 1: AVX2 with FMA; 0: plain C++.
PUBLIC int residua_level() { return level.load(); }

// Use no more than this level, and not more than there is; what is used from now on.
PUBLIC int residua_limit(int most) {
  level.store(std::min<int>(best_level(), std::max(0, most)));
  return level.load();
}

// Codes of keys, float32 (n, d), all finite; null where memory is short. They serve every level.
PUBLIC void* residua_codes(const float* keys, int64_t n, int64_t d) try {
  Codes* codes = new Codes();
  try {
    codes->n = n;
    codes->d = d;
    codes->groups = (d + 3) / 4;
    codes->blocks = (n + ROWS - 1) / ROWS;
    std::vector<double> lo(d, INF), hi(d, -INF);
    for (int64_t i = 0; i < n; i++)
      for (int64_t j = 0; j < d; j++) {
        lo[j] = std::min(lo[j], double(keys[i * d + j]));
        hi[j] = std::max(hi[j], double(keys[i * d + j]));
      }
    double widest = 0;
    for (int64_t j = 0; j < d; j++) widest = std::max(widest, hi[j] - lo[j]);
    codes->step = widest > 0 ? widest / 255 : 1;
    codes->middle.resize(d);
    for (int64_t j = 0; j < d; j++) codes->middle[j] = lo[j] + 128 * codes->step;
    codes->memory.assign(codes->blocks * codes->groups * 4 * ROWS + 64, 0);
    codes->first = codes->memory.data() + (64 - uintptr_t(codes->memory.data()) % 64) % 64;
    codes->norms.assign(codes->blocks * ROWS, std::numeric_limits<float>::infinity());
    codes->lost = codes->widest = 0;
    encode(*codes, keys, 0, n, lo.data());
    codes->lost = std::sqrt(codes->lost) * (1 + 1e-9) + 1e-9;
  } catch (...) {
    delete codes;
    throw;
  }
  return codes;
} catch (const std::bad_alloc&) {
  return nullptr;
}

PUBLIC void residua_codes_free(void* codes) { delete static_cast<Codes*>(codes); }

PUBLIC int64_t residua_codes_bytes(const void* given) {
  const Codes* codes = static_cast<const Codes*>(given);
  return int64_t(codes->memory.size() + 4 * codes->norms.size());
}

// Places int64 (q, room) of all keys, of those that `codes` are of, that may be among each query's k nearest, in no
// order, -1 behind; `counts` int64 (q,): how many there are, perhaps more than `room`. 1 <= k <= n and room >= k. The
// share of the keys that were measured; negative where memory is short.
PUBLIC double residua_nearest(const void* given, const float* keys, const float* queries, int64_t q, int64_t k,
                              int64_t threads, int64_t room, int64_t* places, int64_t* counts) {
  const Codes& codes = *static_cast<const Codes*>(given);
  const int64_t tiles = (q + TOGETHER - 1) / TOGETHER;
  std::atomic<int64_t> next{0}, measured{0};
  std::atomic<bool> failed{false};
  const auto work = [&]() noexcept {
    try {
      Search search{codes, keys, k, {}, {}, {}, {}};
      std::vector<Query> asked(TOGETHER);
      std::vector<float> least(std::min<int64_t>(q, TOGETHER) * codes.blocks);
      for (int64_t tile; (tile = next++) < tiles && !failed;) {
        const int64_t begin = tile * TOGETHER, count = std::min<int64_t>(TOGETHER, q - begin);
        int coded = 0, place[TOGETHER];
        for (int64_t i = 0; i < count; i++)
          place[i] = quantise(codes, queries + (begin + i) * codes.d, asked[coded]) ? coded++ : -1;
        if (coded) scan(codes, asked.data(), coded, least.data());
        for (int64_t i = 0; i < count; i++) {
          const bool has = place[i] >= 0;
          counts[begin + i] = search.run(has ? &asked[place[i]] : nullptr, queries + (begin + i) * codes.d,
                                         has ? least.data() + place[i] * codes.blocks : nullptr, room,
                                         places + (begin + i) * room);
          measured += int64_t(search.squared.size());
        }
      }
    } catch (const std::bad_alloc&) {
      failed = true;
    }
  };
  std::vector<std::thread> others;
  try {
    for (int64_t t = 1; t < std::min(threads, tiles); t++) others.emplace_back(work);
  } catch (...) {  // fewer threads than asked for
  }
  work();
  for (auto& other : others) other.join();
  return failed ? -1 : double(measured) / (double(std::max<int64_t>(q, 1)) * double(codes.n));
}

// The exact squared distances of the first `depth` of each query's candidates, rows and squared (q, count); the others
// are moved by the mean error of the further half of those. Keys (n, d) are float32 (0), float16 (1) or bfloat16 (2).
PUBLIC int residua_rerank(const void* keys, int kind, int64_t d, const float* queries, int64_t q, const int64_t* rows,
                          int64_t count, int64_t depth, float* squared) try {
  const int64_t size = d * (kind == FLOAT32 ? 4 : 2), exact = std::min(depth, count);
  std::vector<float> wide(d);
  for (int64_t i = 0; i < q; i++) {
    const int64_t* row = rows + i * count;
    float* now = squared + i * count;
    double error = 0;
    for (int64_t c = 0; c < exact; c++) {
#if defined(__GNUC__) || defined(__clang__)
      if (c + 8 < exact)
        for (int64_t byte = 0; byte < size; byte += 64)
          __builtin_prefetch(static_cast<const char*>(keys) + row[c + 8] * size + byte);
#endif
      const char* key = static_cast<const char*>(keys) + row[c] * size;
      if (kind != FLOAT32) widen(key, kind, d, wide.data());
      const float found = float(
          squared_distance(queries + i * d, kind == FLOAT32 ? reinterpret_cast<const float*>(key) : wide.data(), d));
      if (c >= depth / 2) error += double(found) - double(now[c]);
      now[c] = found;
    }
    const float moved = exact > depth / 2 ? float(error / double(exact - depth / 2)) : 0;
    for (int64_t c = exact; c < count; c++) now[c] = std::max(now[c] + moved, 0.0f);
  }
  return 0;
} catch (const std::bad_alloc&) {
  return 1;
}

// What a reader makes of q queries' neighbours, rows and squared distances (q, k), and of logits float32 (q, L), into
// `out` (q, L). Not 0: not all logits are finite, or memory is short.
PUBLIC int residua_read(const Reader* reader, const int64_t* rows, const float* squared, const float* logits, int64_t q,
                        float* out) try {
  for (int64_t i = 0; i < q; i++) {
    const int64_t at = i * reader->k, to = i * reader->L;
    if (!read_one(*reader, rows + at, squared + at, logits + to, out + to)) return 1;
  }
  return 0;
} catch (const std::bad_alloc&) {
  return 1;
}

// The same of a few queries float32 (q, d) as they are given, of which `centre`, float64 (d,), is taken first where
// there is one: searched and read at once. `names`, int64, or null: the row of each key. Not 0 also where there is no
// telling which keys are nearest by distances that are rounded to float32, and where not all queries are finite.
PUBLIC int residua_answer(const Reader* reader, const void* given, const float* keys, const int64_t* names,
                          const float* queries, const double* centre, int64_t q, const float* logits, float* out) try {
  const Codes& codes = *static_cast<const Codes*>(given);
  const int64_t d = codes.d, k = reader->k;
  Search search{codes, keys, k, {}, {}, {}, {}};
  std::vector<Query> asked(TOGETHER);
  std::vector<float> moved(TOGETHER * d), squared(k), least(std::min<int64_t>(q, TOGETHER) * codes.blocks);
  std::vector<int64_t> rows(k);
  std::vector<std::pair<float, int64_t>> near(k);
  for (int64_t begin = 0; begin < q; begin += TOGETHER) {
    const int64_t count = std::min<int64_t>(TOGETHER, q - begin);
    for (int64_t i = 0; i < count; i++) {
      const float* query = queries + (begin + i) * d;
      float odd = 0;
      for (int64_t j = 0; j < d; j++) {
        const float at = centre ? float(double(query[j]) - centre[j]) : query[j];
        moved[i * d + j] = at;
        odd += at - at;
      }
      if (!(odd == 0) || !quantise(codes, moved.data() + i * d, asked[i])) return 1;
    }
    scan(codes, asked.data(), int(count), least.data());
    for (int64_t i = 0; i < count; i++) {
      const float* blocks = least.data() + i * codes.blocks;
      if (search.run(&asked[i], moved.data() + i * d, blocks, k, rows.data(), squared.data()) != k) return 1;
      if (int64_t(search.squared.size()) > codes.n / 8 + k) return 1;  // whoever counts these may give the codes up
      for (int64_t j = 0; j < k; j++) near[j] = {squared[j], names ? names[rows[j]] : rows[j]};
      std::sort(near.begin(), near.end());  // sums in this order, however they were found
      for (int64_t j = 0; j < k; j++) squared[j] = near[j].first, rows[j] = near[j].second;
      const int64_t to = (begin + i) * reader->L;
      if (!read_one(*reader, rows.data(), squared.data(), logits + to, out + to)) return 1;
    }
  }
  return 0;
} catch (const std::bad_alloc&) {
  return 1;
}
