// Holds the headers that dev and tsan parse once; see caravan.cmake.
