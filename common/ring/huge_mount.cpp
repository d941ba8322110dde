#include "common/ring/huge_mount.h"

#include <fmt/format.h>
#include <mntent.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>

#include "shm-layout/abi.h"

namespace arancini {

std::vector<HugeMount> huge_mounts() {
  std::vector<HugeMount> mounts;
  const auto close = [](FILE* f) { ::endmntent(f); };
  const std::unique_ptr<FILE, decltype(close)> file(::setmntent("/proc/self/mounts", "re"), close);
  if (!file) return mounts;
  mntent entry{};
  std::array<char, 8192> text{};
  while (::getmntent_r(file.get(), &entry, text.data(), static_cast<int>(text.size())) != nullptr) {
    if (std::strcmp(entry.mnt_type, "hugetlbfs") != 0 || ::access(entry.mnt_dir, W_OK) != 0) continue;
    struct statfs s {};
    if (::statfs(entry.mnt_dir, &s) != 0 || s.f_bsize <= 0) continue;
    mounts.push_back({entry.mnt_dir, static_cast<std::uint64_t>(s.f_bsize)});
  }
  std::stable_sort(mounts.begin(), mounts.end(),
                   [](const HugeMount& a, const HugeMount& b) { return a.page_bytes < b.page_bytes; });
  return mounts;
}

std::string huge_directory(const HugeMount& mount, const std::string& path) {
  std::error_code ec;
  std::string canonical =
      std::filesystem::weakly_canonical(std::filesystem::absolute(path, ec).parent_path(), ec).string();
  canonical += '/' + std::filesystem::path(path).filename().string();
  std::uint64_t hash = shm::kLayoutSeed;
  for (const char c : canonical) hash = shm::fold_layout(hash, static_cast<unsigned char>(c));
  return fmt::format("{}/arancini-{:016x}", mount.directory, hash);
}

std::string huge_advice(std::uint64_t bytes) {
  constexpr std::uint64_t kPage = 2ULL * 1024 * 1024;
  std::uint64_t reserved = 0;
  std::ifstream("/proc/sys/vm/nr_hugepages") >> reserved;
  std::string advice;
  if (huge_mounts().empty())
    advice = "mount -t hugetlbfs hugetlbfs /dev/hugepages (writable for this user); ";
  return fmt::format("run: {}sysctl vm.nr_hugepages={}", advice, reserved + (bytes + kPage - 1) / kPage);
}

}  // namespace arancini
