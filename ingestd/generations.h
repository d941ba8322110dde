#pragma once

#include <cstddef>
#include <cstdint>

// Which routes of a table were written before which moment (docs/decisions/0006-resync-and-sweeps.md). Each
// route carries the generation in which it was last announced; a moment is a generation as well. 16 bits that
// wrap: ages are taken relative to the current generation, and never become so large that an old one could
// pass for a young one.
namespace arancini::ingestd {

class Generations {
 public:
  // A route cannot be more bumps old than this.
  static constexpr std::uint16_t kMaxAge = 0x7fff;

  [[nodiscard]] std::uint16_t current() const { return current_; }
  // Routes of the table that are not of the current generation.
  [[nodiscard]] std::size_t old_routes() const { return old_; }
  // Written before `moment` became the current generation.
  [[nodiscard]] bool older(std::uint16_t generation, std::uint16_t moment) const {
    return age(generation) > age(moment);
  }

  // From now on whatever is announced is newer than all `size` routes that are there. Costs a generation only
  // if some route is of the current one. False: no generation is left until a sweep has ended (32,767
  // re-syncs without one).
  bool bump(std::size_t size) {
    if (old_ == size) return true;
    if (old_ == 0) oldest_ = current_;
    if (age(oldest_) >= kMaxAge) return false;
    ++current_;
    old_ = size;
    return true;
  }

  // A route of that generation was announced again, and is of the current one now.
  void refreshed(std::uint16_t generation) { old_ -= generation != current_ ? 1 : 0; }
  // After bump(): a route of the current generation is to count as one of those before. Its generation.
  std::uint16_t outdate() {
    ++old_;
    return static_cast<std::uint16_t>(current_ - 1);
  }
  // A route of that generation was erased.
  void erased(std::uint16_t generation) { old_ -= generation != current_ ? 1 : 0; }
  // No route older than `moment` is left.
  void swept(std::uint16_t moment) {
    if (age(moment) < age(oldest_)) oldest_ = moment;
  }

 private:
  [[nodiscard]] std::uint16_t age(std::uint16_t generation) const {
    return static_cast<std::uint16_t>(current_ - generation);
  }

  std::uint16_t current_ = 1;
  std::uint16_t oldest_ = 1;
  std::size_t old_ = 0;
};

}  // namespace arancini::ingestd
