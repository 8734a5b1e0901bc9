// Bodies of the mask kernels: dense bytes to bits and back, areas and boxes, counts of pairs. block.h explains bodies.
// A mask's pixel x is bit x % 64 of the row's word x / 64, as everywhere in dpad_fast.
#pragma once

#include "cuda/block.h"

namespace dpad::gpu {

DPAD_HD int64_t words_in(int64_t pixels) { return (pixels + 63) / 64; }

// The 16 bytes at `at`, whatever its alignment, read as aligned 16-byte pieces where those lie in begin..end; bytes
// outside are 0 and never read.
DPAD_HD WordPair load_bytes(const uint8_t* at, const uint8_t* begin, const uint8_t* end) {
  const int shift = static_cast<int>(reinterpret_cast<uintptr_t>(at) & 15);
  const int64_t before = at - begin, after = end - at;
  if (shift == 0 && after >= 16) return load_aligned(at);
  if (shift != 0 && before >= shift && after >= 32 - shift) {
    const WordPair first = load_aligned(at - shift), second = load_aligned(at - shift + 16);
    const bool far = shift >= 8;
    const uint64_t a = far ? first.high : first.low, b = far ? second.low : first.high;
    const uint64_t c = far ? second.high : second.low;
    const int bits = 8 * (shift & 7);
    if (bits == 0) return {a, b};
    return {a >> bits | b << (64 - bits), b >> bits | c << (64 - bits)};
  }
  WordPair bytes{0, 0};
  for (int i = 0; i < 16; ++i) {
    const uint64_t byte = i < after ? at[i] : 0;
    (i < 8 ? bytes.low : bytes.high) |= byte << (8 * (i & 7));
  }
  return bytes;
}

// The high bit of each byte that is not 0.
DPAD_HD uint64_t set_bytes(uint64_t bytes) {
  constexpr uint64_t kLow = 0x7f7f7f7f7f7f7f7f;
  return (((bytes & kLow) + kLow) | bytes) & ~kLow;
}

// Bit i says whether byte i is not 0.
DPAD_HD uint32_t bits_of_bytes(uint64_t bytes) {
  return static_cast<uint32_t>((set_bytes(bytes) >> 7) * 0x0102040810204080u >> 56);
}

// Byte i is bit i, 0 or 1.
DPAD_HD uint64_t bytes_of_bits(uint32_t bits) {
  const uint64_t spread = (bits & 255) * 0x0101010101010101u & 0x8040201008040201u;
  return ((spread + 0x7f7f7f7f7f7f7f7fu) >> 7) & 0x0101010101010101u;
}

// `count` bits (at most 16) from pixel x of a row on, which go on in the rows below. A row has `width` pixels in
// `pitch` words of 32 bits.
DPAD_HD uint32_t gather_bits(const uint32_t* words, int pitch, int width, int64_t row, int x, int count) {
  uint32_t bits = 0;
  for (int filled = 0; filled < count; ++row) {
    const int take = minimum(count - filled, width - x), shift = x & 31;
    const uint32_t* word = words + row * pitch + (x >> 5);
    uint32_t part = word[0] >> shift;
    if (shift + take > 32) part |= word[1] << (32 - shift);
    bits |= (part & ((1u << take) - 1)) << filled;
    filled += take;
    x = 0;
  }
  return bits;
}

// Writes bytes first..end (at most 16, all in one aligned piece) of a dense mask from their bits.
DPAD_HD void store_bytes(uint8_t* dense, int64_t first, int64_t end, uint32_t bits) {
  if (end - first == 16 && is_aligned(dense + first))
    return store_aligned(dense + first, {bytes_of_bits(bits), bytes_of_bits(bits >> 8)});
  for (int64_t i = first; i < end; ++i) dense[i] = static_cast<uint8_t>(bits >> (i - first) & 1);
}

// --- dense [n, height, width] bytes to words [n, height, words] ---

struct PackArgs {
  const uint8_t* dense;
  uint64_t* words;
  int64_t n, height, width;
};

// A thread turns 16 bytes into 16 bits, four times. Then the block's bits are stored as pairs of words.
struct PackBody {
  using Args = PackArgs;
  static constexpr int kThreads = 256, kBlocks = 4, kTurns = 4, kParts = kThreads * kTurns;
  struct Shared {
    union {
      uint16_t parts[kParts];
      WordPair pairs[kParts / 8];
    };
  };

  DPAD_HD static int64_t blocks(const Args& a) { return ceil_div(a.n * a.height * words_in(a.width) * 4, kParts); }

  template <typename Block>
  DPAD_HD static void run(Block& block, Shared& shared, const Args& a, int64_t index) {
    const uint32_t row_parts = static_cast<uint32_t>(4 * words_in(a.width)), width = static_cast<uint32_t>(a.width);
    const int64_t rows = a.n * a.height, first = index * kParts, first_row = first / row_parts;
    const uint32_t first_part = static_cast<uint32_t>(first - first_row * row_parts);
    const uint8_t* end = a.dense + rows * a.width;
    block.each([&](int thread) {
      WordPair bytes[kTurns];
      uint32_t keep[kTurns];
#pragma unroll
      for (int turn = 0; turn < kTurns; ++turn) {
        const uint32_t part = first_part + static_cast<uint32_t>(turn * kThreads + thread);
        const int64_t row = first_row + part / row_parts;
        const uint32_t x = part % row_parts * 16;
        keep[turn] = row < rows && x < width ? minimum(width - x, 16u) : 0;
        bytes[turn] = WordPair{0, 0};
        if (keep[turn] != 0) bytes[turn] = load_bytes(a.dense + row * a.width + x, a.dense, end);
      }
#pragma unroll
      for (int turn = 0; turn < kTurns; ++turn) {
        const uint32_t bits = bits_of_bytes(bytes[turn].low) | bits_of_bytes(bytes[turn].high) << 8;
        shared.parts[turn * kThreads + thread] = static_cast<uint16_t>(bits & ((1u << keep[turn]) - 1));
      }
    });
    block.each([&](int thread) {
      if (thread >= kParts / 8) return;
      const int64_t words = rows * (row_parts / 4);
      store_pair(a.words, index * (kParts / 8) + thread, words, is_aligned(a.words), shared.pairs[thread]);
    });
  }
};

// --- words to dense ---

struct UnpackArgs {
  const uint64_t* words;
  uint8_t* dense;
  int64_t n, height, width;
};

struct UnpackBody {
  using Args = UnpackArgs;
  static constexpr int kThreads = 256, kBlocks = 4, kTurns = 4;
  static constexpr int64_t kBytes = int64_t{16} * kThreads * kTurns;
  struct Shared {};

  DPAD_HD static int64_t blocks(const Args& a) { return ceil_div(a.n * a.height * a.width, kBytes); }

  template <typename Block>
  DPAD_HD static void run(Block& block, Shared&, const Args& a, int64_t index) {
    const int64_t total = a.n * a.height * a.width, first = index * kBytes, first_row = first / a.width;
    const uint32_t width = static_cast<uint32_t>(a.width), first_x = static_cast<uint32_t>(first - first_row * a.width);
    const int pitch = static_cast<int>(2 * words_in(a.width));
    block.each([&](int thread) {
#pragma unroll
      for (int turn = 0; turn < kTurns; ++turn) {
        const uint32_t offset = static_cast<uint32_t>(16 * (turn * kThreads + thread)), at = first_x + offset;
        const int64_t flat = first + offset, end = minimum(flat + 16, total);
        if (flat >= total) continue;
        const uint32_t* words = reinterpret_cast<const uint32_t*>(a.words);
        const uint32_t bits = gather_bits(words, pitch, static_cast<int>(width), first_row + at / width,
                                          static_cast<int>(at % width), static_cast<int>(end - flat));
        store_bytes(a.dense, flat, end, bits);
      }
    });
  }
};

// --- areas and boxes ---

// The number of set pixels, their smallest x and y, and one past their largest.
struct Extent {
  int32_t area = 0, x1 = INT32_MAX, y1 = INT32_MAX, x2 = 0, y2 = 0;

  DPAD_HD void add(uint64_t word, int32_t x, int32_t y) {
    if (word == 0) return;
    area += popcount(word);
    x1 = minimum(x1, x + lowest_bit(word)), x2 = maximum(x2, x + highest_bit(word) + 1);
    y1 = minimum(y1, y), y2 = maximum(y2, y + 1);
  }
  DPAD_HD void join(const Extent& other) {
    area += other.area;
    x1 = minimum(x1, other.x1), x2 = maximum(x2, other.x2);
    y1 = minimum(y1, other.y1), y2 = maximum(y2, other.y2);
  }
  // box is (x1, y1, x2, y2); zeros for an empty mask.
  DPAD_HD void store(int64_t* into_area, int64_t* box) const {
    *into_area = area;
    box[0] = area == 0 ? 0 : x1;
    box[1] = area == 0 ? 0 : y1;
    box[2] = x2;
    box[3] = y2;
  }
};

struct MeasureArgs {
  const uint64_t* words;
  int64_t *area, *box;
  int64_t n, height, width;
};

struct MeasureBody {
  using Args = MeasureArgs;
  static constexpr int kThreads = 512, kBlocks = 2;
  struct Shared {
    Extent extents[kThreads];
  };

  DPAD_HD static int64_t blocks(const Args& a) { return a.n; }

  template <typename Block>
  DPAD_HD static void run(Block& block, Shared& shared, const Args& a, int64_t index) {
    const uint32_t row = static_cast<uint32_t>(words_in(a.width));
    const int64_t size = a.height * row;
    const uint64_t* words = a.words + index * size;
    const bool aligned = is_aligned(words);
    typename Block::template Local<Extent> own;
    block.each([&](int thread) {
      for (int64_t i = thread; 2 * i < size; i += kThreads) {
        const WordPair pair = load_pair(words, i, size, aligned);
        if ((pair.low | pair.high) == 0) continue;
        const uint32_t at = static_cast<uint32_t>(2 * i), y = at / row, x = at % row;
        const bool next = x + 1 == row;
        own[thread].add(pair.low, static_cast<int32_t>(x * 64), static_cast<int32_t>(y));
        own[thread].add(pair.high, static_cast<int32_t>(next ? 0 : x * 64 + 64), static_cast<int32_t>(y + next));
      }
    });
    reduce<kThreads>(block, own, shared.extents, [](Extent& into, const Extent& from) { into.join(from); });
    block.each([&](int thread) {
      if (thread == 0) shared.extents[0].store(a.area + index, a.box + 4 * index);
    });
  }
};

// --- counts of pairs ---

struct PairCounts {
  int32_t intersection = 0, uni = 0;

  DPAD_HD void add(uint64_t a, uint64_t b, uint64_t hidden) {
    intersection += popcount(a & b & ~hidden);
    uni += popcount((a | b) & ~hidden);
  }
  DPAD_HD static void join(PairCounts& into, const PairCounts& from) {
    into.intersection += from.intersection;
    into.uni += from.uni;
  }
};

template <int kThreads>
struct CountsShared {
  PairCounts counts[kThreads];
};

// Counts that blocks are going to add to.
struct ZeroCountsArgs {
  int64_t *intersection, *uni;
  int64_t count;
};

struct ZeroCountsBody : ItemBody<ZeroCountsBody, ZeroCountsArgs, 256> {
  DPAD_HD static int64_t items(const Args& a) { return a.count; }
  DPAD_HD static void one(const Args& a, int64_t i) { a.intersection[i] = a.uni[i] = 0; }
};

// IoU in float64 from counts; `empty` where the union is empty.
struct RatioArgs {
  const int64_t *intersection, *uni;
  double* iou;
  int64_t count;
  double empty;
};

struct RatioBody : ItemBody<RatioBody, RatioArgs, 256> {
  DPAD_HD static int64_t items(const Args& a) { return a.count; }
  DPAD_HD static void one(const Args& a, int64_t i) {
    const int64_t uni = a.uni[i];
    a.iou[i] = uni == 0 ? a.empty : static_cast<double>(a.intersection[i]) / static_cast<double>(uni);
  }
};

// Adds a block's counts to those of pair i, which start as 0.
template <int kThreads, typename Block>
DPAD_HD void add_counts(Block& block, typename Block::template Local<PairCounts>& own, CountsShared<kThreads>& shared,
                        int64_t i, int64_t* intersection, int64_t* uni) {
  reduce<kThreads>(block, own, shared.counts, &PairCounts::join);
  block.each([&](int thread) {
    if (thread != 0) return;
    atomic_add(intersection + i, shared.counts[0].intersection);
    atomic_add(uni + i, shared.counts[0].uni);
  });
}

// a, b [n, pixels] bytes; ignore null, or ignore_step bytes from mask to mask (0: one for all).
struct DenseCountsArgs {
  const uint8_t *a, *b, *ignore;
  int64_t ignore_step, n, pixels;
  int64_t *intersection, *uni;
};

struct DenseCountsBody {
  using Args = DenseCountsArgs;
  static constexpr int kThreads = 256, kBlocks = 3, kTurns = 4;
  static constexpr int64_t kBytes = int64_t{16} * kThreads * kTurns;
  using Shared = CountsShared<kThreads>;

  DPAD_HD static int64_t blocks(const Args& a) { return a.n * ceil_div(a.pixels, kBytes); }

  template <typename Block>
  DPAD_HD static void run(Block& block, Shared& shared, const Args& args, int64_t index) {
    const int64_t parts = ceil_div(args.pixels, kBytes), i = index / parts, first = (index - i * parts) * kBytes;
    const uint8_t *a = args.a + i * args.pixels, *b = args.b + i * args.pixels;
    const uint8_t* ignore = args.ignore == nullptr ? nullptr : args.ignore + i * args.ignore_step;
    typename Block::template Local<PairCounts> own;
    block.each([&](int thread) {
      WordPair from_a[kTurns], from_b[kTurns], hidden[kTurns];
#pragma unroll
      for (int turn = 0; turn < kTurns; ++turn) {
        const int64_t at = first + 16 * (turn * kThreads + thread);
        from_a[turn] = from_b[turn] = hidden[turn] = WordPair{0, 0};
        if (at >= args.pixels) continue;
        from_a[turn] = load_bytes(a + at, a, a + args.pixels);
        from_b[turn] = load_bytes(b + at, b, b + args.pixels);
        if (ignore != nullptr) hidden[turn] = load_bytes(ignore + at, ignore, ignore + args.pixels);
      }
#pragma unroll
      for (int turn = 0; turn < kTurns; ++turn) {
        own[thread].add(set_bytes(from_a[turn].low), set_bytes(from_b[turn].low), set_bytes(hidden[turn].low));
        own[thread].add(set_bytes(from_a[turn].high), set_bytes(from_b[turn].high), set_bytes(hidden[turn].high));
      }
    });
    add_counts(block, own, shared, i, args.intersection, args.uni);
  }
};

// a, b [n, size] words; ignore null, one mask (ignore_step 0) or one per pair (ignore_step size).
struct PackedCountsArgs {
  const uint64_t *a, *b, *ignore;
  int64_t ignore_step, n, size;
  int64_t *intersection, *uni;
};

struct PackedCountsBody {
  using Args = PackedCountsArgs;
  static constexpr int kThreads = 256, kBlocks = 4, kTurns = 4;
  static constexpr int64_t kPairs = int64_t{kThreads} * kTurns;
  using Shared = CountsShared<kThreads>;

  DPAD_HD static int64_t blocks(const Args& a) { return a.n * ceil_div(a.size, 2 * kPairs); }

  template <typename Block>
  DPAD_HD static void run(Block& block, Shared& shared, const Args& args, int64_t index) {
    const int64_t parts = ceil_div(args.size, 2 * kPairs), i = index / parts, first = (index - i * parts) * kPairs;
    const uint64_t *a = args.a + i * args.size, *b = args.b + i * args.size;
    const uint64_t* ignore = args.ignore == nullptr ? nullptr : args.ignore + i * args.ignore_step;
    const bool aligned_a = is_aligned(a), aligned_b = is_aligned(b), aligned_ignore = is_aligned(ignore);
    typename Block::template Local<PairCounts> own;
    block.each([&](int thread) {
      WordPair from_a[kTurns], from_b[kTurns], hidden[kTurns];
#pragma unroll
      for (int turn = 0; turn < kTurns; ++turn) {
        const int64_t at = first + turn * kThreads + thread;
        from_a[turn] = load_pair(a, at, args.size, aligned_a);
        from_b[turn] = load_pair(b, at, args.size, aligned_b);
        hidden[turn] = WordPair{0, 0};
        if (ignore != nullptr) hidden[turn] = load_pair(ignore, at, args.size, aligned_ignore);
      }
#pragma unroll
      for (int turn = 0; turn < kTurns; ++turn) {
        own[thread].add(from_a[turn].low, from_b[turn].low, hidden[turn].low);
        own[thread].add(from_a[turn].high, from_b[turn].high, hidden[turn].high);
      }
    });
    add_counts(block, own, shared, i, args.intersection, args.uni);
  }
};

}  // namespace dpad::gpu
