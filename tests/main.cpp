#include <gtest/gtest.h>

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const int result = RUN_ALL_TESTS();
  // A program whose filter or folder left nothing to run has proved nothing.
  return testing::UnitTest::GetInstance()->test_to_run_count() == 0 ? 1 : result;
}
