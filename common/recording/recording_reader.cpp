#include "common/recording/recording_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "common/journal/crc32c.h"

static_assert(std::endian::native == std::endian::little);

namespace arancini::recording {

namespace {

// Takes fields off the front of some bytes; once something is missing, ok() is false and all that follows is
// 0.
class Cursor {
 public:
  explicit Cursor(std::span<const std::byte> bytes) : bytes_(bytes) {}

  template <class T>
  T number() {
    T value{};
    const auto field = take(sizeof value);
    if (!field.empty()) std::memcpy(&value, field.data(), sizeof value);
    return value;
  }
  std::span<const std::byte> take(std::size_t size) {
    if (size > bytes_.size() - at_) {
      ok_ = false;
      at_ = bytes_.size();
      return {};
    }
    at_ += size;
    return bytes_.subspan(at_ - size, size);
  }
  std::string text() {
    const auto field = take(number<std::uint32_t>());
    return {reinterpret_cast<const char*>(field.data()), field.size()};
  }
  template <std::size_t N>
  void array(std::array<std::uint8_t, N>& out) {
    const auto field = take(N);
    if (!field.empty()) std::memcpy(out.data(), field.data(), N);
  }
  [[nodiscard]] bool ok() const { return ok_; }
  [[nodiscard]] std::size_t at() const { return at_; }

 private:
  std::span<const std::byte> bytes_;
  std::size_t at_ = 0;
  bool ok_ = true;
};

class Encoder {
 public:
  template <class T>
  void number(T value) {
    const auto* p = reinterpret_cast<const std::byte*>(&value);
    out_.insert(out_.end(), p, p + sizeof value);
  }
  void text(std::string_view text) {
    number(static_cast<std::uint32_t>(text.size()));
    const auto bytes = std::as_bytes(std::span(text));
    out_.insert(out_.end(), bytes.begin(), bytes.end());
  }
  std::vector<std::byte> take() { return std::move(out_); }

 private:
  std::vector<std::byte> out_;
};

Start decode_start(Cursor& c) {
  Start s;
  s.version = c.text();
  s.shard = c.number<std::uint32_t>();
  s.routers = c.number<std::uint32_t>();
  s.peers = c.number<std::uint32_t>();
  s.seed_a = c.number<std::uint64_t>();
  s.seed_b = c.number<std::uint64_t>();
  c.array(s.writer.bytes);
  s.ring_bytes = c.number<std::uint64_t>();
  s.tail = c.number<std::uint64_t>();
  s.head = c.number<std::uint64_t>();
  s.next_sequence = c.number<std::uint64_t>();
  s.next_event_sequence = c.number<std::uint64_t>();
  s.config = c.text();
  return s;
}

enum class Parsed : std::uint8_t { Whole, Partial, Unknown };

// `call` is valid when Whole.
Parsed parse_call(Cursor& c, Call& call) {
  call = Call{};
  call.kind = c.number<Entry>();
  switch (call.kind) {
    case Entry::Construct:
    case Entry::TakeSession:
    case Entry::DoWork:
    case Entry::Publish:
    case Entry::Finish: break;
    case Entry::OpenSession:
      c.array(call.address.bytes);
      call.port = c.number<std::uint16_t>();
      break;
    case Entry::Apply:
      call.session = c.number<std::uint32_t>();
      call.bytes = c.take(c.number<std::uint32_t>());
      break;
    case Entry::SessionError:
      call.session = c.number<std::uint32_t>();
      call.code = c.number<std::uint32_t>();
      call.bytes = c.take(c.number<std::uint32_t>());
      break;
    case Entry::CloseSession: call.session = c.number<std::uint32_t>(); break;
    case Entry::SetThrottled:
      call.session = c.number<std::uint32_t>();
      call.flag = c.number<std::uint8_t>() != 0;
      break;
    case Entry::SetRestoring: call.flag = c.number<std::uint8_t>() != 0; break;
    case Entry::Time:
    case Entry::Head:
    case Entry::SameHead:
    case Entry::Seen:
    case Entry::DumpAsked:
    case Entry::RestoreBatch:
    case Entry::RestoreEnd:
    case Entry::Adopted:
    case Entry::Done:
    case Entry::Published: return Parsed::Unknown;
    default: return c.ok() ? Parsed::Unknown : Parsed::Partial;
  }
  while (c.ok()) {
    Call::Learnt learnt;
    learnt.kind = c.number<Entry>();
    if (!c.ok()) break;
    if (learnt.kind == Entry::Time) {
      learnt.first = c.number<std::uint64_t>();
      learnt.second = c.number<std::uint64_t>();
    } else if (learnt.kind == Entry::Head) {
      learnt.first = c.number<std::uint64_t>();
    } else if (learnt.kind == Entry::Seen) {
      learnt.first = c.number<std::uint8_t>();
      learnt.second = c.number<std::uint64_t>();
    } else if (learnt.kind == Entry::DumpAsked) {
      learnt.first = c.number<std::uint8_t>();
      c.array(learnt.address.bytes);
    } else if (learnt.kind == Entry::RestoreBatch || learnt.kind == Entry::RestoreEnd ||
               learnt.kind == Entry::Adopted) {
      learnt.bytes = c.take(c.number<std::uint32_t>());
    } else if (learnt.kind == Entry::Done) {
      call.result = c.number<std::uint32_t>();
      return c.ok() ? Parsed::Whole : Parsed::Partial;
    } else if (learnt.kind == Entry::Published) {
      call.tail = c.number<std::uint64_t>();
      call.next_sequence = c.number<std::uint64_t>();
      call.record_bytes = c.number<std::uint32_t>();
      call.record_crc = c.number<std::uint32_t>();
      return c.ok() ? Parsed::Whole : Parsed::Partial;
    } else if (learnt.kind != Entry::SameHead) {
      return Parsed::Unknown;
    }
    call.learnt.push_back(learnt);
  }
  return Parsed::Partial;
}

}  // namespace

struct Reader::State {
  ~State() {
    if (file != nullptr) std::fclose(file);
  }

  // Appends the next Data block to `data`; false at the end.
  bool load();
  void drop_read() {
    data.erase(data.begin(), data.begin() + static_cast<std::ptrdiff_t>(at));
    at = 0;
  }

  std::string path;
  std::FILE* file = nullptr;
  std::uint64_t file_at = 0;
  std::vector<std::byte> data;
  std::size_t at = 0;  // in data: begin of the next call
  Start start;
  std::string end_text;
  bool at_end = false;
  bool complete = false;
};

bool Reader::State::load() {
  if (at_end) return false;
  at_end = true;
  BlockHeader header{};
  const std::size_t n = std::fread(&header, 1, sizeof header, file);
  if (n < sizeof header) {
    end_text = n == 0 ? "it ends without an end mark: its process died"
                      : fmt::format("it is cut off at byte {}", file_at + n);
    return false;
  }
  if (header.magic != kBlockMagic || header.bytes > kBlockMaxBytes) {
    end_text = fmt::format("byte {} is not the begin of a block", file_at);
    return false;
  }
  const std::size_t before = data.size();
  data.resize(before + header.bytes);
  const std::size_t got = std::fread(data.data() + before, 1, header.bytes, file);
  const std::span<const std::byte> bytes(data.data() + before, got);
  if (got < header.bytes) {
    end_text = fmt::format("it is cut off at byte {}", file_at + sizeof header + got);
  } else if (journal::crc32c(bytes) != header.crc) {
    end_text = fmt::format("the block at byte {} is damaged (checksum)", file_at);
  } else if (header.kind == BlockKind::Data) {
    file_at += sizeof header + header.bytes;
    at_end = false;
    return true;
  } else if (header.kind == BlockKind::End) {
    end_text.assign(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    complete = end_text.empty();
    if (complete) end_text = "it is complete";
  } else {
    end_text = fmt::format("the block at byte {} is of an unknown kind", file_at);
  }
  data.resize(before);
  return false;
}

Reader::Reader(std::unique_ptr<State> state) : state_(std::move(state)) {}
Reader::Reader(Reader&&) noexcept = default;
Reader& Reader::operator=(Reader&&) noexcept = default;
Reader::~Reader() = default;

Result<Reader, std::string> Reader::open(const std::string& path) {
  auto state = std::make_unique<State>();
  state->path = path;
  state->file = std::fopen(path.c_str(), "rbe");
  if (state->file == nullptr) return Err{fmt::format("{}: {}", path, std::strerror(errno))};
  std::uint64_t magic = 0;
  std::uint32_t version[2] = {};
  if (std::fread(&magic, 1, sizeof magic, state->file) != sizeof magic || magic != kFileMagic ||
      std::fread(version, 1, sizeof version, state->file) != sizeof version) {
    return Err{fmt::format("{}: not a recording of ingestd", path)};
  }
  if (version[0] != kVersion) {
    return Err{fmt::format("{}: version {} of the recording format, this program reads {}", path, version[0],
                           kVersion)};
  }
  state->file_at = sizeof magic + sizeof version;
  for (;;) {
    if (!state->load()) return Err{fmt::format("{}: no start in it: {}", path, state->end_text)};
    Cursor c(state->data);
    state->start = decode_start(c);
    if (!c.ok()) continue;
    state->at = c.at();
    break;
  }
  return Reader(std::move(state));
}

const Start& Reader::start() const {
  return state_->start;
}
bool Reader::complete() const {
  return state_->complete;
}
const std::string& Reader::end_text() const {
  return state_->end_text;
}

bool Reader::next(Call& call) {
  State& s = *state_;
  for (;;) {
    Cursor c(std::span(s.data).subspan(s.at));
    switch (parse_call(c, call)) {
      case Parsed::Whole: s.at += c.at(); return true;
      case Parsed::Partial: break;
      case Parsed::Unknown:
        s.at_end = true;
        s.complete = false;
        s.end_text = fmt::format("an entry of an unknown kind before byte {}", s.file_at);
        return false;
    }
    s.drop_read();
    if (!s.load()) {
      if (!s.data.empty()) {  // the process died in this call
        s.complete = false;
        s.data.clear();
      }
      return false;
    }
  }
}

std::vector<std::byte> encode_start(const Start& s) {
  Encoder e;
  e.text(s.version);
  e.number(s.shard);
  e.number(s.routers);
  e.number(s.peers);
  e.number(s.seed_a);
  e.number(s.seed_b);
  e.number(s.writer.bytes);
  e.number(s.ring_bytes);
  e.number(s.tail);
  e.number(s.head);
  e.number(s.next_sequence);
  e.number(s.next_event_sequence);
  e.text(s.config);
  return e.take();
}

}  // namespace arancini::recording
