#pragma once

#include "tools/aranctl.h"

namespace CLI {
class App;
}

namespace arancini::tools {

// All of aranctl's command line: what --help, the completions and the manual page are made of. `exit_code` is
// set by the command that runs.
void build_app(CLI::App& app, GlobalOptions& globals, int& exit_code);

}  // namespace arancini::tools
