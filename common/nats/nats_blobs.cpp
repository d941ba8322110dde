#include "common/nats/nats_blobs.h"

#include <fmt/format.h>
#include <nats/nats.h>

#include <algorithm>
#include <charconv>
#include <random>
#include <set>
#include <utility>

#include "common/base/clock.h"
#include "common/nats/nats_connector.h"

namespace arancini {

namespace {

constexpr std::int64_t kApiTimeoutMs = 5'000;
constexpr std::size_t kMostChunkBytes = 512UL * 1024;
constexpr std::size_t kLeastChunkBytes = 1024;
constexpr std::uint64_t kStaleNs = 3'600'000'000'000;  // chunks that no manifest names
constexpr std::string_view kManifest = "blob.";
constexpr std::string_view kChunk = "chunk.";

template <class T, void (*Destroy)(T*)>
struct Deleter {
  void operator()(T* p) const { Destroy(p); }
};
template <class T, void (*Destroy)(T*)>
using Handle = std::unique_ptr<T, Deleter<T, Destroy>>;
using Entry = Handle<kvEntry, kvEntry_Destroy>;

std::string_view text_of(kvEntry* entry) {
  return {static_cast<const char*>(kvEntry_Value(entry)), static_cast<std::size_t>(kvEntry_ValueLen(entry))};
}

// "1 <id> <chunks> <bytes>"
struct Manifest {
  std::string id;
  std::uint64_t chunks = 0;
  std::uint64_t bytes = 0;

  [[nodiscard]] std::string to_text() const { return fmt::format("1 {} {} {}", id, chunks, bytes); }
  static std::optional<Manifest> parse(std::string_view text) {
    std::vector<std::string> words(1);
    for (const char c : text) {
      if (c == ' ') {
        words.emplace_back();
      } else {
        words.back() += c;
      }
    }
    const auto number = [](const std::string& word, std::uint64_t& out) {
      const auto end = word.data() + word.size();
      const auto [p, error] = std::from_chars(word.data(), end, out);
      return error == std::errc{} && p == end && !word.empty();
    };
    Manifest m;
    if (words.size() != 4 || words[0] != "1" || !number(words[2], m.chunks) || !number(words[3], m.bytes))
      return std::nullopt;
    m.id = words[1];
    if (m.id.empty() || m.id.find_first_not_of("0123456789abcdef") != std::string::npos) return std::nullopt;
    return m;
  }
};

// When it was begun, then something that no other writer has.
std::string new_id() {
  std::random_device random;
  return fmt::format("{:016x}{:08x}", clock_ns(CLOCK_REALTIME), random());
}
bool is_stale(const std::string& id) {
  std::uint64_t began = 0;
  const auto [p, error] =
      std::from_chars(id.data(), id.data() + std::min<std::size_t>(id.size(), 16), began, 16);
  return error == std::errc{} && began + kStaleNs < clock_ns(CLOCK_REALTIME);
}

}  // namespace

struct NatsBlobs::State {
  State(const NatsSettings& nats, Options o) : options(std::move(o)), connector(nats, options.client) {}
  ~State() {
    kvStore_Destroy(bucket);
    jsCtx_Destroy(js);
    if (connection != nullptr) natsConnection_Close(connection);
    natsConnection_Destroy(connection);
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  [[nodiscard]] BlobError failed(const std::string& doing, natsStatus status) const {
    const std::string detail = nats_last_detail();
    std::string text = fmt::format("{}: bucket {}: {}: {}", connector.server(), options.bucket, doing,
                                   natsStatus_GetText(status));
    if (!detail.empty() && detail != natsStatus_GetText(status)) text += ": " + detail;
    return {BlobError::Kind::Unavailable, text};
  }
  [[nodiscard]] bool stopped() const {
    return options.stop != nullptr && options.stop->load(std::memory_order_relaxed);
  }

  std::optional<BlobError> put(const std::string& key, std::span<const std::byte> value) {
    if (stopped()) return BlobError{BlobError::Kind::Unavailable, "stopped"};
    const natsStatus s =
        kvStore_Put(nullptr, bucket, key.c_str(), value.data(), static_cast<int>(value.size()));
    if (s != NATS_OK) return failed("cannot write", s);
    return std::nullopt;
  }
  // All messages of that key, markers included: a bucket remembers deletions for ever otherwise.
  std::optional<BlobError> purge(const std::string& key) {
    const std::string subject = "$KV." + options.bucket + "." + key;
    jsOptions o;
    jsOptions_Init(&o);
    o.Wait = kApiTimeoutMs;
    o.Stream.Purge.Subject = subject.c_str();
    const natsStatus s = js_PurgeStream(js, ("KV_" + options.bucket).c_str(), &o, nullptr);
    if (s != NATS_OK) return failed("cannot delete", s);
    return std::nullopt;
  }
  std::optional<BlobError> drop_chunks(const std::string& id) {
    return purge(std::string(kChunk) + id + ".>");
  }

  Result<Manifest, BlobError> manifest(const std::string& blob) {
    kvEntry* raw = nullptr;
    const natsStatus s = kvStore_Get(&raw, bucket, (std::string(kManifest) + blob).c_str());
    const Entry entry(raw);
    if (s == NATS_NOT_FOUND) return Err{BlobError{BlobError::Kind::NotFound, "no blob " + blob}};
    if (s != NATS_OK) return Err{failed("cannot read", s)};
    if (auto m = Manifest::parse(text_of(raw))) return *m;
    return Err{BlobError{
        BlobError::Kind::Damaged,
        fmt::format("bucket {}: the manifest of {} is none: who else writes there?", options.bucket, blob)}};
  }

  Result<std::vector<std::string>, BlobError> keys() {
    kvKeysList list{};
    const natsStatus s = kvStore_Keys(&list, bucket, nullptr);
    if (s != NATS_OK && s != NATS_NOT_FOUND) return Err{failed("cannot be listed", s)};
    std::vector<std::string> out;
    for (int i = 0; s == NATS_OK && i < list.Count; ++i) out.emplace_back(list.Keys[i]);
    kvKeysList_Destroy(&list);
    return out;
  }

  // Of writers that died. What cannot be looked at now is looked at the next time.
  void sweep() {
    const auto all = keys();
    if (!all.ok()) return;
    std::set<std::string> chunks;
    std::set<std::string> named;
    for (const std::string& key : *all) {
      if (key.starts_with(kChunk)) {
        const std::string rest = key.substr(kChunk.size());
        chunks.insert(rest.substr(0, rest.find('.')));
      } else if (key.starts_with(kManifest)) {
        const auto m = manifest(key.substr(kManifest.size()));
        if (!m.ok() && m.error().kind != BlobError::Kind::NotFound) return;
        if (m.ok()) named.insert(m->id);
      }
    }
    for (const std::string& id : chunks) {
      if (!named.contains(id) && is_stale(id)) static_cast<void>(drop_chunks(id));
    }
  }

  Options options;
  NatsConnector connector;
  natsConnection* connection = nullptr;
  jsCtx* js = nullptr;
  kvStore* bucket = nullptr;
  std::size_t chunk_bytes = kMostChunkBytes;

  std::string name;  // of what is being written; empty: nothing
  Manifest writing;
  std::vector<std::byte> pending;
};

NatsBlobs::NatsBlobs(std::unique_ptr<State> state) : state_(std::move(state)) {}
NatsBlobs::NatsBlobs(NatsBlobs&&) noexcept = default;
NatsBlobs::~NatsBlobs() {
  if (state_ != nullptr && !state_->name.empty()) static_cast<void>(state_->drop_chunks(state_->writing.id));
}

bool NatsBlobs::is_name(std::string_view name) {
  constexpr std::string_view kLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_/=.";
  return !name.empty() && name.size() <= 200 && name.front() != '.' && name.back() != '.' &&
         name.find("..") == std::string_view::npos &&
         name.find_first_not_of(kLetters) == std::string_view::npos;
}

Result<NatsBlobs, BlobError> NatsBlobs::open(const NatsSettings& nats, const Options& options) {
  auto state = std::make_unique<State>(nats, options);
  const auto connection = state->connector.connect([](natsOptions*) { return true; }, options.stop);
  if (!connection.ok()) return Err{BlobError{BlobError::Kind::Unavailable, connection.error().text}};
  state->connection = *connection;
  jsOptions api;
  jsOptions_Init(&api);
  api.Wait = kApiTimeoutMs;
  const NatsSettings& settings = state->connector.settings();
  if (!settings.api_prefix.empty()) api.Prefix = settings.api_prefix.c_str();
  if (!settings.domain.empty()) api.Domain = settings.domain.c_str();
  natsStatus s = natsConnection_JetStream(&state->js, state->connection, &api);
  if (s == NATS_OK) s = js_KeyValue(&state->bucket, state->js, options.bucket.c_str());
  if (s == NATS_NOT_FOUND) {
    kvConfig c;
    kvConfig_Init(&c);
    c.Bucket = options.bucket.c_str();
    c.Description = "snapshots of arancini";
    c.History = 1;
    c.StorageType = js_FileStorage;
    c.Replicas = static_cast<int>(options.replicas);
    s = js_CreateKeyValue(&state->bucket, state->js, &c);
  }
  if (s != NATS_OK) return Err{state->failed("cannot be used", s)};
  // Half of what a message may have: what is read comes with an envelope.
  const auto most =
      static_cast<std::size_t>(std::max<std::int64_t>(natsConnection_GetMaxPayload(state->connection), 0));
  state->chunk_bytes = std::clamp(most / 2, kLeastChunkBytes, kMostChunkBytes);
  return NatsBlobs(std::move(state));
}

std::optional<BlobError> NatsBlobs::begin(const std::string& name) {
  if (!is_name(name)) return BlobError{BlobError::Kind::BadName, "'" + name + "' is no name of a blob"};
  State& s = *state_;
  if (!s.name.empty()) static_cast<void>(s.drop_chunks(s.writing.id));
  s.name = name;
  s.writing = {new_id(), 0, 0};
  s.pending.clear();
  return std::nullopt;
}

std::optional<BlobError> NatsBlobs::append(std::span<const std::byte> piece) {
  State& s = *state_;
  while (!piece.empty()) {
    const std::size_t n = std::min(piece.size(), s.chunk_bytes - s.pending.size());
    s.pending.insert(s.pending.end(), piece.begin(), piece.begin() + static_cast<std::ptrdiff_t>(n));
    piece = piece.subspan(n);
    s.writing.bytes += n;
    if (s.pending.size() < s.chunk_bytes) return std::nullopt;
    if (auto error = s.put(fmt::format("{}{}.{}", kChunk, s.writing.id, s.writing.chunks), s.pending))
      return error;
    ++s.writing.chunks;
    s.pending.clear();
  }
  return std::nullopt;
}

std::optional<BlobError> NatsBlobs::commit() {
  State& s = *state_;
  if (!s.pending.empty()) {
    if (auto error = s.put(fmt::format("{}{}.{}", kChunk, s.writing.id, s.writing.chunks), s.pending))
      return error;
    ++s.writing.chunks;
    s.pending.clear();
  }
  const auto before = s.manifest(s.name);
  const std::string text = s.writing.to_text();
  if (auto error = s.put(std::string(kManifest) + s.name, std::as_bytes(std::span(text)))) return error;
  s.name.clear();
  // It is there; what is left to do may fail.
  if (before.ok()) static_cast<void>(s.drop_chunks(before->id));
  s.sweep();
  return std::nullopt;
}

std::optional<BlobError> NatsBlobs::get(const std::string& name,
                                        const std::function<bool(std::span<const std::byte>)>& each) {
  State& s = *state_;
  if (!is_name(name)) return BlobError{BlobError::Kind::BadName, "'" + name + "' is no name of a blob"};
  const auto m = s.manifest(name);
  if (!m.ok()) return m.error();
  std::uint64_t bytes = 0;
  const auto damaged = [&](const std::string& what) {
    return BlobError{BlobError::Kind::Damaged,
                     fmt::format("bucket {}: blob {}: {}", s.options.bucket, name, what)};
  };
  for (std::uint64_t i = 0; i < m->chunks; ++i) {
    if (s.stopped()) return BlobError{BlobError::Kind::Unavailable, "stopped"};
    kvEntry* raw = nullptr;
    const natsStatus status = kvStore_Get(&raw, s.bucket, fmt::format("{}{}.{}", kChunk, m->id, i).c_str());
    const Entry entry(raw);
    if (status == NATS_NOT_FOUND) return damaged(fmt::format("chunk {} of {} is not there", i, m->chunks));
    if (status != NATS_OK) return s.failed("cannot read", status);
    const std::string_view value = text_of(raw);
    bytes += value.size();
    if (!each(std::as_bytes(std::span(value)))) return std::nullopt;
  }
  if (bytes != m->bytes) return damaged(fmt::format("has {} bytes, not {}", bytes, m->bytes));
  return std::nullopt;
}

Result<std::vector<std::string>, BlobError> NatsBlobs::list(const std::string& prefix) {
  const auto all = state_->keys();
  if (!all.ok()) return Err{all.error()};
  std::vector<std::string> out;
  const std::string wanted = std::string(kManifest) + prefix;
  for (const std::string& key : *all) {
    if (key.starts_with(wanted)) out.push_back(key.substr(kManifest.size()));
  }
  std::sort(out.begin(), out.end());
  return out;
}

std::optional<BlobError> NatsBlobs::remove(const std::string& name) {
  State& s = *state_;
  if (!is_name(name)) return BlobError{BlobError::Kind::BadName, "'" + name + "' is no name of a blob"};
  const auto m = s.manifest(name);
  if (!m.ok() && m.error().kind == BlobError::Kind::NotFound) return std::nullopt;
  if (!m.ok() && m.error().kind != BlobError::Kind::Damaged) return m.error();
  if (auto error = s.purge(std::string(kManifest) + name)) return error;
  if (m.ok()) return s.drop_chunks(m->id);
  return std::nullopt;
}

}  // namespace arancini
