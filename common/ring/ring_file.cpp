#include "common/ring/ring_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <new>
#include <optional>
#include <utility>

#include "common/base/runtime_dir.h"
#include "common/ring/huge_mount.h"
#include "common/shm/shared_file.h"

namespace arancini {
namespace {

namespace fs = std::filesystem;
using Kind = RingFileError::Kind;

std::int64_t lock_byte(RingSide side) {
  return side == RingSide::Writer ? shm::kRingWriterLockByte : shm::kRingReaderLockByte;
}
const char* side_name(RingSide side) {
  return side == RingSide::Writer ? "writer" : "reader";
}

Err<RingFileError> fail(Kind kind, std::string text) {
  return Err{RingFileError{kind, std::move(text)}};
}

// Page size of the file system if it is hugetlbfs, else 0.
std::uint64_t huge_page_bytes(int fd) {
  struct statfs s {};
  if (::fstatfs(fd, &s) != 0 || s.f_type != HUGETLBFS_MAGIC) return 0;
  return static_cast<std::uint64_t>(s.f_bsize);
}

std::uint64_t ring_file_bytes(std::uint64_t capacity, std::uint64_t huge_page) {
  const std::uint64_t bytes = shm::kRingDataOffsetBytes + capacity;
  return huge_page == 0 ? bytes : (bytes + huge_page - 1) / huge_page * huge_page;
}

bool valid_capacity(std::uint64_t capacity) {
  return std::has_single_bit(capacity) && capacity >= shm::kRingMinCapacityBytes &&
         capacity <= shm::kRingMaxCapacityBytes;
}

shm::RingHeader& header_of(const SharedMapping& mapping) {
  return *reinterpret_cast<shm::RingHeader*>(mapping.data());
}

// What a check found. `drainable`: it is a ring whose records someone can still read.
struct Difference {
  std::string text;
  bool drainable = false;
};

// Empty text: a ring of this program's ABI whose sizes agree with each other and with the file.
Difference check_identity(const shm::RingHeader& header, std::uint64_t file_bytes, std::uint64_t huge_page) {
  // Pairs with the release in make_ring(): what the creator wrote before it is there.
  const std::uint32_t abi = header.identity.abi_version.load(std::memory_order_acquire);
  const std::uint64_t magic = header.identity.magic;
  const std::uint64_t hash = header.identity.layout_hash;
  const std::uint64_t capacity = header.identity.capacity_bytes;
  const std::uint64_t data_offset = header.identity.data_offset_bytes;
  if (magic != shm::kRingMagic) return {"is not a ring (magic differs)"};
  if (abi == 0) return {"was never completed (ABI version 0)"};
  if (abi != shm::kRingAbiVersion) {
    return {"has ABI version " + std::to_string(abi) + ", this program needs " +
                std::to_string(shm::kRingAbiVersion),
            true};
  }
  if (hash != shm::kRingLayoutHash) return {"has another layout hash with the same ABI version", true};
  if (!valid_capacity(capacity))
    return {"has an impossible capacity of " + std::to_string(capacity) + " bytes"};
  if (data_offset != shm::kRingDataOffsetBytes) {
    return {"has its data at byte " + std::to_string(data_offset) + ", expected at " +
            std::to_string(shm::kRingDataOffsetBytes)};
  }
  if (file_bytes != ring_file_bytes(capacity, huge_page)) {
    return {"is a file of " + std::to_string(file_bytes) + " bytes, its capacity needs " +
            std::to_string(ring_file_bytes(capacity, huge_page))};
  }
  return {};
}

struct Opened {
  Fd fd;
  std::optional<SharedMapping> mapping;
  std::uint64_t huge_page = 0;
  FileIdentity identity;
  Difference difference;  // not empty: the lock is held, but the ring cannot be used
};

// Opens, locks, measures, maps and checks, in this order: nothing is touched that fstat() has not shown to be
// there. Missing also when the name went to another file between open and lock: the caller may try again.
Result<Opened, RingFileError> open_ring(const std::string& path, RingSide side) {
  Opened o;
  o.fd = Fd(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  if (!o.fd) {
    const int error = errno;
    if (error == ENOENT) return fail(Kind::Missing, "ring " + path + ": no such file");
    return fail(Kind::System, errno_text("ring " + path + ": cannot open", error));
  }
  switch (ofd_lock(o.fd.get(), lock_byte(side))) {
    case LockState::Free: break;
    case LockState::Held: {
      const int pid = RingFile::lock_holder(path, side);
      return fail(Kind::Locked, "ring " + path + ": another " + side_name(side) + " lives" +
                                    (pid > 0 ? " (pid " + std::to_string(pid) + ")" : ""));
    }
    case LockState::Unknown: return fail(Kind::System, errno_text("ring " + path + ": cannot lock", errno));
  }
  struct stat st {};
  if (::fstat(o.fd.get(), &st) != 0) return fail(Kind::System, errno_text("ring " + path + ": fstat", errno));
  o.identity = {st.st_dev, st.st_ino};
  if (FileIdentity now; !identify(path, now) || now != o.identity) {
    return fail(Kind::Missing, "ring " + path + ": is being replaced");
  }
  const auto file_bytes = static_cast<std::uint64_t>(st.st_size);
  if (!S_ISREG(st.st_mode)) return fail(Kind::System, "ring " + path + ": is not a regular file");
  if (file_bytes < shm::kRingDataOffsetBytes + shm::kRingMinCapacityBytes) {
    o.difference.text = "is a file of " + std::to_string(file_bytes) + " bytes, too short for a ring";
    return o;
  }
  o.huge_page = huge_page_bytes(o.fd.get());
  auto mapping = SharedMapping::map(o.fd.get(), file_bytes, true);
  if (!mapping) return fail(Kind::System, "ring " + path + ": " + mapping.error());
  o.mapping = std::move(mapping).value();
  o.difference = check_identity(header_of(*o.mapping), file_bytes, o.huge_page);
  if (!o.difference.text.empty()) return o;
  if (std::string error = o.mapping->prefault(); !error.empty()) {
    return fail(Kind::System, "ring " + path + ": " + error);
  }
  return o;
}

// What a writer must be able to continue from. Empty: fine.
std::string check_positions(const shm::RingHeader& header) {
  const std::uint64_t tail =
      header.writer.tail.load(std::memory_order_acquire);  // pairs with RingWriter::publish
  const std::uint64_t head =
      header.reader.head.load(std::memory_order_acquire);  // pairs with RingReader::release
  if (tail % shm::kRecordAlignBytes != 0) return "has a corrupt tail " + std::to_string(tail);
  if (head > tail || tail - head > header.identity.capacity_bytes || head % shm::kRecordAlignBytes != 0) {
    return "has corrupt positions (head " + std::to_string(head) + ", tail " + std::to_string(tail) + ")";
  }
  for (const auto& slot : header.writer.commit) {
    if (slot.position.load(std::memory_order_relaxed) == tail &&
        slot.next_sequence.load(std::memory_order_relaxed) != 0 &&
        slot.next_event_sequence.load(std::memory_order_relaxed) != 0) {
      return {};
    }
  }
  return "has no commit slot for its tail " + std::to_string(tail);
}

Result<WriterId, std::string> make_writer_id() {
  WriterId id;
  std::size_t got = 0;
  while (got < id.bytes.size()) {
    const ssize_t n = ::getrandom(id.bytes.data() + got, id.bytes.size() - got, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Err{errno_text("getrandom", errno)};
    got += static_cast<std::size_t>(n);
  }
  id.bytes[6] = static_cast<std::uint8_t>((id.bytes[6] & 0x0fU) | 0x40U);  // RFC 9562 5.4: UUID version 4
  id.bytes[8] = static_cast<std::uint8_t>((id.bytes[8] & 0x3fU) | 0x80U);
  return id;
}

// What an operator can do about a file system without room for `bytes` more; empty on another error.
std::string room_advice(int fd, int error, std::uint64_t bytes) {
  struct statfs s {};
  if (error != ENOSPC || ::fstatfs(fd, &s) != 0 || s.f_type == HUGETLBFS_MAGIC) return {};
  const auto block = static_cast<std::uint64_t>(s.f_bsize);
  const std::uint64_t room = s.f_bavail * block;
  std::string text = fmt::format("; {} bytes are free there: set a smaller ring.size_bytes, or ", room);
  if (s.f_type != TMPFS_MAGIC) return text + "make room";
  std::error_code ec;
  fs::path mount = fs::read_symlink(fmt::format("/proc/self/fd/{}", fd), ec).parent_path();
  struct stat here {};
  struct stat above {};
  while (mount.has_relative_path() && ::stat(mount.c_str(), &here) == 0 &&
         ::stat(mount.parent_path().c_str(), &above) == 0 && here.st_dev == above.st_dev) {
    mount = mount.parent_path();
  }
  constexpr std::uint64_t kMiB = 1024 * 1024;
  const std::uint64_t wanted = s.f_blocks * block - room + bytes;
  return text + fmt::format("enlarge the tmpfs: mount -o remount,size={}M {}", (wanted + kMiB - 1) / kMiB,
                            mount.string());
}

// A complete ring in a new file, its writer lock held. The file is removed again when something fails.
Result<Opened, RingFileError> make_ring(const std::string& file, const WriterId& id,
                                        const RingFile::CreateOptions& options) {
  Opened o;
  o.fd = Fd(::open(file.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0660));
  if (!o.fd) return fail(Kind::System, errno_text("cannot create " + file, errno));
  const auto failed = [&](const std::string& text) {
    ::unlink(file.c_str());
    return fail(Kind::System, text);
  };
  if (ofd_lock(o.fd.get(), shm::kRingWriterLockByte) != LockState::Free) return failed("cannot lock " + file);
  o.huge_page = huge_page_bytes(o.fd.get());
  const std::uint64_t bytes = ring_file_bytes(options.capacity_bytes, o.huge_page);
  if (::ftruncate(o.fd.get(), static_cast<off_t>(bytes)) != 0) {
    return failed(errno_text("cannot size " + file + " to " + std::to_string(bytes) + " bytes", errno));
  }
  if (const int error = ::posix_fallocate(o.fd.get(), 0, static_cast<off_t>(bytes)); error != 0) {
    return failed(errno_text("cannot reserve " + std::to_string(bytes) + " bytes for " + file, error) +
                  room_advice(o.fd.get(), error, bytes));
  }
  auto mapping = SharedMapping::map(o.fd.get(), bytes, true);
  if (!mapping) return failed(file + ": " + mapping.error());
  o.mapping = std::move(mapping).value();
  if (std::string error = o.mapping->prefault(); !error.empty()) return failed(file + ": " + error);
  if (!identify(o.fd.get(), o.identity)) return failed(errno_text(file + ": fstat", errno));

  auto* header = new (o.mapping->data()) shm::RingHeader{};
  header->identity.magic = shm::kRingMagic;
  header->identity.shard = options.shard;
  header->identity.layout_hash = shm::kRingLayoutHash;
  header->identity.capacity_bytes = options.capacity_bytes;
  header->identity.data_offset_bytes = shm::kRingDataOffsetBytes;
  header->identity.created_realtime_ns = options.created_realtime_ns;
  std::copy(id.bytes.begin(), id.bytes.end(), std::begin(header->identity.writer_id));
  header->writer.commit[0].position.store(0, std::memory_order_relaxed);
  header->writer.commit[0].next_sequence.store(1, std::memory_order_relaxed);
  header->writer.commit[0].next_event_sequence.store(1, std::memory_order_relaxed);
  header->writer.commit[1].position.store(shm::kNoPosition, std::memory_order_relaxed);
  header->reader.floor_stream_sequence.store(shm::kNoFloor, std::memory_order_relaxed);
  // Pairs with the acquire in check_identity().
  header->identity.abi_version.store(shm::kRingAbiVersion, std::memory_order_release);
  return o;
}

// Names in the directory of `path` that start with its file name and `infix`.
std::vector<std::string> siblings(const std::string& path, const std::string& infix) {
  const fs::path p(path);
  const std::string start = p.filename().string() + infix;
  std::vector<std::string> found;
  std::error_code ec;
  const fs::path dir = p.has_parent_path() ? p.parent_path() : fs::path(".");
  for (fs::directory_iterator it(dir, ec), end; !ec && it != end; it.increment(ec)) {
    if (it->path().filename().string().starts_with(start))
      found.push_back(path + it->path().filename().string().substr(p.filename().string().size()));
  }
  return found;
}

// N of `path`.<infix>N, 0 when that is not a number.
std::uint64_t suffix_number(const std::string& name, std::size_t prefix_size) {
  std::uint64_t n = 0;
  const std::string digits = name.substr(prefix_size);
  if (digits.empty() || digits.size() > 18) return 0;
  for (const char c : digits) {
    if (c < '0' || c > '9') return 0;
    n = n * 10 + static_cast<std::uint64_t>(c - '0');
  }
  return n;
}

std::vector<std::string> numbered_siblings(const std::string& path, const std::string& infix) {
  std::vector<std::pair<std::uint64_t, std::string>> found;
  for (std::string& name : siblings(path, infix)) {
    const std::uint64_t n = suffix_number(name, path.size() + infix.size());
    if (n > 0) found.emplace_back(n, std::move(name));
  }
  std::sort(found.begin(), found.end());
  std::vector<std::string> names;
  names.reserve(found.size());
  for (auto& [n, name] : found) names.push_back(std::move(name));
  return names;
}

// Renames `path` to `path`<infix>N with the next free N. The new name, or the error.
Result<std::string, std::string> move_aside(const std::string& path, const std::string& infix) {
  const std::vector<std::string> there = numbered_siblings(path, infix);
  std::uint64_t n = there.empty() ? 1 : suffix_number(there.back(), path.size() + infix.size()) + 1;
  for (int attempt = 0; attempt < 100; ++attempt, ++n) {
    std::string to = path + infix + std::to_string(n);
    const int error = rename_new(path, to);
    if (error == 0) return Result<std::string, std::string>(std::move(to));
    if (error != EEXIST) return Err{errno_text(fmt::format("cannot rename {} to {}", path, to), error)};
  }
  return Err{"cannot find a free name " + path + infix + "N"};
}

bool in_use(const std::string& file) {
  const Fd fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  return fd && (ofd_test(fd.get(), shm::kRingWriterLockByte) != LockState::Free ||
                ofd_test(fd.get(), shm::kRingReaderLockByte) != LockState::Free);
}

// Removes what creators that died left behind: temporary names, and files on hugetlbfs that no name leads to.
void remove_leftovers(const std::string& path) {
  for (const std::string& name : siblings(path, ".tmp-")) {
    if (!in_use(name)) ::unlink(name.c_str());
  }
  std::vector<FileIdentity> named;
  FileIdentity identity;
  if (identify(path, identity)) named.push_back(identity);
  for (const char* infix : {".old-", ".bad-", ".tmp-"}) {
    for (const std::string& name : siblings(path, infix)) {
      if (identify(name, identity)) named.push_back(identity);
    }
  }
  for (const HugeMount& mount : huge_mounts()) {
    std::error_code ec;
    for (fs::directory_iterator it(huge_directory(mount, path), ec), end; !ec && it != end;
         it.increment(ec)) {
      const std::string file = it->path().string();
      if (!identify(file, identity) || std::find(named.begin(), named.end(), identity) != named.end())
        continue;
      if (!in_use(file)) ::unlink(file.c_str());
    }
  }
}

}  // namespace

struct RingFile::State {
  std::string path;         // the name it was attached by
  std::string proper_path;  // the name under which a successor would appear
  Opened opened;
  bool created = false;
  std::string hugepage_note;
  std::string replace_note;
};

RingFile::RingFile(std::unique_ptr<State> state) : state_(std::move(state)) {}
RingFile::RingFile(RingFile&&) noexcept = default;
RingFile& RingFile::operator=(RingFile&&) noexcept = default;
RingFile::~RingFile() = default;

Result<RingFile, RingFileError> RingFile::create_or_attach(const std::string& path,
                                                           const CreateOptions& options) {
  if (!valid_capacity(options.capacity_bytes)) {
    return fail(Kind::System, "ring " + path + ": size " + std::to_string(options.capacity_bytes) +
                                  " must be a power of two from " +
                                  std::to_string(shm::kRingMinCapacityBytes) + " to " +
                                  std::to_string(shm::kRingMaxCapacityBytes));
  }
  // Another creator may be faster; then its ring is there in the next round.
  for (int round = 0; round < 16; ++round) {
    std::optional<Opened> former;  // keeps its writer lock until the successor has the name
    std::string reason;
    auto there = open_ring(path, RingSide::Writer);
    if (there) {
      Opened& o = *there;
      if (!o.difference.text.empty()) {
        reason = o.difference.text;
      } else {
        const shm::RingHeader& header = header_of(*o.mapping);
        if (header.identity.shard != options.shard) {
          return fail(Kind::Incompatible, "ring " + path + " belongs to shard " +
                                              std::to_string(header.identity.shard) + ", not " +
                                              std::to_string(options.shard));
        }
        if (std::string corrupt = check_positions(header); !corrupt.empty()) {
          reason = o.difference.text = std::move(corrupt);
        } else if (header.identity.capacity_bytes != options.capacity_bytes) {
          reason = "has a capacity of " + std::to_string(header.identity.capacity_bytes) +
                   " bytes, configured are " + std::to_string(options.capacity_bytes);
          o.difference = {reason, true};
        } else if (options.hugepages == HugepageMode::Require && o.huge_page == 0) {
          reason = "is not on huge pages, which are required";
          o.difference = {reason, true};
        } else {
          auto state = std::make_unique<State>();
          state->path = state->proper_path = path;
          if (o.huge_page == 0 && options.hugepages == HugepageMode::Auto) {
            state->hugepage_note = "ring " + path + " was made on normal pages";
          }
          state->opened = std::move(o);
          header_of(*state->opened.mapping)
              .writer_heartbeat.pid.store(static_cast<std::uint32_t>(::getpid()), std::memory_order_relaxed);
          return RingFile(std::move(state));
        }
      }
      former = std::move(o);
    } else if (there.error().kind != Kind::Missing) {
      return Err{there.error()};
    }

    const auto id = make_writer_id();
    if (!id) return fail(Kind::System, id.error());
    auto state = std::make_unique<State>();
    state->path = state->proper_path = path;
    state->created = true;
    const std::string temporary = path + ".tmp-" + id->to_hex();
    std::string huge_file;
    if (options.hugepages != HugepageMode::Never) {
      const std::uint64_t bytes = ring_file_bytes(options.capacity_bytes, 0);
      std::string note;
      for (const HugeMount& mount : huge_mounts()) {
        // A ring that would leave most of a page unused (1 GiB pages) is not worth it.
        if (mount.page_bytes > 2 * bytes) continue;
        const std::string directory = huge_directory(mount, path);
        std::error_code ec;
        fs::create_directories(directory, ec);
        // Such mounts are often writable for all, and the name can be guessed.
        const Fd opened(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
        if (std::string why = opened ? open_to_others(opened) : std::string(std::strerror(errno));
            !why.empty()) {
          note = directory + " " + why;
          continue;
        }
        const std::string file = directory + "/" + id->to_hex();
        auto made = make_ring(file, *id, options);
        if (!made) {
          note = made.error().text;
          continue;
        }
        if (::symlink(file.c_str(), temporary.c_str()) != 0) {
          const int error = errno;
          ::unlink(file.c_str());
          return fail(Kind::System, errno_text("cannot create the link " + temporary, error));
        }
        state->opened = std::move(made).value();
        huge_file = file;
        break;
      }
      if (huge_file.empty()) {
        state->hugepage_note = "ring " + path + " is not on huge pages: " +
                               (note.empty() ? std::string("no writable hugetlbfs mount") : note) + "; " +
                               huge_advice(bytes);
        if (options.hugepages == HugepageMode::Require) return fail(Kind::NoHugepages, state->hugepage_note);
      }
    }
    if (huge_file.empty()) {
      auto made = make_ring(temporary, *id, options);
      if (!made) return fail(Kind::System, "ring " + path + ": " + made.error().text);
      state->opened = std::move(made).value();
    }
    const auto discard = [&] {
      ::unlink(temporary.c_str());
      if (!huge_file.empty()) ::unlink(huge_file.c_str());
    };

    if (former) {
      auto moved = move_aside(path, former->difference.drainable ? ".old-" : ".bad-");
      if (!moved) {
        discard();
        return fail(Kind::System, fmt::format("ring {} {}, and {}", path, reason, moved.error()));
      }
      state->replace_note = fmt::format("ring {} {}: moved to {}", path, reason, *moved);
    } else {
      // A link whose target is gone (hugetlbfs was unmounted) is in the way of the new name and leads to
      // nothing.
      struct stat st {};
      if (::lstat(path.c_str(), &st) == 0 && S_ISLNK(st.st_mode) && ::stat(path.c_str(), &st) != 0 &&
          errno == ENOENT) {
        ::unlink(path.c_str());
      }
    }
    const int error = rename_new(temporary, path);
    if (error != 0) {
      discard();
      if (error == EEXIST || error == ENOENT) continue;
      return fail(Kind::System, errno_text(fmt::format("ring {}: cannot rename {}", path, temporary), error));
    }
    header_of(*state->opened.mapping)
        .writer_heartbeat.pid.store(static_cast<std::uint32_t>(::getpid()), std::memory_order_relaxed);
    remove_leftovers(path);
    return RingFile(std::move(state));
  }
  return fail(Kind::System, "ring " + path + ": other processes keep replacing it");
}

Result<RingFile, RingFileError> RingFile::attach(const std::string& path, RingSide side,
                                                 const std::string& successor) {
  auto there = open_ring(path, side);
  if (!there) return Err{there.error()};
  if (!there->difference.text.empty())
    return fail(Kind::Incompatible, "ring " + path + " " + there->difference.text);
  shm::RingHeader& header = header_of(*there->mapping);
  if (side == RingSide::Writer) {
    if (std::string corrupt = check_positions(header); !corrupt.empty()) {
      return fail(Kind::Incompatible, "ring " + path + " " + corrupt);
    }
  }
  auto& heartbeat = side == RingSide::Writer ? header.writer_heartbeat : header.reader_heartbeat;
  heartbeat.pid.store(static_cast<std::uint32_t>(::getpid()), std::memory_order_relaxed);
  auto state = std::make_unique<State>();
  state->path = path;
  state->proper_path = successor.empty() ? path : successor;
  state->opened = std::move(there).value();
  return RingFile(std::move(state));
}

std::optional<WriterId> RingFile::writer_of(const std::string& path) {
  const Fd fd(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  struct Head {  // of RingIdentity, which holds an atomic
    std::uint64_t magic;
    std::uint32_t abi_version;
    std::byte between[offsetof(shm::RingIdentity, writer_id) - 12];
    WriterId writer;
  } head{};
  static_assert(offsetof(Head, abi_version) == offsetof(shm::RingIdentity, abi_version) &&
                offsetof(Head, writer) == offsetof(shm::RingIdentity, writer_id));
  if (!fd || ::pread(fd.get(), &head, sizeof head, 0) != static_cast<ssize_t>(sizeof head))
    return std::nullopt;
  if (head.magic != shm::kRingMagic || head.abi_version != shm::kRingAbiVersion) return std::nullopt;
  return head.writer;
}

int RingFile::lock_holder(const std::string& path, RingSide side) {
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) return errno == ENOENT ? 0 : -1;
  switch (ofd_test(fd.get(), lock_byte(side))) {
    case LockState::Free: return 0;
    case LockState::Unknown: return -1;
    case LockState::Held: break;
  }
  // F_OFD_GETLK reports no pid; the holder wrote it when it attached.
  std::uint64_t magic = 0;
  std::uint32_t abi = 0;
  std::uint32_t pid = 0;
  const std::size_t heartbeat = side == RingSide::Writer ? offsetof(shm::RingHeader, writer_heartbeat)
                                                         : offsetof(shm::RingHeader, reader_heartbeat);
  const auto read_at = [&](auto& value, std::size_t offset) {
    return ::pread(fd.get(), &value, sizeof value, static_cast<off_t>(offset)) == ssize_t{sizeof value};
  };
  if (!read_at(magic, offsetof(shm::RingIdentity, magic)) || magic != shm::kRingMagic ||
      !read_at(abi, offsetof(shm::RingIdentity, abi_version)) || abi != shm::kRingAbiVersion ||
      !read_at(pid, heartbeat + offsetof(shm::RingHeartbeat, pid)) || pid == 0 || pid > 0x7fffffffU) {
    return -1;
  }
  return static_cast<int>(pid);
}

std::vector<std::string> RingFile::moved_aside(const std::string& path) {
  return numbered_siblings(path, ".old-");
}

void RingFile::remove() {
  // Never a file that took the name since.
  FileIdentity now;
  if (!identify(state_->path, now) || now != state_->opened.identity) return;
  std::error_code ec;
  const fs::path target = fs::is_symlink(state_->path, ec) ? fs::read_symlink(state_->path, ec) : fs::path();
  ::unlink(state_->path.c_str());
  if (!target.empty()) ::unlink(target.c_str());
}

shm::RingHeader& RingFile::header() const {
  return header_of(*state_->opened.mapping);
}
std::byte* RingFile::data() const {
  return state_->opened.mapping->data() + shm::kRingDataOffsetBytes;
}
const std::string& RingFile::path() const {
  return state_->path;
}
bool RingFile::on_hugepages() const {
  return state_->opened.huge_page != 0;
}
const std::string& RingFile::hugepage_note() const {
  return state_->hugepage_note;
}
const std::string& RingFile::replace_note() const {
  return state_->replace_note;
}
bool RingFile::created() const {
  return state_->created;
}
bool RingFile::replaced() const {
  FileIdentity now;
  return identify(state_->proper_path, now) && now != state_->opened.identity;
}

}  // namespace arancini
