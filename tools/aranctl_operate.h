#pragma once

#include "tools/aranctl.h"

namespace CLI {
class App;
}

namespace arancini::tools {

// Adds `restart`, `drain` and `reload`: what changes how the instance runs.
void add_operate_commands(CLI::App& app, const GlobalOptions& options, int& exit_code);

}  // namespace arancini::tools
