#include "tools/nats_flags.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>

#include "common/base/config.h"
#include "tools/aranctl.h"

namespace arancini::tools {

void NatsFlags::add_to(CLI::App& app) {
  app.add_option("--nats", url,
                 "URL of NATS, several servers with commas (default: ARANCINI_NATS in the environment, or "
                 "nats.url of --config)");
  app.add_option(
         "--config", config,
         "TOML file whose [nats] says URL, login, TLS and stream (default: that of the daemons, unless "
         "--nats is given); ARANCINI_NATS_PASSWORD and ARANCINI_NATS_TOKEN go before it")
      ->type_name("FILE");
  app.add_option("--stream", stream,
                 "name of the stream (default: that of the configuration, ARANCINI_UPDATES)");
}

Result<StreamPlace, StreamError> find_stream(const NatsFlags& flags, StreamKind kind) {
  ConfigFlags wanted;
  wanted.config = flags.config;
  wanted.nats = flags.url;
  // Not for --journal, nor for a configuration that somebody names and that has one.
  const char* const environment = std::getenv("ARANCINI_NATS");
  if (!wanted.nats && environment != nullptr && environment[0] != '\0') wanted.nats = environment;
  // The login of one server is not for another one that somebody names.
  wanted.default_file = wanted.nats ? ConfigFlags::DefaultFile::Never : ConfigFlags::DefaultFile::IfReadable;
  StreamPlace place;
  try {
    const Config config = load_config(wanted);
    if (config.sink.kind == SinkKind::Journal && !flags.url) {
      place.journal = config.journal_dir();
      return place;
    }
    if (config.nats.url == "embedded") {
      return Err{
          StreamError{kExitUsage, fmt::format("{}: nats.url is \"embedded\", a nats-server of curated's own: "
                                              "give the URL that 'aranctl status' shows with --nats",
                                              config.file.empty() ? "--nats" : config.file)}};
    }
    if (const std::string exposed = exposed_nats_secrets(config); !exposed.empty())
      fmt::print(stderr, "aranctl: {}\n", exposed);
    place.nats = NatsSettings::from(config);
    place.stream = flags.stream.value_or(kind == StreamKind::Events ? config.nats.events_stream
                                                                    : config.nats.updates_stream);
  } catch (const ConfigError& e) {
    return Err{StreamError{kExitConfig, e.what()}};
  }
  return place;
}

}  // namespace arancini::tools
