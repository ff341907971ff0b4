#include "daemon/version.h"

#include <elf.h>
#include <link.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "base/ids.h"

namespace caravan {

namespace {

constexpr char kOwner[] = "GNU";

size_t padded(size_t bytes) {
  return (bytes + 3) / 4 * 4;
}

// The notes of one segment (ELF gABI, "Note Section"): a header, the owner's name and what it says, padded.
std::string build_in_notes(std::span<const std::byte> notes) {
  ElfW(Nhdr) note;
  while (notes.size() >= sizeof note) {
    std::memcpy(&note, notes.data(), sizeof note);
    const size_t name = sizeof note, content = name + padded(note.n_namesz);
    if (content + note.n_descsz > notes.size()) break;
    if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == sizeof kOwner &&
        std::memcmp(notes.data() + name, kOwner, sizeof kOwner) == 0)
      return to_hex(reinterpret_cast<const uint8_t*>(notes.data() + content), note.n_descsz);
    notes = notes.subspan(std::min(notes.size(), content + padded(note.n_descsz)));
  }
  return "";
}

// The program itself is the first object.
int look(dl_phdr_info* object, size_t, void* found) {
  for (int i = 0; i < object->dlpi_phnum; ++i) {
    const ElfW(Phdr)& segment = object->dlpi_phdr[i];
    if (segment.p_type != PT_NOTE) continue;
    const auto* first = reinterpret_cast<const std::byte*>(object->dlpi_addr + segment.p_vaddr);
    const std::string build = build_in_notes({first, segment.p_memsz});
    if (!build.empty()) *static_cast<std::string*>(found) = build;
  }
  return 1;
}

}  // namespace

std::string version_text() {
  return "caravan " CARAVAN_VERSION;
}

std::string build_text() {
  std::string build;
  ::dl_iterate_phdr(look, &build);
  return build;
}

}  // namespace caravan
