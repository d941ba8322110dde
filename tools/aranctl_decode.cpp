#include "tools/aranctl_decode.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>

#include "common/schema/bytes.h"
#include "common/schema/event_decode.h"
#include "common/schema/update_decode.h"
#include "tools/bmp_describe.h"
#include "tools/event_json.h"
#include "tools/route_json.h"

namespace arancini::tools {

namespace {

using nlohmann::ordered_json;
using schema::DecodedUpdate;
using schema::PayloadFormat;

using Bytes = std::span<const std::byte>;

std::optional<std::string> read_file(const std::string& path) {
  if (path == "-") return std::string(std::istreambuf_iterator<char>(std::cin), {});
  std::ifstream in(path, std::ios::binary);
  std::error_code ignored;
  if (!in || std::filesystem::is_directory(path, ignored)) return std::nullopt;
  std::string bytes(std::istreambuf_iterator<char>(in), {});
  if (in.bad()) return std::nullopt;
  return bytes;
}

void print_line(const ordered_json& j) {
  fmt::print("{}\n", to_line(j));
}

// Size of the framed message at the start of `rest` by its segment table
// (https://capnproto.org/encoding.html), 0 when it does not fit.
std::size_t framed_bytes(Bytes rest) {
  if (rest.size() < 8) return 0;
  const std::uint64_t segments = std::uint64_t{schema::load_u32(rest.data())} + 1;
  const std::uint64_t table = (4 + 4 * segments + 7) / 8 * 8;
  if (segments > 512 || table > rest.size()) return 0;
  std::uint64_t bytes = table;
  for (std::uint64_t i = 0; i < segments; ++i)
    bytes += 8 * std::uint64_t{schema::load_u32(rest.data() + 4 + 4 * i)};
  return bytes <= rest.size() ? static_cast<std::size_t>(bytes) : 0;
}

std::string attribute_name(unsigned type) {
  switch (type) {
    case 1: return "ORIGIN";
    case 2: return "AS_PATH";
    case 3: return "NEXT_HOP";
    case 4: return "MULTI_EXIT_DISC";
    case 5: return "LOCAL_PREF";
    case 6: return "ATOMIC_AGGREGATE";
    case 7: return "AGGREGATOR";
    case 8: return "COMMUNITIES";
    case 9: return "ORIGINATOR_ID";
    case 10: return "CLUSTER_LIST";
    case 14: return "MP_REACH_NLRI";
    case 15: return "MP_UNREACH_NLRI";
    case 16: return "EXTENDED_COMMUNITIES";
    case 17: return "AS4_PATH";
    case 18: return "AS4_AGGREGATOR";
    case 26: return "AIGP";
    case 32: return "LARGE_COMMUNITY";
    case 35: return "ONLY_TO_CUSTOMER";
    case 40: return "PREFIX_SID";
    default: return fmt::format("attribute {}", type);
  }
}

ordered_json explained(const DecodedUpdate& u) {
  ordered_json j = update_json(u, std::nullopt);
  j.erase("shard");  // a property of the message, not of the payload
  ordered_json& names = j["attributes_present"] = ordered_json::array();
  for (unsigned type = 0; type < 64; ++type) {
    if (((u.attributes_present >> type) & 1U) != 0) names.push_back(attribute_name(type));
  }
  if (!u.as_segments.empty()) {
    ordered_json& segments = j["as_segments"] = ordered_json::array();
    for (const auto& s : u.as_segments) segments.push_back({{"type", s.type}, {"members", s.members}});
  }
  return j;
}

int decode_published(Bytes payload, PayloadFormat format, bool explain) {
  std::vector<ordered_json> updates;  // of the framed message at hand
  auto error = schema::decode_payload(
      format, payload.first(payload.size() / 8 * 8),
      [&](const DecodedUpdate& u) {
        ordered_json j = explain ? explained(u) : update_json(u, std::nullopt);
        j.erase("shard");
        updates.push_back(std::move(j));
      },
      [&](const schema::FramedMessage& m) {
        if (explain) {
          print_line({{"message", m.type},
                      {"offset", m.offset_bytes},
                      {"bytes", m.bytes},
                      {"segments", m.segments},
                      {"updates", updates.size()}});
        }
        for (const ordered_json& u : updates) print_line(u);
        updates.clear();
      });
  if (!error && payload.size() % 8 != 0)
    error = fmt::format("byte {}: {} bytes are left over", payload.size() / 8 * 8, payload.size() % 8);
  if (!error) return kExitOk;
  for (const ordered_json& u : updates) print_line(u);
  fmt::print(stderr, "aranctl: message at {}\n", *error);
  return kExitBadData;
}

int decode_events(Bytes payload) {
  std::size_t at = 0;
  while (at < payload.size()) {
    const std::size_t size = framed_bytes(payload.subspan(at));
    const Bytes message = payload.subspan(at, size == 0 ? payload.size() - at : size);
    if (const auto error = print_event(message, std::nullopt, true)) {
      fmt::print(stderr, "aranctl: event at byte {}: {}\n", at, *error);
      return kExitBadData;
    }
    at += message.size();
  }
  return kExitOk;
}

// BMP common header (RFC 7854 4.1): version 3 and a length that the type byte fits in.
bool looks_like_bmp(Bytes bytes) {
  return bytes.size() >= wire::kBmpCommonHeaderBytes && bytes[0] == std::byte{3} &&
         schema::load_be32(bytes.data() + 1) >= wire::kBmpCommonHeaderBytes;
}

int decode(const std::string& path, bool explain) {
  const auto file = read_file(path);
  if (!file) {
    fmt::print(stderr, "aranctl: cannot read {}\n", path);
    return kExitNoInput;
  }
  const Bytes bytes = std::as_bytes(std::span(*file));
  if (looks_like_bmp(bytes)) {
    const std::size_t errors =
        describe_bmp_stream(bytes, [](const std::string& line) { fmt::print("{}\n", line); });
    return errors == 0 ? kExitOk : kExitBadData;
  }
  if (schema::looks_like_event(bytes)) return decode_events(bytes);
  if (const auto format = schema::guess_format(bytes); format)
    return decode_published(bytes, *format, explain);
  fmt::print(stderr, "aranctl: {} holds neither a published payload nor BMP messages\n", path);
  return kExitBadData;
}

}  // namespace

void add_decode_command(CLI::App& app, int& exit_code) {
  struct Options {
    std::string file;
    bool explain = false;
  };
  auto options = std::make_shared<Options>();
  CLI::App* const sub =
      app.add_subcommand("decode", "published payloads or BMP bytes as JSON, one object per line");
  sub->add_option("FILE", options->file,
                  "payload of one or more messages, or BMP as from the wire; - is stdin")
      ->type_name("FILE")
      ->required();
  sub->add_flag("--explain", options->explain,
                "payloads: also where each message lies, and which attributes there were");
  sub->callback([options, &exit_code] { exit_code = decode(options->file, options->explain); });
}

}  // namespace arancini::tools
