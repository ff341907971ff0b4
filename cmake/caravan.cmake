# Flags and helpers shared by every folder.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
# ccache needs leave to cache what is compiled with precompiled headers.
if(CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER
    ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime ${CCACHE})
endif()

add_library(caravan_flags INTERFACE)
# -ffp-contract=off: a fused multiply-add is written out where the format asks for one and nowhere else, so that the
# scalar twins give the bits of the vector paths (law 3).
target_compile_options(caravan_flags INTERFACE
  -Wall -Wextra -Wpedantic -Werror -Wshadow -Wconversion -Wno-sign-conversion -Wnon-virtual-dtor -Woverloaded-virtual
  -ffp-contract=off -fno-math-errno -fvisibility=hidden)
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  # CHECK takes its expression apart with <<, which this warning takes for a slip.
  target_compile_options(caravan_flags INTERFACE -Wthread-safety -Wno-overloaded-shift-op-parentheses
    "SHELL:-Xclang -fno-pch-timestamp")
endif()
if(CMAKE_BUILD_TYPE STREQUAL "RelWithDebInfo")
  # Line tables keep the sanitizer builds quick to compile. With -O1 clang inlines nothing of the standard library: the tests
  # take a sixth longer, and compiling hardly less. Calls at a function's end stay calls, so that reports name all of
  # a stack.
  set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -fno-optimize-sibling-calls -gline-tables-only")
else()
  set(CMAKE_CXX_FLAGS_RELEASE "-O2")
endif()
if(CARAVAN_SANITIZE)
  set(sanitize -fsanitize=${CARAVAN_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_compile_options(caravan_flags INTERFACE ${sanitize})
  target_link_options(caravan_flags INTERFACE ${sanitize})
endif()

# A system library by its pkg-config name, as target PkgConfig::NAME; its headers are system headers.
function(caravan_system name module)
  if(NOT TARGET PkgConfig::${name})
    pkg_check_modules(${name} REQUIRED IMPORTED_TARGET GLOBAL ${module})
  endif()
endfunction()

caravan_system(FMT fmt)
caravan_system(SPDLOG spdlog)
caravan_system(OPENSSL libcrypto)
caravan_system(XXHASH libxxhash)
caravan_system(ZMQ libzmq)
# Of headers that libzmq itself was built with: nobody here includes them, and from CMake's second run on they would stand
# elsewhere on the command line, so that all that uses ZeroMQ would be compiled again.
set_target_properties(PkgConfig::ZMQ PROPERTIES INTERFACE_COMPILE_OPTIONS "" INTERFACE_INCLUDE_DIRECTORIES "")
caravan_system(CAPNP capnp)
caravan_system(ROCKSDB rocksdb)
caravan_system(SODIUM libsodium)
caravan_system(PCRE2 libpcre2-8)
caravan_system(UTF8PROC libutf8proc)
caravan_system(URING liburing)
caravan_system(PROMETHEUS prometheus-cpp-core)
# Only the tests and benchmarks need these; ./start builds without.
pkg_check_modules(GTEST QUIET IMPORTED_TARGET GLOBAL gtest)
pkg_check_modules(BENCHMARK QUIET IMPORTED_TARGET GLOBAL benchmark)

# The fuzz targets see inside the libraries that they link; tests are built without, which is quicker.
function(caravan_coverage target)
  if(CARAVAN_FUZZ)
    target_compile_options(${target} PRIVATE -fsanitize=fuzzer-no-link)
  endif()
endfunction()

# dev and tsan parse the large headers once, ahead of all files. rel does not: it proves that each file includes what it needs,
# and g++ warns of system headers that come precompiled.
function(caravan_precompile target)
  caravan_coverage(${target})
  if(CARAVAN_SANITIZE)
    target_precompile_headers(${target} REUSE_FROM caravan_precompiled)
  endif()
endfunction()
if(CARAVAN_SANITIZE)
  add_library(caravan_precompiled OBJECT ${PROJECT_SOURCE_DIR}/cmake/precompiled.cpp)
  target_link_libraries(caravan_precompiled PRIVATE caravan_flags)
  caravan_coverage(caravan_precompiled)
  target_precompile_headers(caravan_precompiled PRIVATE <algorithm> <cmath> <filesystem> <fstream> <functional> <map> <memory>
    <optional> <regex> <set> <sstream> <string> <thread> <vector> <fmt/core.h> <nlohmann/json.hpp>)
endif()

# caravan_library(NAME DEPS a b SYSTEM PkgConfig::X): every .cpp of the folder; DEPS are caravan folders.
function(caravan_library name)
  cmake_parse_arguments(ARG "" "" "DEPS;SYSTEM;SOURCES" ${ARGN})
  if(NOT ARG_SOURCES)
    file(GLOB ARG_SOURCES CONFIGURE_DEPENDS *.cpp)
  endif()
  list(TRANSFORM ARG_DEPS PREPEND caravan_)
  if(NOT ARG_SOURCES)
    add_library(caravan_${name} INTERFACE)
    target_link_libraries(caravan_${name} INTERFACE ${ARG_DEPS})
    return()
  endif()
  add_library(caravan_${name} STATIC ${ARG_SOURCES})
  target_include_directories(caravan_${name} PUBLIC ${PROJECT_SOURCE_DIR})
  target_link_libraries(caravan_${name} PUBLIC ${ARG_DEPS} PRIVATE caravan_flags ${ARG_SYSTEM})
  caravan_precompile(caravan_${name})
endfunction()

# What a test itself computes is little, and compiling it is most of a cold build: tests are optimised less than what they
# test. (-O0 takes g++ as long as -O1; it saves clang with sanitizers three fifths.)
function(caravan_test_options target)
  if(CARAVAN_SANITIZE)
    target_compile_options(${target} PRIVATE -O0)
  else()
    target_compile_options(${target} PRIVATE -O1)
  endif()
endfunction()

# caravan_test(NAME DEPS a b): one GoogleTest program of every .cpp of the folder, registered with CTest under NAME.
function(caravan_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "DEPS;SYSTEM;LABELS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS *.cpp)
  if(NOT sources)
    return()
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
    if(CARAVAN_SANITIZE STREQUAL "thread")
      set(ARG_TIMEOUT 1500)
    endif()
  endif()
  add_executable(test_${name} ${sources})
  list(TRANSFORM ARG_DEPS PREPEND caravan_)
  target_link_libraries(test_${name} PRIVATE caravan_flags caravan_test_main ${ARG_DEPS} ${ARG_SYSTEM})
  caravan_test_options(test_${name})
  if(CARAVAN_SANITIZE)
    target_precompile_headers(test_${name} REUSE_FROM caravan_test_main)
  endif()
  add_test(NAME ${name} COMMAND test_${name})
  set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS "${ARG_LABELS}")
endfunction()

# caravan_fuzz(NAME DEPS a b): the libFuzzer target fuzz_NAME of NAME.cpp, when fuzzing is on.
function(caravan_fuzz name)
  if(NOT CARAVAN_FUZZ)
    return()
  endif()
  cmake_parse_arguments(ARG "" "" "DEPS;SYSTEM" ${ARGN})
  add_executable(fuzz_${name} ${name}.cpp)
  list(TRANSFORM ARG_DEPS PREPEND caravan_)
  target_link_libraries(fuzz_${name} PRIVATE caravan_flags ${ARG_DEPS} ${ARG_SYSTEM})
  target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
  caravan_precompile(fuzz_${name})
endfunction()
