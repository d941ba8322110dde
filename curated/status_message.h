#pragma once

#include <control.pb.h>

#include <string>

#include "common/base/config.h"
#include "curated/fleet.h"
#include "curated/shards_client.h"

namespace arancini::curated {

// The instance at a glance: from the daemons' pages, and what shards say themselves within half a second.
control::v1::Status status_message(const Config& config, Fleet& fleet, const ShardsClient& shards);

// What a watcher wants to know at once when it changes: states, not counters.
std::string status_signature(const control::v1::Status& status);

}  // namespace arancini::curated
