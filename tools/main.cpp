// aranctl: the operator's tool.
#include <CLI/CLI.hpp>
#include <exception>

#include "tools/aranctl.h"
#include "tools/aranctl_control.h"
#include "tools/aranctl_decode.h"
#include "tools/aranctl_dump.h"
#include "tools/aranctl_stream.h"

int main(int argc, char** argv) {
  using namespace arancini::tools;
  CLI::App app{"Arancini: what routers told over BMP, and how the collector does"};
  app.set_version_flag("--version", ARANCINI_VERSION);
  app.require_subcommand(1);
  app.footer(
      "Exit codes: 0 all well; 1 audit found a gap, a duplicate or a wrong order; 2 curated gave no answer;\n"
      "3 the stream's beginning is gone; 64 usage; 65 something could not be decoded; 66 no such file or "
      "stream;\n"
      "69 NATS not reachable; 77 NATS refuses the login, the certificate or the request; 78 mistake in "
      "--config.");
  GlobalOptions globals;
  app.add_option("--runtime-dir", globals.runtime_dir, "runtime directory of the instance")
      ->capture_default_str();
  app.add_flag("--json", globals.json, "JSON, one object per line");
  int exit_code = kExitOk;
  add_control_commands(app, globals, exit_code);
  add_stream_commands(app, globals, exit_code);
  add_dump_command(app, globals, exit_code);
  add_decode_command(app, exit_code);
  // The global flags may stand behind the command as well.
  for (CLI::App* command : app.get_subcommands({})) command->fallthrough();
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
