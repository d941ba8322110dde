#include "tools/cli_tree.h"

#include <CLI/CLI.hpp>
#include <sstream>

namespace arancini::tools {

namespace {

// CLI::IsMember shows itself as "{a,b,c}" in the name of the type.
std::vector<std::string> choices_of(const std::string& type) {
  std::vector<std::string> out;
  const auto open = type.find('{');
  const auto close = type.find('}', open);
  if (open == std::string::npos || close == std::string::npos) return out;
  std::istringstream list(type.substr(open + 1, close - open - 1));
  for (std::string one; std::getline(list, one, ',');) out.push_back(one);
  return out;
}

CliOption described(const CLI::Option& option) {
  CliOption out;
  for (const std::string& name : option.get_snames()) out.names.push_back("-" + name);
  for (const std::string& name : option.get_lnames()) out.names.push_back("--" + name);
  if (out.names.empty()) out.positional = option.get_name(true, false);
  out.help = option.get_description();
  out.takes_value = option.get_items_expected_max() > 0;
  const std::string type = option.get_type_name();
  out.value = type.substr(0, type.find(':'));
  out.choices = choices_of(type);
  return out;
}

void add(const CLI::App& app, const std::vector<std::string>& path, std::vector<CliCommand>& out) {
  CliCommand command;
  command.path = path;
  command.help = app.get_description();
  for (const CLI::Option* option :
       app.get_options([](const CLI::Option* o) { return !o->get_group().empty(); }))
    command.options.push_back(described(*option));
  const auto below = app.get_subcommands([](const CLI::App* sub) { return !sub->get_group().empty(); });
  for (const CLI::App* sub : below) command.commands.push_back(sub->get_name());
  out.push_back(std::move(command));
  for (const CLI::App* sub : below) {
    std::vector<std::string> its = path;
    its.push_back(sub->get_name());
    add(*sub, its, out);
  }
}

}  // namespace

std::vector<CliCommand> cli_tree(const CLI::App& app) {
  std::vector<CliCommand> out;
  add(app, {}, out);
  return out;
}

}  // namespace arancini::tools
