#pragma once

#include "common/nats/stream_rules.h"

// A name of nats.h, which only this folder, and one file of a daemon, sees.
struct jsStreamInfo;

namespace arancini {

StreamFacts stream_facts(const jsStreamInfo& info);

}  // namespace arancini
