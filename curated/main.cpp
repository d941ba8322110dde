#include <signal.h>
#include <sysexits.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>

#include "common/base/config.h"
#include "curated/exporter.h"
#include "curated/instance.h"

int main(int argc, char** argv) {
  using namespace arancini;
  // Before any thread starts: the loop takes these from a signalfd.
  sigset_t ours;
  sigemptyset(&ours);
  for (const int s : {SIGTERM, SIGINT, SIGHUP, SIGPIPE}) sigaddset(&ours, s);
  sigprocmask(SIG_BLOCK, &ours, nullptr);

  CLI::App app(
      "Arancini's control plane: status, metrics, and, without systemd, the supervisor of all daemons",
      "curated");
  ConfigFlags flags;
  bool supervise = false;
  flags.add_to(app);
  app.add_flag("--supervise", supervise,
               "own the listeners, start all daemons as children and keep them running");
  app.set_version_flag("--version", "curated " ARANCINI_VERSION);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? EX_OK : EX_USAGE;
  }
  try {
    Config config = load_config(flags);
    if (const std::string why = curated::Exporter::unusable(config.metrics.listen); !why.empty()) {
      throw ConfigError(why);
    }
    if (flags.check_config) {
      std::puts("configuration is valid");
      return EX_OK;
    }
    curated::Instance instance(flags, std::move(config), supervise);
    return instance.run();
  } catch (const ConfigError& e) {
    std::fprintf(stderr, "curated: %s\n", e.what());
    return EX_CONFIG;
  } catch (const curated::StartError& e) {
    std::fprintf(stderr, "curated: %s\n", e.what());
    return e.exit_status;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "curated: %s\n", e.what());
    return EX_SOFTWARE;
  }
}
