// systemd.generator(7): makes units follow the configuration, at boot and at each daemon-reload.
// arancini.target wants one ingestd for each shard (shards.count, by default one for each core); their
// sockets listen where bmp.listen says; directories that were moved may be written. With a configuration that
// is not valid it makes once more what it last made, or, as at boot, what the defaults ask for: the daemons
// then say what is wrong with it.
#include <fmt/format.h>
#include <sysexits.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <string>

#include "common/base/config.h"

namespace {

namespace fs = std::filesystem;
using arancini::Config;
using arancini::ConfigError;
using arancini::ConfigFlags;

// What was last made, as a configuration of these keys alone. A daemon-reload for whatever reason must not
// close listeners because somebody is editing the file. Not there after a reboot.
constexpr const char* kLastGood = "/run/arancini-generator.toml";

std::string toml_text(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return '"' + out + '"';
}

void remember(const Config& config) {
  std::ofstream out(kLastGood);  // where it cannot be written there is none: the defaults then
  out << fmt::format(
      "[shards]\ncount = {}\n[bmp]\nlisten = {}\nbacklog = {}\nrcvbuf_bytes = {}\n"
      "[paths]\nruntime_dir = {}\nstate_dir = {}\n",
      config.shards.count, toml_text(config.bmp.listen.to_string()), config.bmp.backlog,
      config.bmp.rcvbuf_bytes, toml_text(config.paths.runtime_dir), toml_text(config.paths.state_dir));
}

Config configuration() {
  ConfigFlags flags;
  try {
    Config config = arancini::load_config(flags);
    remember(config);
    return config;
  } catch (const ConfigError& e) {
    const bool before = fs::exists(kLastGood);
    fmt::print(stderr, "arancini: {}; units are made {}\n", e.what(),
               before ? "as they were" : "for the default configuration");
    if (before) flags.config = kLastGood;
    flags.default_file = ConfigFlags::DefaultFile::Never;
    return arancini::load_config(flags);
  }
}

// Read after the units and before what the operator writes with `systemctl edit` (override.conf).
void write_drop_in(const fs::path& folder, const std::string& unit, const std::string& text) {
  const fs::path of_unit = folder / (unit + ".d");
  fs::create_directories(of_unit);
  std::ofstream out(of_unit / "50-arancini.conf");
  out << "# From the configuration, by arancini's generator.\n" << text;
  if (!out.flush()) throw std::runtime_error((of_unit / "50-arancini.conf").string() + " cannot be written");
}

// As a word of a unit file, in which `%` and `\` mean something. A path with control characters is none.
std::string quoted(const std::string& path) {
  std::string out;
  for (const char c : path) {
    if (static_cast<unsigned char>(c) < ' ') return "\"\"";
    if (c == '%' || c == '\\' || c == '"') out += c == '%' ? '%' : '\\';
    out += c;
  }
  return '"' + out + '"';
}

void generate(const Config& config, const fs::path& folder, const fs::path& units) {
  const fs::path wants = folder / "arancini.target.wants";
  fs::create_directories(wants);
  for (std::uint32_t k = 0; k < config.shards.count; ++k) {
    for (const char* kind : {"socket", "service"}) {
      fs::create_symlink(units / fmt::format("ingestd@.{}", kind),
                         wants / fmt::format("ingestd@{}.{}", k, kind));
    }
  }

  std::string listen = fmt::format("[Socket]\nListenStream=\nListenStream={}\nBacklog={}\n",
                                   config.bmp.listen.to_string(), config.bmp.backlog);
  if (config.bmp.rcvbuf_bytes > 0) listen += fmt::format("ReceiveBuffer={}\n", config.bmp.rcvbuf_bytes);
  write_drop_in(folder, "ingestd@.socket", listen);

  const Config defaults;
  std::string paths;
  for (const auto& [own, usual] : {std::pair(config.paths.runtime_dir, defaults.paths.runtime_dir),
                                   std::pair(config.paths.state_dir, defaults.paths.state_dir)}) {
    if (own != usual) paths += fmt::format("ReadWritePaths={}\n", quoted("-" + own));
  }
  if (paths.empty()) return;
  for (const char* unit : {"ingestd@.service", "publishd.service", "curated.service"}) {
    write_drop_in(folder, unit, "[Service]\n" + paths);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fputs("usage: systemd calls this with three folders; see systemd.generator(7)\n", stderr);
    return EX_USAGE;
  }
  try {
    generate(configuration(), argv[1], ARANCINI_UNITS);
    return EX_OK;
  } catch (const std::exception& e) {
    fmt::print(stderr, "arancini: {}\n", e.what());
    return EX_CANTCREAT;
  }
}
