#include "tools/completion.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/base/joined.h"

namespace arancini::tools {

namespace {

// 'it'\''s', for bash and zsh.
std::string quoted(const std::string& text) {
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

std::string fish_quoted(const std::string& text) {
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'' || c == '\\') out += '\\';
    out += c;
  }
  return out + "'";
}

// The first sentence: what fits beside a name.
std::string brief(const std::string& help) {
  const auto end = std::min(help.find(';'), help.find(" ("));
  return help.substr(0, end);
}

std::string function_of(const std::string& program) {
  std::string out = fmt::format("_{}", program);
  std::replace(out.begin(), out.end(), '-', '_');
  return out;
}

// What follows an option, in the words of the bash script.
std::string bash_values(const CliOption& option) {
  if (!option.choices.empty()) return "words " + joined(option.choices, " ");
  if (option.value == "FILE") return "files";
  if (option.value == "DIR") return "folders";
  return "nothing";
}

// Of an option of _arguments, or of a positional.
std::string zsh_values(const CliOption& option) {
  std::string name = option.names.empty() ? option.positional : option.value;
  if (!option.choices.empty()) return fmt::format(":{}:({})", name, joined(option.choices, " "));
  if (option.value == "FILE") return fmt::format(":{}:_files", name);
  if (option.value == "DIR") return fmt::format(":{}:_files -/", name);
  return fmt::format(":{}:", name);
}

std::string zsh_escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '[' || c == ']' || c == ':' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

std::vector<std::string> zsh_arguments(const CliCommand& command) {
  std::vector<std::string> out;
  for (const CliOption& option : command.options) {
    for (const std::string& name : option.names) {
      out.push_back(quoted(name + "[" + zsh_escaped(brief(option.help)) + "]" +
                           (option.takes_value ? zsh_values(option) : "")));
    }
    if (option.names.empty()) out.push_back(quoted(fmt::format(":{}", zsh_values(option))));
  }
  return out;
}

}  // namespace

std::string bash_completion(const std::string& program, const std::vector<CliCommand>& tree) {
  const std::string function = function_of(program);
  std::string values;
  std::string below;
  std::string words;
  for (const CliCommand& command : tree) {
    const std::string path = joined(command.path, "/");
    std::vector<std::string> names;
    for (const CliOption& option : command.options) {
      names.insert(names.end(), option.names.begin(), option.names.end());
      if (!option.takes_value) continue;
      if (option.names.empty()) {
        values += fmt::format("    {}:) {}_reply=({}) ;;\n", path, function, bash_values(option));
      } else {
        // What the program itself takes may stand behind the command as well.
        const std::string where = path.empty() ? "*" : path;
        std::vector<std::string> patterns;
        for (const std::string& name : option.names) patterns.push_back(fmt::format("{}:{}", where, name));
        values +=
            fmt::format("    {}) {}_reply=({}) ;;\n", joined(patterns, "|"), function, bash_values(option));
      }
    }
    for (const std::string& sub : command.commands)
      below += fmt::format("    '{}:{}') return 0 ;;\n", path, sub);
    names.insert(names.end(), command.commands.begin(), command.commands.end());
    words += fmt::format("    '{}') words='{}' ;;\n", path, joined(names, " "));
  }
  std::vector<std::string> global;
  for (const CliOption& option : tree.front().options)
    global.insert(global.end(), option.names.begin(), option.names.end());
  return "# bash completion for " + program + ", made by: " + program + " completion bash\n" +
         "# What follows option $2 of command $1, or stands at the place of its argument: nothing, words "
         "W..., files,\n"
         "# folders.\n" +
         function + "_values() {\n  case \"$1:$2\" in\n" + values + "    *) return 1 ;;\n  esac\n}\n\n" +
         "# Whether $2 is a command below $1.\n" + function + "_is_command() {\n  case \"$1:$2\" in\n" +
         below + "    *) return 1 ;;\n  esac\n}\n\n" + function + "() {\n" +
         "  local cur=${COMP_WORDS[COMP_CWORD]} command= word option= words i\n"
         "  local -a " +
         function +
         "_reply\n"
         "  COMPREPLY=()\n"
         "  for ((i = 1; i < COMP_CWORD; i++)); do\n"
         "    word=${COMP_WORDS[i]}\n"
         "    [ \"$word\" != = ] || continue\n"
         "    if [ -n \"$option\" ]; then option=; continue; fi\n"
         "    case $word in\n"
         "      -*) if " +
         function +
         "_values \"$command\" \"$word\"; then option=$word; fi ;;\n"
         "      *) if " +
         function +
         "_is_command \"$command\" \"$word\"; then command=${command:+$command/}$word; fi ;;\n"
         "    esac\n"
         "  done\n"
         "  [ \"$cur\" != = ] || cur=\n" +
         "  " + function +
         "_reply=()\n"
         "  if [ -n \"$option\" ]; then\n"
         "    " +
         function +
         "_values \"$command\" \"$option\"\n"
         "  elif [[ $cur != -* ]]; then\n"
         "    " +
         function +
         "_values \"$command\" ''\n"
         "  fi\n"
         "  case ${" +
         function +
         "_reply[0]-} in\n"
         "    words) COMPREPLY=($(compgen -W \"${" +
         function +
         "_reply[*]:1}\" -- \"$cur\")); return ;;\n"
         "    files) COMPREPLY=($(compgen -f -- \"$cur\")); compopt -o filenames 2>/dev/null; return ;;\n"
         "    folders) COMPREPLY=($(compgen -d -- \"$cur\")); compopt -o filenames 2>/dev/null; return ;;\n"
         "  esac\n"
         "  [ -z \"$option\" ] || return\n"
         "  case $command in\n" +
         words +
         "  esac\n"
         "  [ -z \"$command\" ] || words+=' " +
         joined(global, " ") +
         "'\n"
         "  [[ $cur == -* ]] || words=$(for word in $words; do [[ $word == -* ]] || echo \"$word\"; done)\n"
         "  COMPREPLY=($(compgen -W \"$words\" -- \"$cur\" | sort -u))\n"
         "}\n"
         "complete -F " +
         function + " " + program + "\n";
}

std::string zsh_completion(const std::string& program, const std::vector<CliCommand>& tree) {
  const std::string function = function_of(program);
  std::string cases;
  for (const CliCommand& command : tree) {
    if (command.path.empty()) continue;
    std::string arguments;
    for (const std::string& a : zsh_arguments(command)) arguments += " \\\n        " + a;
    cases += "    " + joined(command.path, "/") + ")\n      _arguments $globals" + arguments + " ;;\n";
  }
  std::string descriptions;
  for (const CliCommand& command : tree) {
    if (command.path.size() != 1) continue;
    descriptions += "    " + quoted(command.path[0] + ":" + brief(command.help)) + "\n";
  }
  std::string globals;
  for (const std::string& a : zsh_arguments(tree.front())) globals += "    " + a + "\n";
  return "#compdef " + program + "\n# Made by: " + program + " completion zsh\n" + function +
         "() {\n  local context state state_descr line\n  typeset -A opt_args\n  local -a globals commands\n "
         " globals=(\n" +
         globals + "  )\n  commands=(\n" + descriptions +
         "  )\n  _arguments -C $globals '1:command:->command' '*::argument:->argument'\n"
         "  if [[ $state == command ]]; then\n    _describe command commands\n    return\n  fi\n"
         "  [[ $state == argument ]] || return\n"
         "  case $words[1] in\n" +
         cases + "  esac\n}\n\nif [[ $funcstack[1] == " + function + " ]]; then\n  " + function +
         " \"$@\"\nelse\n  compdef " + function + " " + program + "\nfi\n";
}

std::string fish_completion(const std::string& program, const std::vector<CliCommand>& tree) {
  std::string out = "# Made by: " + program + " completion fish\ncomplete -c " + program + " -f\n";
  const std::string all = joined(tree.front().commands, " ");
  for (const CliCommand& command : tree) {
    std::string where;
    if (command.path.size() == 1) {
      where = " -n " + fish_quoted("__fish_seen_subcommand_from " + command.path[0]);
      out += fmt::format("complete -c {} -n {} -a {} -d {}\n", program,
                         fish_quoted("not __fish_seen_subcommand_from " + all), command.path[0],
                         fish_quoted(brief(command.help)));
    } else if (command.path.size() > 1) {
      where = fmt::format(" -n '__fish_seen_subcommand_from {}; and __fish_seen_subcommand_from {}'",
                          command.path[0], command.path.back());
    }
    if (!command.path.empty()) {
      for (const std::string& sub : command.commands)
        out += fmt::format("complete -c {}{} -a {}\n", program, where, sub);
    }
    for (const CliOption& option : command.options) {
      std::string line = fmt::format("complete -c {}{}", program, where);
      for (const std::string& name : option.names)
        line += name.starts_with("--") ? fmt::format(" -l {}", name.substr(2))
                                       : fmt::format(" -s {}", name.substr(1));
      if (option.takes_value && !option.names.empty()) line += " -r";
      if (!option.choices.empty()) {
        line += fmt::format(" -a {}", fish_quoted(joined(option.choices, " ")));
      } else if (option.value == "FILE") {
        line += " -F";
      } else if (option.value == "DIR") {
        line += " -a '(__fish_complete_directories)'";
      } else if (option.names.empty()) {
        continue;
      }
      out += line + " -d " + fish_quoted(brief(option.help)) + "\n";
    }
  }
  return out;
}

}  // namespace arancini::tools
