// The core without Python, on any processor: the fuzz target's comparisons on seeded random inputs, and checksums of
// what the resize gives, which must be the same wherever this is built. tests/portable.sh runs it here and under
// emulation.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include "core/crops/resample.h"
#include "core/tower/tower.h"
#include "simd/masks/table.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

// splitmix64: the same numbers from every standard library.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15ULL;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
    return z ^ z >> 31;
  }
  int64_t below(int64_t n) { return static_cast<int64_t>(next() % static_cast<uint64_t>(n)); }

 private:
  uint64_t state_;
};

// FNV-1a over the bytes.
uint64_t checksum(uint64_t sum, const void* data, size_t size) {
  const auto* bytes = static_cast<const uint8_t*>(data);
  for (size_t i = 0; i < size; ++i) sum = (sum ^ bytes[i]) * 0x100000001b3ULL;
  return sum;
}

dpad::PreprocessOptions options_of(Random& random) {
  dpad::PreprocessOptions options{};
  options.size = 1 + random.below(70);
  options.resize = static_cast<dpad::Resize>(random.below(3));
  options.filter = static_cast<dpad::Filter>(random.below(2));
  options.center = static_cast<dpad::Center>(random.below(2));
  options.order = static_cast<dpad::PassOrder>(random.below(3));
  options.type = static_cast<dpad::PixelType>(random.below(3));
  options.level = dpad::kBestLevel;
  for (int c = 0; c < dpad::kChannels; ++c) {
    options.mean[c] = static_cast<float>(random.below(100)) / 128;
    options.std[c] = static_cast<float>(1 + random.below(100)) / 128;
  }
  return options;
}

uint64_t resize_checksum(int64_t cases) {
  Random random(1);
  uint64_t sum = 0xcbf29ce484222325ULL;
  for (int64_t i = 0; i < cases; ++i) {
    const int64_t height = 1 + random.below(90), width = 1 + random.below(90);
    const auto layout = static_cast<dpad::Layout>(random.below(3));
    const int64_t step = layout == dpad::Layout::rgb ? 3 : layout == dpad::Layout::rgbx ? 4 : 1;
    std::vector<uint8_t> pixels(static_cast<size_t>(height * width * 4));
    for (uint8_t& pixel : pixels) pixel = static_cast<uint8_t>(random.next() >> 56);
    const dpad::ImageView image{pixels.data(), height, width, layout, width * step, height * width};
    const int64_t x = random.below(width) - 3, y = random.below(height) - 3;
    const std::vector<dpad::Region> regions{{0, 0, 0, width, height},
                                            {0, x, y, x + 1 + random.below(width), y + 1 + random.below(height)}};
    const dpad::PreprocessOptions options = options_of(random);
    std::vector<float> out(static_cast<size_t>(2 * 3 * options.size * options.size));
    dpad::roi_clip_preprocess({image}, regions, options, 2, out.data());
    const size_t element = options.type == dpad::PixelType::float32 ? 4 : 2;
    sum = checksum(sum, out.data(), out.size() * element);
  }
  return sum;
}

}  // namespace

int main() {
  constexpr int64_t kResizes = 3000, kInputs = 60000;
  std::fprintf(stderr, "instruction sets: crops %s, masks %s, tower %s\n",
               dpad::simd_level_name(dpad::crop_table().level), dpad::simd_level_name(dpad::mask_table().level),
               dpad::simd_level_name(dpad::tower_level()));
  std::printf("%lld resizes: %016llx\n", static_cast<long long>(kResizes),
              static_cast<unsigned long long>(resize_checksum(kResizes)));
  Random random(2);
  std::vector<uint8_t> input;
  for (int64_t i = 0; i < kInputs; ++i) {
    input.resize(static_cast<size_t>(4 + random.below(i % 8 == 0 ? 400 : 60)));
    for (uint8_t& byte : input) byte = static_cast<uint8_t>(random.next() >> 56);
    // Two in three strings are made of the alphabet of run lengths, or hardly any would be read to their end.
    if (i % 3 != 0) {
      input[0] = 0;
      for (size_t k = 3; k < input.size(); ++k) input[k] = static_cast<uint8_t>(48 + input[k] % 64);
    }
    LLVMFuzzerTestOneInput(input.data(), input.size());
  }
  std::printf("%lld inputs of masks, runs, polygons and boxes agree\n", static_cast<long long>(kInputs));
  return 0;
}
