#pragma once

#include "tools/aranctl.h"

namespace CLI {
class App;
}

namespace arancini::tools {

// tail, fold, audit: what reads the published stream itself, whichever instance wrote it. `exit_code` is set
// when one of them ran.
void add_stream_commands(CLI::App& app, const GlobalOptions& globals, int& exit_code);

}  // namespace arancini::tools
