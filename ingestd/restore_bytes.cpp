#include "ingestd/restore_bytes.h"

#include <cstring>
#include <type_traits>

namespace arancini::ingestd {

namespace {

class Parts {
 public:
  explicit Parts(std::span<const std::byte> bytes) : bytes_(bytes) {}

  template <class Items>
  bool all(Items& items) {
    using Item = typename Items::value_type;
    static_assert(std::is_trivially_copyable_v<Item>);
    std::uint32_t count = 0;
    if (!copy(&count, sizeof count) || count > bytes_.size() / sizeof(Item)) return false;
    items.resize(count);
    return copy(items.data(), count * sizeof(Item));
  }
  bool copy(void* to, std::size_t size) {
    if (size > bytes_.size()) return false;
    if (size != 0) std::memcpy(to, bytes_.data(), size);
    bytes_ = bytes_.subspan(size);
    return true;
  }
  [[nodiscard]] bool empty() const { return bytes_.empty(); }

 private:
  std::span<const std::byte> bytes_;
};

bool consistent(const RestoreBatch& batch) {
  using Kind = RestoreBatch::Kind;
  for (const RestoreBatch::Step& step : batch.steps) {
    const bool routes = step.first <= batch.routes.size() && step.count <= batch.routes.size() - step.first;
    switch (step.kind) {
      case Kind::Router:
        if (step.index >= batch.routers.size()) return false;
        break;
      case Kind::View:
        if (step.index >= batch.views.size()) return false;
        break;
      case Kind::Attributes:
        if (step.index >= batch.attributes.size()) return false;
        break;
      case Kind::Announce:
        if (step.index >= batch.attributes.size() || !routes) return false;
        break;
      case Kind::SnapshotRoutes:
      case Kind::Withdraw:
        if (!routes) return false;
        break;
      case Kind::ForgetAttributes:
      case Kind::Clear: break;
      default: return false;
    }
  }
  for (const RestoreBatch::Attributes& a : batch.attributes) {
    const std::uint64_t size = std::uint64_t{a.next_hop_bytes} + a.flags_bytes + a.attributes_bytes;
    if (a.first > batch.bytes.size() || size > batch.bytes.size() - a.first) return false;
  }
  return true;
}

}  // namespace

std::uint32_t restore_batch_bytes(const RestoreBatch& batch) {
  std::size_t size = 0;
  put_restore_batch(batch, [&](std::span<const std::byte> part) { size += part.size(); });
  return static_cast<std::uint32_t>(size);
}

bool read_restore_batch(std::span<const std::byte> bytes, RestoreBatch& batch) {
  batch.clear();
  Parts parts(bytes);
  std::uint32_t routers = 0;
  if (!parts.all(batch.steps) || !parts.all(batch.views) || !parts.all(batch.attributes) ||
      !parts.all(batch.routes) || !parts.all(batch.bytes) || !parts.copy(&routers, sizeof routers)) {
    return false;
  }
  for (; routers != 0; --routers) {
    RestoredRouter router;
    if (!parts.copy(router.address.bytes.data(), router.address.bytes.size()) || !parts.all(router.name) ||
        !parts.all(router.sys_name) || !parts.all(router.sys_descr)) {
      return false;
    }
    batch.routers.push_back(std::move(router));
  }
  return parts.empty() && consistent(batch);
}

}  // namespace arancini::ingestd
