#pragma once

#include <string>
#include <vector>

#include "tools/cli_tree.h"

// Completion scripts for shells: commands, options, known values, files and directories.
namespace arancini::tools {

// They need nothing but the shell. `tree` is cli_tree() of `program`.
std::string bash_completion(const std::string& program, const std::vector<CliCommand>& tree);
std::string zsh_completion(const std::string& program, const std::vector<CliCommand>& tree);
std::string fish_completion(const std::string& program, const std::vector<CliCommand>& tree);

}  // namespace arancini::tools
