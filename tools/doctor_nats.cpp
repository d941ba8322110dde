#include <fmt/format.h>

#include "tools/doctor.h"

namespace arancini::tools {

namespace {

void check_stream(const NatsProbe::Stream& stream, const StreamWishes& wishes, std::uint32_t wanted_message,
                  Findings& out) {
  const std::string check = "stream " + stream.name;
  constexpr const char* kNothingPublished =
      "nothing can be published: the journal fills, then the routers wait";
  if (stream.failure) {
    out.problem(check, stream.failure->text, kNothingPublished,
                "nats stream info " + stream.name + "; permissions: docs/nats.md");
    return;
  }
  if (stream.missing) {
    out.ok(check, "is not there yet; publishd makes it");
    return;
  }
  const StreamFacts& f = stream.facts;
  if (const std::string why = why_unusable(f, wishes); !why.empty()) {
    out.problem(
        check, why, kNothingPublished,
        fmt::format("nats stream edit {}; what cannot be edited: another name in [nats]", stream.name));
    return;
  }
  if (const std::string why = why_full(f); !why.empty()) {
    out.problem(check, why, kNothingPublished,
                fmt::format("nats stream edit {} --max-bytes=-1 --max-msgs=-1", stream.name));
    return;
  }
  bool well = true;
  for (const std::string& warning : stream_warnings(f, wishes)) {
    well = false;
    out.warning(check, warning, "the stream works, but perhaps not as you meant it",
                fmt::format("nats stream edit {}; docs/nats.md says what is meant", stream.name));
  }
  if (f.max_message_bytes > 0 && f.max_message_bytes < wanted_message) {
    well = false;
    out.warning(
        check, fmt::format("max_msg_size is {}, publish.batch_bytes {}", f.max_message_bytes, wanted_message),
        "messages are made smaller: more of them, and less throughput",
        fmt::format("nats stream edit {} --max-msg-size=-1", stream.name));
  }
  if (well) out.ok(check, fmt::format("{} messages, {} replica(s)", f.messages, f.replicas));
}

}  // namespace

void check_nats(const NatsProbe& probe, const Config& config, Findings& out) {
  constexpr std::uint64_t kHeaders = 1024;
  constexpr std::uint64_t kLeastMessage = 16 * 1024;
  if (probe.failure) {
    out.problem("NATS", probe.failure->text,
                "nothing can be published: the journal fills, then the routers wait",
                probe.failure->code == ErrorCode::NatsUnreachable
                    ? "systemctl status nats-server; then nats.url in the configuration, and the firewall"
                    : "the login and the TLS files in [nats] of the configuration: docs/nats.md");
    return;
  }
  out.ok("NATS", "connected to " + probe.server);
  if (probe.max_payload < kLeastMessage) {
    out.problem("NATS max_payload", fmt::format("is {} bytes", probe.max_payload),
                "ordinary updates do not fit: nothing is published",
                "max_payload: 1MB in the configuration of nats-server; then systemctl reload nats-server");
  } else if (probe.max_payload < config.publish.batch_bytes + kHeaders) {
    out.warning("NATS max_payload",
                fmt::format("is {}, publish.batch_bytes {}", probe.max_payload, config.publish.batch_bytes),
                "messages are made smaller: more of them, and less throughput",
                "max_payload: 1MB in the configuration of nats-server; then systemctl reload nats-server");
  } else {
    out.ok("NATS max_payload", fmt::format("{} bytes", probe.max_payload));
  }
  if (probe.jetstream) {
    out.problem(
        "JetStream", probe.jetstream->text, "there is nothing that keeps what is published",
        "jetstream: {} in the configuration of nats-server (or nats-server -js), and for the account");
    return;
  }
  out.ok("JetStream", "enabled");
  for (const NatsProbe::Stream& stream : probe.streams) {
    check_stream(stream,
                 stream.name == config.nats.events_stream ? events_stream_wishes(config)
                                                          : updates_stream_wishes(config),
                 config.publish.batch_bytes, out);
  }
}

}  // namespace arancini::tools
