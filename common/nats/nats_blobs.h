#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.h"
#include "common/nats/nats_settings.h"

namespace arancini {

struct BlobError {
  enum class Kind : std::uint8_t { BadName, NotFound, Damaged, Unavailable };
  Kind kind = Kind::Unavailable;
  std::string text;  // what, where, what to do
};

// Large values in a NATS key-value bucket. A blob is cut into chunks well below the server's max_payload,
// under an id of its own; its manifest, under its name, is written last. So a blob is there as a whole or not
// at all, and one that takes the place of another does so at once. What writers that died have left is
// removed after an hour. Blocks; one thread at a time.
class NatsBlobs {
 public:
  struct Options {
    std::string client = "arancini blobs";    // name of the connection
    std::string bucket;                       // made when missing: files, no history, no limits
    std::uint32_t replicas = 1;               // of a bucket that is made
    const std::atomic<bool>* stop = nullptr;  // true: ends soon, as unavailable
  };
  // Connects.
  static Result<NatsBlobs, BlobError> open(const NatsSettings& nats, const Options& options);
  ~NatsBlobs();
  NatsBlobs(NatsBlobs&&) noexcept;
  NatsBlobs& operator=(NatsBlobs&&) = delete;

  // Names consist of A-Z a-z 0-9 - _ / = and of dots inside.
  static bool is_name(std::string_view name);

  // One at a time: begin, any number of pieces, commit. What is begun and not committed is not there.
  std::optional<BlobError> begin(const std::string& name);
  std::optional<BlobError> append(std::span<const std::byte> piece);
  std::optional<BlobError> commit();

  // Calls `each` for every piece in order, until it returns false.
  std::optional<BlobError> get(const std::string& name,
                               const std::function<bool(std::span<const std::byte>)>& each);
  Result<std::vector<std::string>, BlobError> list(const std::string& prefix);  // sorted
  // Fine when it is not there.
  std::optional<BlobError> remove(const std::string& name);

 private:
  struct State;
  explicit NatsBlobs(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace arancini
