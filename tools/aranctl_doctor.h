#pragma once

#include "tools/aranctl.h"

namespace CLI {
class App;
}

namespace arancini::tools {

// Adds `doctor`: is this host as a collector needs it, and is what is configured there?
void add_doctor_command(CLI::App& app, const GlobalOptions& globals, int& exit_code);

}  // namespace arancini::tools
