#pragma once

#include <string_view>

#include "common/schema/event_build.h"
#include "common/schema/event_fields.h"
#include "ingestd/peer_table.h"

// Which router an event is about.
namespace arancini::ingestd {

// `Event`: schema::EventParts, whose spans point to what is given here, or schema::EventFields.
template <class Event = schema::EventParts>
Event about_router(const IpAddress& address, std::string_view name, schema::EventKind kind,
                   schema::EventScope scope = schema::EventScope::Router) {
  Event event;
  event.kind = kind;
  event.scope = scope;
  event.has_router = true;
  event.router = address;
  event.router_id = name;
  return event;
}
template <class Event = schema::EventParts>
Event about_router(const Router& router, schema::EventKind kind,
                   schema::EventScope scope = schema::EventScope::Router) {
  return about_router<Event>(router.address, router.name, kind, scope);
}

}  // namespace arancini::ingestd
