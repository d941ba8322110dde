#pragma once

#include "tools/aranctl.h"

namespace CLI {
class App;
}

namespace arancini::tools {

// Adds `top` and `version`.
void add_top_commands(CLI::App& app, const GlobalOptions& options, int& exit_code);

}  // namespace arancini::tools
