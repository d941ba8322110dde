// aranctl: the operator's tool.
#include <CLI/CLI.hpp>
#include <exception>

#include "tools/aranctl_app.h"

int main(int argc, char** argv) {
  using namespace arancini::tools;
  CLI::App app{"Arancini: what routers told over BMP, and how the collector does"};
  GlobalOptions globals;
  int exit_code = kExitOk;
  build_app(app, globals, exit_code);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? kExitOk : kExitUsage;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "aranctl: %s\n", e.what());
    return kExitSoftware;
  }
  return exit_code;
}
