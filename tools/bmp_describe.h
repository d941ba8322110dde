#pragma once

#include <cstddef>
#include <functional>
#include <string>

#include "common/wire/bmp.h"

// BMP messages as JSON for operators (`aranctl decode`). Keys of routes and attributes are those of `aranctl
// fold --json`.
namespace arancini::tools {

// One JSON object for one whole BMP message, on one line; never throws on account of the bytes: what does not
// parse is said in "errors": [{"code", "text", "offset"}], offsets from the start of the message. ADD-PATH is
// judged by the message alone.
std::string describe_bmp(wire::Bytes message);

// Describes the messages of a stream in turn. Each line has in addition "offset" of the message in `stream`,
// and offsets in errors count from the start of `stream` too. What Peer Up says about ADD-PATH holds for the
// messages after it. Where the framing is lost, one line with "type": "framing error" ends it. Returns the
// number of errors.
std::size_t describe_bmp_stream(wire::Bytes stream, const std::function<void(const std::string&)>& line);

}  // namespace arancini::tools
