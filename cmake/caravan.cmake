# Flags and helpers shared by every folder.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)

add_library(caravan_flags INTERFACE)
# -ffp-contract=off: a fused multiply-add is written out where the format asks for one and nowhere else, so that the
# scalar twins give the bits of the vector paths (law 3).
target_compile_options(caravan_flags INTERFACE
  -Wall -Wextra -Wpedantic -Werror -Wshadow -Wconversion -Wno-sign-conversion -Wnon-virtual-dtor -Woverloaded-virtual
  -ffp-contract=off -fno-math-errno -fvisibility=hidden)
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  # CHECK takes its expression apart with <<, which this warning takes for a slip.
  target_compile_options(caravan_flags INTERFACE -Wthread-safety -Wno-overloaded-shift-op-parentheses)
endif()
if(CMAKE_BUILD_TYPE STREQUAL "RelWithDebInfo")
  # -O1 and line tables keep the sanitizer builds quick to compile and their reports readable.
  set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O1 -gline-tables-only")
else()
  set(CMAKE_CXX_FLAGS_RELEASE "-O2")
endif()
if(CARAVAN_SANITIZE)
  set(sanitize -fsanitize=${CARAVAN_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_compile_options(caravan_flags INTERFACE ${sanitize})
  target_link_options(caravan_flags INTERFACE ${sanitize})
  if(CARAVAN_FUZZ)
    # Coverage for every object, so that the fuzz targets see inside the libraries they link.
    target_compile_options(caravan_flags INTERFACE -fsanitize=fuzzer-no-link)
  endif()
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
caravan_system(CAPNP capnp)
caravan_system(ROCKSDB rocksdb)
caravan_system(SODIUM libsodium)
caravan_system(PCRE2 libpcre2-8)
caravan_system(UTF8PROC libutf8proc)
caravan_system(PROMETHEUS prometheus-cpp-core)
# Only the tests and benchmarks need these; ./start builds without.
pkg_check_modules(GTEST QUIET IMPORTED_TARGET GLOBAL gtest)
pkg_check_modules(BENCHMARK QUIET IMPORTED_TARGET GLOBAL benchmark)

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
  endif()
  add_executable(test_${name} ${sources})
  list(TRANSFORM ARG_DEPS PREPEND caravan_)
  target_link_libraries(test_${name} PRIVATE caravan_flags caravan_test_main ${ARG_DEPS} ${ARG_SYSTEM})
  target_compile_definitions(test_${name} PRIVATE CARAVAN_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
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
endfunction()
