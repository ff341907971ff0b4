#!/usr/bin/env bash
# Copies the built programs, stripped, with every shared library they need but glibc's own.
#   bundle.sh BUILD_BIN TARGET
set -euo pipefail
from=$1 to=$2
root=$(cd "$(dirname "$0")/.." && pwd)
rm -rf "$to"
mkdir -p "$to/bin" "$to/lib" "$to/share/caravan"
for program in "$from"/caravan "$from"/caravan-* "$from"/test_*; do
  [ -x "$program" ] || continue
  strip -o "$to/bin/$(basename "$program")" "$program"
done
[ -x "$to/bin/caravan" ] || { echo "caravan is not built: cmake --build --preset rel" >&2; exit 1; }
ldd "$to"/bin/* 2>/dev/null | sed -n 's/.* => \(\/[^ ]*\) .*/\1/p' | sort -u |
  grep -vE '/(ld-linux[^/]*|lib(c|m|dl|rt|pthread|resolv|util|nsl|anl|mvec|BrokenLocale|nss_[a-z]+))\.so' |
  while read -r library; do
    strip -o "$to/lib/$(basename "$library")" "$(readlink -f "$library")"
  done
cp "$root/configs/caravan.toml" "$root/configs/demo/demo.gguf" "$root/configs/demo/MODEL_CARD.md" "$to/share/caravan/"
cp "$root/LICENSE" "$root/README.md" "$to/"
size=$(du -sm "$to" | cut -f1)
echo "$to: $size MiB"
[ "$size" -le 60 ] || { echo "over 60 MiB" >&2; exit 1; }
