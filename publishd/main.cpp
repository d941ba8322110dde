#include <sysexits.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <exception>
#include <memory>

#include "common/base/runtime_dir.h"
#include "publishd/instance.h"
#include "publishd/journal_instance.h"

namespace {

using arancini::publishd::HotLoop;
using arancini::publishd::Instance;
using arancini::publishd::JournalInstance;

// For the signal handler alone.
HotLoop* g_instance = nullptr;

void on_signal(int) {
  if (g_instance != nullptr) g_instance->request_stop();
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("publishd: drains all rings into NATS JetStream or the journal, each update once and in order",
               "publishd");
  arancini::ConfigFlags flags;
  flags.add_to(app);
  app.set_version_flag("--version", std::string("publishd ") + ARANCINI_VERSION);
  CLI11_PARSE(app, argc, argv);

  std::unique_ptr<HotLoop> instance;
  try {
    arancini::Config config = arancini::load_config(flags);
    if (flags.check_config) {
      std::printf("configuration is valid\n");
      return 0;
    }
    arancini::check_runtime_dir(config.paths.runtime_dir);
    if (config.sink.kind == arancini::SinkKind::Journal) {
      instance = std::make_unique<JournalInstance>(std::move(config), flags);
    } else {
      instance = std::make_unique<Instance>(std::move(config), flags);
    }
  } catch (const arancini::ConfigError& e) {
    std::fprintf(stderr, "publishd: %s\n", e.what());
    return EX_CONFIG;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "publishd: %s\n", e.what());
    return EX_OSERR;
  }
  g_instance = instance.get();
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  instance->run();
  std::signal(SIGTERM, SIG_IGN);
  std::signal(SIGINT, SIG_IGN);
  g_instance = nullptr;
  return 0;
}
