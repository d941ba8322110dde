#pragma once

#include "tools/aranctl.h"

namespace CLI {
class App;
}

namespace arancini::tools {

// decode: a file of published payload or of BMP bytes, one JSON object per line.
void add_decode_command(CLI::App& app, int& exit_code);

}  // namespace arancini::tools
