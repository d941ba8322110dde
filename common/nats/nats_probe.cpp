#include "common/nats/nats_probe.h"

#include <nats/nats.h>

#include <algorithm>
#include <memory>

#include "common/nats/stream_facts.h"

namespace arancini {

namespace {

constexpr std::int64_t kPatienceMs = 3000;

struct ConnectionDeleter {
  void operator()(natsConnection* c) const { natsConnection_Destroy(c); }
};
struct JetStreamDeleter {
  void operator()(jsCtx* js) const { jsCtx_Destroy(js); }
};
struct InfoDeleter {
  void operator()(jsStreamInfo* info) const { jsStreamInfo_Destroy(info); }
};

NatsFailure api_failure(natsStatus status, jsErrCode code, const NatsSettings& settings) {
  if (status == NATS_NO_RESPONDERS) {
    return {ErrorCode::StreamUnusable, settings.domain.empty() && settings.api_prefix.empty()
                                           ? "JetStream is not enabled, or not for this account"
                                           : "no JetStream answers for nats.domain or nats.api_prefix"};
  }
  if (code != 0) return jetstream_failure(static_cast<std::uint32_t>(code), nats_last_detail());
  if (status == NATS_TIMEOUT) {
    return {ErrorCode::NatsUnreachable,
            "JetStream gives no answer: may this user ask it (docs/nats.md), and has the stream a leader?"};
  }
  return {ErrorCode::NatsUnreachable, natsStatus_GetText(status)};
}

}  // namespace

NatsProbe probe_nats(const NatsSettings& settings, const std::string& client,
                     const std::vector<std::string>& streams) {
  NatsProbe out;
  NatsConnector connector(settings, client);
  auto connected = connector.connect({});
  if (!connected.ok()) {
    out.failure = connected.error();
    return out;
  }
  const std::unique_ptr<natsConnection, ConnectionDeleter> connection(*connected);
  out.server = connector.server();
  out.max_payload =
      static_cast<std::uint64_t>(std::max<std::int64_t>(natsConnection_GetMaxPayload(connection.get()), 0));
  jsOptions api;
  jsOptions_Init(&api);
  api.Wait = kPatienceMs;
  if (!settings.api_prefix.empty()) api.Prefix = settings.api_prefix.c_str();
  if (!settings.domain.empty()) api.Domain = settings.domain.c_str();
  jsCtx* raw = nullptr;
  natsStatus status = natsConnection_JetStream(&raw, connection.get(), &api);
  const std::unique_ptr<jsCtx, JetStreamDeleter> js(raw);
  if (status != NATS_OK) {
    out.jetstream = api_failure(status, static_cast<jsErrCode>(0), settings);
    return out;
  }
  for (const std::string& name : streams) {
    NatsProbe::Stream stream{name, false, std::nullopt, {}};
    jsStreamInfo* info = nullptr;
    auto code = static_cast<jsErrCode>(0);
    status = js_GetStreamInfo(&info, js.get(), name.c_str(), nullptr, &code);
    const std::unique_ptr<jsStreamInfo, InfoDeleter> owner(info);
    if (status == NATS_OK) {
      stream.facts = stream_facts(*info);
    } else if (status == NATS_NOT_FOUND) {
      stream.missing = true;
    } else if (status == NATS_NO_RESPONDERS || code == JSNotEnabledErr || code == JSNotEnabledForAccountErr) {
      out.jetstream = api_failure(status, code, settings);
      out.streams.clear();
      return out;
    } else {
      stream.failure = api_failure(status, code, settings);
    }
    out.streams.push_back(std::move(stream));
  }
  return out;
}

}  // namespace arancini
