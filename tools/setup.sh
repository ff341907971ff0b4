# Sourced by ./start and ./check: installs what is missing from Debian's archive.
#   setup_packages program|tests [--yes]
# Says what is missing and asks before it uses sudo, unless --yes was given or there is no terminal. Without root and
# without sudo it prints the line to type and ends with 2. Uses no network when everything is there.

program_packages="g++ cmake ninja-build ccache pkg-config capnproto libcapnp-dev libboost-dev libzmq3-dev cppzmq-dev
  librocksdb-dev libsodium-dev libssl-dev libxxhash-dev libtomlplusplus-dev libcli11-dev nlohmann-json3-dev
  libspdlog-dev libfmt-dev prometheus-cpp-dev liburing-dev libpcre2-dev libutf8proc-dev"
test_packages="clang clang-format libclang-rt-14-dev libgtest-dev libbenchmark-dev procps"

missing_packages() {
  local package
  for package in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || printf '%s ' "$package"
  done
}

setup_packages() {
  local wanted=$program_packages missing answer run=
  [ "$1" = tests ] && wanted="$wanted $test_packages"
  if ! command -v dpkg-query >/dev/null; then
    echo "caravan builds with packages of Debian 12; this system has no dpkg. Needed there:" $wanted >&2
    exit 2
  fi
  missing=$(missing_packages $wanted)
  [ -z "$missing" ] && return
  local line="apt-get install -y --no-install-recommends $missing"
  echo "Missing packages: $missing" >&2
  if [ "$(id -u)" != 0 ]; then
    run=sudo
    if ! command -v sudo >/dev/null; then
      echo "There is no sudo here. As root, type:" >&2
      echo "  apt-get update && $line" >&2
      exit 2
    fi
  fi
  if [ "${2:-}" != --yes ] && [ -t 0 ] && [ -t 2 ]; then
    read -r -p "Install them with ${run:+$run }apt-get? [Y/n] " answer || answer=no
    case $answer in
      "" | [yY]*) ;;
      *)
        echo "Nothing was installed. To do it by hand: ${run:+$run }apt-get update && ${run:+$run }$line" >&2
        exit 2
        ;;
    esac
  fi
  if [ "$run" = sudo ] && [ ! -t 0 ] && ! sudo -n true 2>/dev/null; then
    echo "sudo asks for a password and there is no terminal. Type: sudo apt-get update && sudo $line" >&2
    exit 2
  fi
  { $run apt-get update -qq && $run env DEBIAN_FRONTEND=noninteractive $line; } >&2 || {
    echo "The packages could not be installed (see above). By hand: ${run:+$run }apt-get update && ${run:+$run }$line" >&2
    exit 2
  }
}
