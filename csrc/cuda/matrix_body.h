// Counts of all pairs of packed masks: a product of two matrices of bits, blocked like one.
#pragma once

#include "cuda/mask_bodies.h"

namespace dpad::gpu {

enum class Ignoring { nothing, one, each };  // no ignore mask; one for all; one for each mask of b

// a [n, size], b [m, size] words with areas [n] and [m]; counts [n, m] start as 0. A block counts over one of `splits`
// parts of the words, and blocks of one tile add up.
struct MatrixArgs {
  const uint64_t *a, *b, *ignore;
  const int64_t *area_a, *area_b;
  int64_t n, m, size, splits;
  int64_t *intersection, *uni;
};

// A tile is 64 masks of a and 16 of b, 32 words at a time in shared memory; a thread owns 2 x 2 pairs. The lanes of a
// warp read neighbouring masks of a and the same two of b. An odd pitch puts the transposed writes into different
// banks. With 16 masks of b or fewer, every mask of a is read once.
template <Ignoring kIgnoring>
struct MatrixBody {
  using Args = MatrixArgs;
  static constexpr int kThreads = 256, kBlocks = 4, kRows = 64, kColumns = 16, kWords = 32, kPerRow = kWords / 2;
  struct Shared {
    uint64_t a[kWords][kRows + 1], b[kWords][kColumns + 1];
    uint64_t hidden[kIgnoring == Ignoring::each ? kWords : 1][kColumns + 1];
    PairCounts sums[kRows][kColumns + 1];
  };

  DPAD_HD static int64_t tiles(const Args& a) { return ceil_div(a.n, kRows) * ceil_div(a.m, kColumns); }
  // Enough parts for about two blocks on each of an H100's 132 multiprocessors, and no more: each part adds to all
  // counts.
  DPAD_HD static int64_t splits(const Args& a) {
    const int64_t max_parts = maximum<int64_t>(ceil_div(a.size, kWords), 1);
    return clamped<int64_t>(264 / maximum<int64_t>(tiles(a), 1), 1, max_parts);
  }
  // Words of a part, an even number.
  DPAD_HD static int64_t part(const Args& a) { return 2 * ceil_div(a.size, 2 * a.splits); }
  DPAD_HD static int64_t blocks(const Args& a) { return tiles(a) * a.splits; }

  DPAD_HD static WordPair masked(const WordPair& pair, const WordPair& hidden) {
    return {pair.low & ~hidden.low, pair.high & ~hidden.high};
  }

  // Copies words first..first + left (kWords at most) of a tile's masks to shared memory; others are 0.
  DPAD_HD static void stage(const Args& args, Shared& shared, int64_t row, int64_t column, int64_t first, int64_t left,
                            int thread) {
    const auto read = [&](const uint64_t* masks, int64_t mask, int64_t count, int i) {
      const uint64_t* at = masks + mask * args.size + first;
      return mask < count ? load_pair(at, i, left, is_aligned(at)) : WordPair{0, 0};
    };
    const int i = thread % kPerRow;
    WordPair shared_hidden{0, 0};
    if (kIgnoring == Ignoring::one) shared_hidden = read(args.ignore, 0, 1, i);
#pragma unroll
    for (int mask = thread / kPerRow; mask < kRows; mask += kThreads / kPerRow) {
      const WordPair pair = masked(read(args.a, row + mask, args.n, i), shared_hidden);
      shared.a[2 * i][mask] = pair.low, shared.a[2 * i + 1][mask] = pair.high;
    }
    const int mask = thread / kPerRow;
    WordPair pair = masked(read(args.b, column + mask, args.m, i), shared_hidden);
    if (kIgnoring == Ignoring::each) {
      const WordPair hidden = read(args.ignore, column + mask, args.m, i);
      pair = masked(pair, hidden);
      shared.hidden[2 * i][mask] = hidden.low, shared.hidden[2 * i + 1][mask] = hidden.high;
    }
    shared.b[2 * i][mask] = pair.low, shared.b[2 * i + 1][mask] = pair.high;
  }

  struct Sums {
    PairCounts pairs[2][2];
  };

  DPAD_HD static void count(const Shared& shared, int words, int thread, Sums& sums) {
    const int row = thread % 32, column = thread / 32;
#pragma unroll 4
    for (int k = 0; k < words; ++k) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const uint64_t truth = shared.b[k][column + 8 * j];
        const uint64_t hidden = kIgnoring == Ignoring::each ? shared.hidden[k][column + 8 * j] : 0;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const uint64_t mask = shared.a[k][row + 32 * i];
          sums.pairs[i][j].intersection += popcount(mask & truth);
          if (kIgnoring != Ignoring::nothing) sums.pairs[i][j].uni += popcount((mask & ~hidden) | truth);
        }
      }
    }
  }

  template <typename Block>
  DPAD_HD static void run(Block& block, Shared& shared, const Args& args, int64_t index) {
    const int64_t split = index % args.splits, tile = index / args.splits, across = ceil_div(args.m, kColumns);
    const int64_t row = tile / across * kRows, column = tile % across * kColumns;
    const int64_t begin = split * part(args), end = minimum(begin + part(args), args.size);
    typename Block::template Local<Sums> own;
    for (int64_t first = begin; first < end; first += kWords) {
      const int left = static_cast<int>(minimum<int64_t>(end - first, kWords));
      block.each([&](int thread) { stage(args, shared, row, column, first, left, thread); });
      block.each([&](int thread) { count(shared, left, thread, own[thread]); });
    }
    // By way of shared memory, so that neighbouring threads add to neighbouring counts.
    block.each([&](int thread) {
      for (int i = 0; i < 2; ++i)
        for (int j = 0; j < 2; ++j) shared.sums[thread % 32 + 32 * i][thread / 32 + 8 * j] = own[thread].pairs[i][j];
    });
    block.each([&](int thread) {
      for (int i = thread / kColumns; i < kRows; i += kThreads / kColumns)
        add(args, row + i, column + thread % kColumns, split == 0, shared.sums[i][thread % kColumns]);
    });
  }

  DPAD_HD static void add(const Args& args, int64_t row, int64_t column, bool first, const PairCounts& counts) {
    if (row >= args.n || column >= args.m) return;
    int64_t uni = counts.uni;
    if (kIgnoring == Ignoring::nothing) {
      uni = -static_cast<int64_t>(counts.intersection);
      if (first) uni += args.area_a[row] + args.area_b[column];
    }
    if (counts.intersection != 0) atomic_add(args.intersection + row * args.m + column, counts.intersection);
    if (uni != 0) atomic_add(args.uni + row * args.m + column, uni);
  }
};

}  // namespace dpad::gpu
