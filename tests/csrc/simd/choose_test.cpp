#include "simd/choose.h"

#include <string>

#include "check.h"
#include "simd/crops/table.h"
#include "simd/digits/table.h"
#include "simd/masks/table.h"
#include "simd/tower/table.h"

using dpad::SimdLevel;

namespace {

constexpr SimdLevel kLevels[] = {SimdLevel::scalar, SimdLevel::avx2, SimdLevel::avx512,
                                 SimdLevel::amx,    SimdLevel::neon, SimdLevel::i8mm};

}  // namespace

TEST(names_and_levels_belong_together) {
  for (const auto level : kLevels) CHECK(dpad::simd_level_named("simd", dpad::simd_level_name(level)) == level);
  CHECK(dpad::simd_level_named("simd", "best") == dpad::kBestLevel);
  for (const char* name : {"", "avx521", "AVX2", "scalar "})
    CHECK_INVALID(dpad::simd_level_named("simd", name),
                  "simd must be one of best, scalar, avx2, avx512, amx, neon, i8mm, got '");
}

TEST(a_level_allows_those_before_it_of_its_architecture) {
  const auto allowed_by = [](SimdLevel limit) {
    std::string names;
    for (const auto level : kLevels)
      if (dpad::allows(limit, level)) names += std::string(" ") + dpad::simd_level_name(level);
    return names;
  };
  CHECK(allowed_by(SimdLevel::scalar) == " scalar");
  CHECK(allowed_by(SimdLevel::avx512) == " scalar avx2 avx512");
  CHECK(allowed_by(SimdLevel::amx) == " scalar avx2 avx512 amx");
  CHECK(allowed_by(SimdLevel::neon) == " scalar neon");
  CHECK(allowed_by(SimdLevel::i8mm) == " scalar neon i8mm");
}

TEST(no_table_is_above_what_is_allowed) {
  const SimdLevel allowed = dpad::allowed_simd_level();
  CHECK(dpad::allows(allowed, dpad::mask_table().level));
  CHECK(dpad::allows(allowed, dpad::tower_table().level));
  CHECK(dpad::allows(allowed, dpad::digit_table().level));
  for (const auto limit : kLevels)
    for (const auto level :
         {dpad::crop_table(limit).level, dpad::tower_table(limit).level, dpad::digit_table(limit).level}) {
      CHECK(dpad::allows(limit, level));
      CHECK(dpad::allows(allowed, level));
    }
  CHECK(dpad::crop_table(SimdLevel::scalar).level == SimdLevel::scalar);
}

TEST(the_first_candidate_that_runs_is_chosen) {
  struct Table {
    SimdLevel level;
  };
  static const Table scalar{SimdLevel::scalar}, missing{SimdLevel::scalar}, wide{SimdLevel::avx2};
  const auto never = [](const dpad::CpuFeatures&) { return false; };
  const dpad::Candidate<Table> candidates[] = {
      {&missing, never}, {&wide, dpad::runs_anywhere}, {&scalar, dpad::runs_anywhere}};
  const bool wide_is_allowed =
      dpad::allows(dpad::allowed_simd_level(), SimdLevel::avx2) && dpad::allows(dpad::kBestLevel, SimdLevel::avx2);
  CHECK(&dpad::choose(candidates) == (wide_is_allowed ? &wide : &scalar));
  CHECK(&dpad::choose(candidates, SimdLevel::scalar) == &scalar);
}
