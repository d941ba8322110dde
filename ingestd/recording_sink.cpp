#include "ingestd/recording_sink.h"

namespace arancini::ingestd {

using recording::Entry;

namespace {

std::uint32_t number(SessionId id) {
  return static_cast<std::uint32_t>(id);
}

}  // namespace

SessionId RecordingSink::open_session(const IpAddress& source, std::uint16_t port) {
  recorder_.begin(Entry::OpenSession);
  recorder_.put(source.bytes);
  recorder_.put(port);
  const SessionId id = next_.open_session(source, port);
  recorder_.end(number(id));
  return id;
}

Shard::Applied RecordingSink::apply(SessionId session, std::span<const std::byte> message) {
  recorder_.begin(Entry::Apply);
  recorder_.put(number(session));
  recorder_.put(static_cast<std::uint32_t>(message.size()));
  recorder_.put_bytes(message);
  const Shard::Applied applied = next_.apply(session, message);
  recorder_.end(static_cast<std::uint32_t>(applied));
  return applied;
}

void RecordingSink::session_error(SessionId session, ErrorCode code, std::string_view text) {
  recorder_.begin(Entry::SessionError);
  recorder_.put(number(session));
  recorder_.put(number(code));
  recorder_.put(static_cast<std::uint32_t>(text.size()));
  recorder_.put_bytes(std::as_bytes(std::span(text)));
  next_.session_error(session, code, text);
  recorder_.end();
}

void RecordingSink::close_session(SessionId session) {
  recorder_.begin(Entry::CloseSession);
  recorder_.put(number(session));
  next_.close_session(session);
  recorder_.end();
}

void RecordingSink::set_throttled(SessionId session, bool throttled) {
  recorder_.begin(Entry::SetThrottled);
  recorder_.put(number(session));
  recorder_.put(static_cast<std::uint8_t>(throttled));
  next_.set_throttled(session, throttled);
  recorder_.end();
}

std::optional<SessionId> RecordingSink::take_session_to_close() {
  const std::optional<SessionId> id = next_.take_session_to_close();
  if (id) {  // asked each round: only what was taken changes anything
    recorder_.begin(Entry::TakeSession);
    recorder_.end(number(*id));
  }
  return id;
}

Shard::Work RecordingSink::do_work() {
  recorder_.begin(Entry::DoWork);
  const Shard::Work work = next_.do_work();
  recorder_.end();
  return work;
}

void RecordingSink::publish() {
  if (ring_.tail() == published_) {
    next_.publish();
    return;
  }
  recorder_.begin(Entry::Publish);
  next_.publish();
  published_ = ring_.tail();
  recorder_.published(ring_);
}

void RecordingSink::finish() {
  recorder_.begin(Entry::Finish);
  next_.finish();
  recorder_.end();
}

}  // namespace arancini::ingestd
