#include "simd/choose.h"

#include "check.h"
#include "simd/crops/table.h"
#include "simd/digits/table.h"
#include "simd/masks/table.h"
#include "simd/tower/table.h"

using dpad::SimdLevel;

TEST(names_and_levels_belong_together) {
  for (const auto level : {SimdLevel::scalar, SimdLevel::avx2, SimdLevel::avx512, SimdLevel::amx})
    CHECK(dpad::simd_level_named("simd", dpad::simd_level_name(level)) == level);
  CHECK(dpad::simd_level_named("simd", "best") == SimdLevel::amx);
  for (const char* name : {"", "avx521", "AVX2", "scalar "})
    CHECK_INVALID(dpad::simd_level_named("simd", name), "simd must be one of best, scalar, avx2, avx512, amx, got '");
}

TEST(no_table_is_above_what_is_allowed) {
  const SimdLevel allowed = dpad::allowed_simd_level();
  CHECK(dpad::mask_table().level <= allowed);
  CHECK(dpad::tower_table().level <= allowed);
  CHECK(dpad::digit_table().level <= allowed);
  for (const auto limit : {SimdLevel::scalar, SimdLevel::avx2, SimdLevel::avx512, SimdLevel::amx}) {
    CHECK(dpad::crop_table(limit).level <= limit);
    CHECK(dpad::crop_table(limit).level <= allowed);
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
  const bool wide_is_allowed = dpad::allowed_simd_level() >= SimdLevel::avx2;
  CHECK(&dpad::choose(candidates) == (wide_is_allowed ? &wide : &scalar));
  CHECK(&dpad::choose(candidates, SimdLevel::scalar) == &scalar);
}
