#include "ingestd/log_client.h"

#include <grpcpp/grpcpp.h>

#include <mutex>

#include "log.grpc.pb.h"

namespace arancini::ingestd {

namespace {

namespace pb = arancini::log::v1;

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

class LogClient final : public LogReader {
 public:
  explicit LogClient(std::string path) : path_(std::move(path)) {}

  std::string read(const LogRequest& request, LogVisitor& visitor) override {
    // A new one each time: one that has failed waits before it tries again, the caller does that already.
    grpc::ChannelArguments arguments;
    // Messages are as long as NATS takes them, records up to shm::kRecordMaxBytes.
    arguments.SetMaxReceiveMessageSize(-1);
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    const auto stub = pb::Log::NewStub(
        grpc::CreateCustomChannel("unix:" + path_, grpc::InsecureChannelCredentials(), arguments));
    grpc::ClientContext context;
    {
      const std::lock_guard lock(mutex_);
      if (cancelled_) return "cancelled";
      context_ = &context;
    }
    pb::ReadRequest ask;
    ask.set_shard(request.shard);
    ask.set_shard_count(request.shard_count);
    ask.set_writer(request.writer.bytes.data(), request.writer.bytes.size());
    ask.set_log_sequence(request.log_sequence);
    ask.set_log_identity(request.log_identity);
    ask.set_ring_position(raw(request.ring_position));
    const auto reader = stub->Read(&context, ask);
    pb::Part part;
    bool wanted = true;
    bool done = false;
    while (wanted && !done && reader->Read(&part)) {
      wanted = give(part, visitor, done);
    }
    if (!wanted || done) context.TryCancel();
    const grpc::Status status = reader->Finish();
    {
      const std::lock_guard lock(mutex_);
      context_ = nullptr;
    }
    if (!wanted || done) return {};
    if (status.ok()) return path_ + ": the log ended early";
    return path_ + ": " + status.error_message();
  }

  void cancel() override {
    const std::lock_guard lock(mutex_);
    cancelled_ = true;
    if (context_ != nullptr) context_->TryCancel();
  }

 private:
  static bool give(const pb::Part& part, LogVisitor& visitor, bool& done) {
    switch (part.part_case()) {
      case pb::Part::kBegin: {
        const pb::Part::Begin& b = part.begin();
        return visitor.begin({.local = b.local(),
                              .log_identity = b.log_identity(),
                              .from_sequence = b.from_sequence(),
                              .first_sequence = b.first_sequence(),
                              .last_sequence = b.last_sequence(),
                              .other_log = b.other_log()});
      }
      case pb::Part::kMessage:
        return visitor.message(part.message().log_sequence(), part.message().format(),
                               bytes_of(part.message().payload()));
      case pb::Part::kRecord:
        return visitor.record(bytes_of(part.record().header()), bytes_of(part.record().payload()));
      case pb::Part::kWaiting: return visitor.waiting(part.waiting().text());
      case pb::Part::kDone:
        done = true;
        return visitor.done({.ring_position = RingPosition{part.done().ring_position()},
                             .log_identity = part.done().log_identity(),
                             .log_sequence = part.done().log_sequence()});
      case pb::Part::PART_NOT_SET: return true;  // of a later version
    }
    return true;
  }

  const std::string path_;
  std::mutex mutex_;
  grpc::ClientContext* context_ = nullptr;
  bool cancelled_ = false;
};

}  // namespace

std::unique_ptr<LogReader> make_log_client(const std::string& socket_path) {
  return std::make_unique<LogClient>(socket_path);
}

}  // namespace arancini::ingestd
