#include <fmt/format.h>
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <mutex>
#include <set>
#include <utility>

#include "ingestd/snapshot_stores.h"
#include "log.grpc.pb.h"

// The client of publishd's blobs: snapshots in a NATS key-value bucket.
namespace arancini::ingestd {

namespace {

namespace log = arancini::log::v1;
using snapshot::SnapshotName;

constexpr std::string_view kPrefix = "shard-";
// Below gRPC's limit for a message.
constexpr std::size_t kChunkBytes = 256 * 1024;
constexpr std::chrono::seconds kTimeout{30};

// What is under way, so that another thread can end it.
class Calls {
 public:
  void add(grpc::ClientContext& context) {
    const std::lock_guard lock(mutex_);
    contexts_.insert(&context);
    if (interrupted_) context.TryCancel();
  }
  void remove(grpc::ClientContext& context) {
    const std::lock_guard lock(mutex_);
    contexts_.erase(&context);
  }
  void interrupt() {
    const std::lock_guard lock(mutex_);
    interrupted_ = true;
    for (grpc::ClientContext* context : contexts_) context->TryCancel();
  }

 private:
  std::mutex mutex_;
  std::set<grpc::ClientContext*> contexts_;
  bool interrupted_ = false;
};

class Call {
 public:
  explicit Call(Calls& calls) : calls_(calls) { calls_.add(context); }
  ~Call() { calls_.remove(context); }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;
  grpc::ClientContext context;

 private:
  Calls& calls_;
};

using Stub = std::unique_ptr<log::Log::Stub>;

class BlobSource final : public snapshot::ByteSource {
 public:
  BlobSource(Stub stub, Calls& calls, std::string name)
      : stub_(std::move(stub)), call_(calls), name_(std::move(name)) {
    log::GetBlobRequest request;
    request.set_name(name_);
    reader_ = stub_->GetBlob(&call_.context, request);
  }
  ~BlobSource() override {
    if (ended_) return;
    call_.context.TryCancel();
    (void)reader_->Finish();
  }
  BlobSource(const BlobSource&) = delete;
  BlobSource& operator=(const BlobSource&) = delete;

  Result<std::size_t, std::string> read(std::span<std::byte> out) override {
    while (!ended_ && at_ == chunk_.data().size()) {
      at_ = 0;
      if (reader_->Read(&chunk_)) continue;
      chunk_.Clear();
      ended_ = true;
      if (const grpc::Status status = reader_->Finish(); !status.ok()) error_ = status.error_message();
    }
    if (!error_.empty()) return Err{fmt::format("{}: {}", name_, error_)};
    const std::size_t n = std::min(out.size(), chunk_.data().size() - at_);
    if (n > 0) std::memcpy(out.data(), chunk_.data().data() + at_, n);
    at_ += n;
    return n;
  }

 private:
  const Stub stub_;
  Call call_;
  std::string name_;
  std::unique_ptr<grpc::ClientReader<log::BlobChunk>> reader_;
  log::BlobChunk chunk_;
  std::size_t at_ = 0;
  bool ended_ = false;
  std::string error_;
};

class BlobSink final : public snapshot::SnapshotSink {
 public:
  BlobSink(Stub stub, Calls& calls, std::string name)
      : stub_(std::move(stub)), call_(calls), name_(std::move(name)) {
    writer_ = stub_->PutBlob(&call_.context, &reply_);
    chunk_.set_name(name_);
  }
  // What is not committed is no blob: the call ends without its end.
  ~BlobSink() override {
    if (ended_) return;
    call_.context.TryCancel();
    (void)writer_->Finish();
  }
  BlobSink(const BlobSink&) = delete;
  BlobSink& operator=(const BlobSink&) = delete;

  std::string write(std::span<const std::byte> bytes) override {
    while (!bytes.empty()) {
      const std::size_t n = std::min(bytes.size(), kChunkBytes);
      if (std::string error = send(bytes.first(n)); !error.empty()) return error;
      bytes = bytes.subspan(n);
    }
    return {};
  }

  std::string commit() override {
    if (!chunk_.name().empty()) {
      if (std::string error = send({}); !error.empty()) return error;
    }
    writer_->WritesDone();
    return end();
  }

 private:
  std::string send(std::span<const std::byte> bytes) {
    if (ended_) return fmt::format("{}: the call has ended", name_);
    chunk_.set_data(bytes.data(), bytes.size());
    const bool sent = writer_->Write(chunk_);
    chunk_.clear_name();
    if (sent) return {};
    std::string error = end();
    return error.empty() ? fmt::format("{}: publishd ended the call", name_) : error;
  }
  std::string end() {
    ended_ = true;
    const grpc::Status status = writer_->Finish();
    return status.ok() ? std::string{} : fmt::format("{}: {}", name_, status.error_message());
  }

  const Stub stub_;
  Call call_;
  std::string name_;
  log::PutBlobReply reply_;
  std::unique_ptr<grpc::ClientWriter<log::BlobChunk>> writer_;
  log::BlobChunk chunk_;
  bool ended_ = false;
};

class KvStore final : public snapshot::SnapshotStore {
 public:
  explicit KvStore(const std::string& socket_path)
      : socket_path_(socket_path), where_("publishd at " + socket_path) {}

  Result<std::vector<SnapshotName>, std::string> list() override {
    Call call(calls_);
    call.context.set_deadline(std::chrono::system_clock::now() + kTimeout);
    log::ListBlobsRequest request;
    request.set_prefix(std::string(kPrefix));
    log::ListBlobsReply reply;
    if (const grpc::Status status = stub()->ListBlobs(&call.context, request, &reply); !status.ok())
      return Err{failed("the snapshots cannot be listed", status)};
    std::vector<SnapshotName> names;
    for (const std::string& text : reply.names()) {
      if (const auto name = SnapshotName::parse(text)) names.push_back(*name);
    }
    return names;
  }

  Result<std::unique_ptr<snapshot::ByteSource>, std::string> open(const SnapshotName& name) override {
    return std::unique_ptr<snapshot::ByteSource>(
        std::make_unique<BlobSource>(stub(), calls_, name.to_string()));
  }

  Result<std::unique_ptr<snapshot::SnapshotSink>, std::string> create(const SnapshotName& name) override {
    return std::unique_ptr<snapshot::SnapshotSink>(
        std::make_unique<BlobSink>(stub(), calls_, name.to_string()));
  }

  // There is no rename: it is copied.
  std::string set_aside(const SnapshotName& name) override {
    {
      BlobSource source(stub(), calls_, name.to_string());
      BlobSink sink(stub(), calls_, name.to_string() + ".corrupt");
      std::vector<std::byte> buffer(kChunkBytes);
      for (;;) {
        const auto n = source.read(buffer);
        if (!n) return n.error();
        if (*n == 0) break;
        if (std::string error = sink.write(std::span(buffer).first(*n)); !error.empty()) return error;
      }
      if (std::string error = sink.commit(); !error.empty()) return error;
    }
    return remove(name);
  }

  std::string remove(const SnapshotName& name) override {
    Call call(calls_);
    call.context.set_deadline(std::chrono::system_clock::now() + kTimeout);
    log::DeleteBlobRequest request;
    request.set_name(name.to_string());
    log::DeleteBlobReply reply;
    const grpc::Status status = stub()->DeleteBlob(&call.context, request, &reply);
    if (status.ok() || status.error_code() == grpc::StatusCode::NOT_FOUND) return {};
    return failed(name.to_string() + " cannot be removed", status);
  }

  void interrupt() override { calls_.interrupt(); }

  [[nodiscard]] std::string describe(const SnapshotName& name) const override {
    return name.to_string() + " in the bucket";
  }

 private:
  // A connection of its own for each call: one that has failed waits before it tries again, and calls with
  // it.
  [[nodiscard]] Stub stub() const {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    return log::Log::NewStub(
        grpc::CreateCustomChannel("unix:" + socket_path_, grpc::InsecureChannelCredentials(), arguments));
  }
  [[nodiscard]] std::string failed(std::string_view what, const grpc::Status& status) const {
    return fmt::format("{}: {} ({})", what, status.error_message(), where_);
  }

  const std::string socket_path_;
  const std::string where_;
  Calls calls_;
};

}  // namespace

std::unique_ptr<snapshot::SnapshotStore> open_kv_store(const std::string& socket_path) {
  return std::make_unique<KvStore>(socket_path);
}

}  // namespace arancini::ingestd
