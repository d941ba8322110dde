#pragma once

#include "tools/aranctl.h"

namespace CLI {
class App;
}

namespace arancini::tools {

// dump: has tables published again (curated), and says where in the stream a consumer begins (the events).
void add_dump_command(CLI::App& app, const GlobalOptions& globals, int& exit_code);

}  // namespace arancini::tools
