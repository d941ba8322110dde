#pragma once

#include <memory>
#include <string>

#include "ingestd/log_reader.h"

namespace arancini::ingestd {

// From publishd's socket (Config::log_path()). publishd may come and go between two reads.
std::unique_ptr<LogReader> make_log_client(const std::string& socket_path);

}  // namespace arancini::ingestd
