#pragma once

#include <string>
#include <vector>

namespace CLI {
class App;
}

// A command line as plain data, for what is generated from it.
namespace arancini::tools {

struct CliOption {
  std::vector<std::string> names;  // "-n", "--count"; empty: a positional
  std::string positional;          // "prefix"
  std::string help;
  bool takes_value = false;
  std::string value;                 // what a value is called: "TEXT", "FILE", "DIR"
  std::vector<std::string> choices;  // the values that it takes, if they are few and known
};

struct CliCommand {
  std::vector<std::string> path;  // {"policy", "show"}; empty: the program itself
  std::string help;
  std::vector<CliOption> options;     // its own, and --help
  std::vector<std::string> commands;  // names of those below it
};

// The program first, then all commands in the order in which they were added, each before those below it.
std::vector<CliCommand> cli_tree(const CLI::App& app);

}  // namespace arancini::tools
