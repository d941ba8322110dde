#include "ingestd/router_limits.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "common/metrics/metric_list.h"
#include "ingestd/router_event.h"

namespace arancini::ingestd {

void Limits::refused(const IpAddress& source, std::uint16_t port, std::string_view name, ErrorCode code,
                     std::string_view detail) {
  context_.stats.add(IngestMetric::SessionsRefusedByRule);
  char line[256];
  const auto end = fmt::format_to_n(line, sizeof line, "{}: {}", to_string(code), detail);
  const std::string_view text(line, std::min(end.size, sizeof line));
  Router* router = peers_.router_if_room(source, name);
  if (router != nullptr) {
    if (!router->limit.over) {  // that one lasts
      router->last_error = code;
      copy_text(router->last_error_text, text);
    }
    if (router->sessions == 0) router->state = shm::RouterState::Refused;
    peers_.touch(*router);
  }
  std::uint64_t left_out = 0;
  if (!refused_.allow(context_.now_ns, left_out)) return;
  context_.log.warn("router {} port {}: {} ({}){}", source.to_string(), port, text, number(code),
                    left_out == 0 ? std::string() : fmt::format("; {} such lines left out", left_out));
  schema::EventParts event =
      about_router(source, name, schema::EventKind::Limit, schema::EventScope::Session);
  event.router_port = port;
  event.error_code = number(code);
  event.text = text;
  const std::array counters{schema::EventParts::Counter{"left_out", left_out}};
  event.counters = counters;
  events_.write(router != nullptr ? router->row : shm::kAllRouters, event);
}

void Limits::routes_skipped(Router& router, std::uint32_t routes) {
  RouteLimit& limit = router.limit;
  context_.stats.add(IngestMetric::RoutesOverLimit, routes);
  limit.skipped += routes;
  if (!limit.over) {
    limit.over = true;
    over_.push_back(&router);
  }
  if (limit.said_ns != 0 && context_.now_ns - limit.said_ns < kIntervalNs) return;
  limit.said_ns = context_.now_ns;
  tell_routes(router);
}

void Limits::tell_routes(Router& router) {
  const RouteLimit& limit = router.limit;
  char line[200];
  const auto end =
      fmt::format_to_n(line, sizeof line, "{}: {} routes, {} announcements of further ones skipped so far",
                       to_string(ErrorCode::RouterRouteLimit), limit.routes, limit.skipped);
  const std::string_view text(line, std::min(end.size, sizeof line));
  router.last_error = ErrorCode::RouterRouteLimit;
  copy_text(router.last_error_text, text);
  peers_.touch(router);
  context_.log.warn("router {}: {} ({})", router.address.to_string(), text,
                    number(ErrorCode::RouterRouteLimit));
  schema::EventParts event = about_router(router, schema::EventKind::Limit);
  event.error_code = number(ErrorCode::RouterRouteLimit);
  event.text = text;
  const std::array counters{schema::EventParts::Counter{"limit", limit.routes},
                            schema::EventParts::Counter{"routes", router.routes},
                            schema::EventParts::Counter{"skipped", limit.skipped}};
  event.counters = counters;
  events_.write(router.row, event);
}

bool Limits::is_below(Router& router) const {
  RouteLimit& limit = router.limit;
  if (router.routes > limit.routes - std::max<std::uint64_t>(limit.routes / 10, 1)) {
    if (limit.freed_ns == 0 || context_.now_ns - limit.freed_ns < kFreedNs) return false;
    if (router.routes >= limit.routes) {
      limit.freed_ns = 0;  // other routes took the room
      return false;
    }
  }
  // Without a session it will tell everything when it comes back.
  return router.sessions == 0 || limit.asked_ns == 0 || context_.now_ns - limit.asked_ns >= kAgainNs;
}

void Limits::below(Router& router) {
  RouteLimit& limit = router.limit;
  if (router.sessions > 0) {
    limit.asked_ns = context_.now_ns;
    context_.log.info("router {}: {} routes, below its limit of {} again: it has to tell its tables anew",
                      router.address.to_string(), router.routes, limit.routes);
  }
  limit.over = false;
  limit.freed_ns = 0;
}

}  // namespace arancini::ingestd
