#include "tools/aranctl_app.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <string_view>

#include "tools/aranctl_control.h"
#include "tools/aranctl_decode.h"
#include "tools/aranctl_doctor.h"
#include "tools/aranctl_dump.h"
#include "tools/aranctl_operate.h"
#include "tools/aranctl_stream.h"
#include "tools/aranctl_top.h"
#include "tools/cli_tree.h"
#include "tools/completion.h"
#include "tools/text_table.h"

namespace arancini::tools {

namespace {

constexpr std::size_t kColumns = 80;
constexpr std::size_t kTextColumn = 24;  // where the text of an option begins

struct ExitCode {
  int code;
  const char* meaning;
};
constexpr ExitCode kExitCodes[] = {
    {kExitOk, "all well"},
    {kExitFound, "audit found a gap, a duplicate or a wrong order; doctor found a problem"},
    {kExitNoCurated, "curated gave no answer"},
    {kExitIncomplete, "the stream's beginning is gone, not all is there, or not all was done"},
    {kExitUsage, "wrong usage: no such command, option, prefix or router"},
    {kExitBadData, "something could not be decoded"},
    {kExitNoInput, "no such file or stream"},
    {kExitUnavailable, "NATS cannot be reached"},
    {kExitSoftware, "a fault of aranctl itself"},
    {kExitNoPermission, "NATS or curated refuses the login, the certificate or the request"},
    {kExitConfig, "mistake in the configuration file"},
};

struct Example {
  std::string_view command;
  const char* line;
  const char* text;
};
constexpr Example kExamples[] = {
    {"status", "aranctl status", "processes, shards and NATS of the instance in /run/arancini"},
    {"routers", "aranctl routers --json | jq '.routers[] | select(.concern != \"none\")'",
     "routers that need somebody"},
    {"peers", "aranctl peers --router 192.0.2.1", "what one router reports"},
    {"lookup", "aranctl lookup 192.0.2.0/24 --longer", "the prefix and all that lie in it, of all routers"},
    {"snapshot", "aranctl snapshot", "before a planned restart of the machine"},
    {"top", "aranctl top --sort bytes -n 10", "the ten routers that send most"},
    {"restart", "aranctl restart --rolling", "after an upgrade: all processes, never two at a time"},
    {"drain", "aranctl drain --shard 1", "before its core is taken away; aranctl drain --undo reads again"},
    {"reload", "aranctl reload --check", "what a changed file would do"},
    {"version", "aranctl version", "after an upgrade: what still runs the former version"},
    {"tail", "aranctl tail --nats nats://127.0.0.1:4222 --count 10 --json", "the ten oldest updates"},
    {"fold", "aranctl fold --json > table.jsonl", "the routers' tables, as the stream tells them"},
    {"events", "aranctl events --follow", "sessions and peers as they come and go"},
    {"audit", "aranctl audit && echo whole", "whether anything is missing in the stream"},
    {"dump", "aranctl dump 192.0.2.1", "its table once more, for a consumer that begins now"},
    {"decode", "aranctl decode --explain payload.bin", "what a message holds"},
    {"doctor", "aranctl doctor --json | jq '.findings[] | select(.level != \"ok\")'",
     "what is not as it should be"},
    {"completion", "aranctl completion bash > ~/.local/share/bash-completion/completions/aranctl",
     "for one user, where no package installed it"},
};

std::string exit_codes_text() {
  std::string out = "Exit codes:\n";
  for (const ExitCode& e : kExitCodes) {
    const std::string code = std::to_string(e.code);
    out += "  " + std::string(2 - code.size(), ' ') + code + "  " + e.meaning + "\n";
  }
  return out;
}

// CLI11's help in lines of 80 columns.
class NarrowHelp final : public CLI::Formatter {
 public:
  std::string make_option(const CLI::Option* option, bool positional) const override {
    return entry(make_option_name(option, positional) + make_option_opts(option), make_option_desc(option));
  }
  std::string make_subcommand(const CLI::App* sub) const override {
    return entry(sub->get_display_name(true), sub->get_description());
  }
  std::string make_description(const CLI::App* app) const override {
    return wrapped(app->get_description(), 0, kColumns);
  }

 private:
  static std::string entry(const std::string& name, const std::string& text) {
    std::string left = "  " + name;
    std::string right = wrapped(text, kTextColumn, kColumns);
    if (left.size() + 2 <= kTextColumn && !right.empty()) return left + right.substr(left.size());
    return left + "\n" + right;
  }
};

void add_completion_command(CLI::App& app, int& exit_code) {
  CLI::App* const sub =
      app.add_subcommand("completion", "prints what makes a shell complete aranctl's commands and options");
  const auto shell = std::make_shared<std::string>();
  sub->add_option("shell", *shell, "whose script to print")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  sub->callback([&app, &exit_code, shell] {
    const auto tree = cli_tree(app);
    const std::string script = *shell == "bash"  ? bash_completion("aranctl", tree)
                               : *shell == "zsh" ? zsh_completion("aranctl", tree)
                                                 : fish_completion("aranctl", tree);
    std::fwrite(script.data(), 1, script.size(), stdout);
    exit_code = kExitOk;
  });
}

}  // namespace

void build_app(CLI::App& app, GlobalOptions& globals, int& exit_code) {
  app.name("aranctl");
  app.formatter(std::make_shared<NarrowHelp>());
  app.set_version_flag("--version", ARANCINI_VERSION, "prints the version of aranctl and ends");
  app.require_subcommand(1);
  app.add_option("--runtime-dir", globals.runtime_dir, "runtime directory of the instance")
      ->capture_default_str()
      ->type_name("DIR");
  app.add_option("--control", globals.control, "curated of another machine (its control.listen), with mTLS")
      ->type_name("HOST:PORT");
  app.add_option("--tls-ca", globals.tls_ca, "who signed its certificate (PEM)")->type_name("FILE");
  app.add_option("--tls-cert", globals.tls_cert, "the certificate to call with (PEM)")->type_name("FILE");
  app.add_option("--tls-key", globals.tls_key, "its key (PEM)")->type_name("FILE");
  app.add_flag("--json", globals.json, "JSON, one object per line");
  add_control_commands(app, globals, exit_code);
  add_top_commands(app, globals, exit_code);
  add_operate_commands(app, globals, exit_code);
  add_stream_commands(app, globals, exit_code);
  add_dump_command(app, globals, exit_code);
  add_decode_command(app, exit_code);
  add_doctor_command(app, globals, exit_code);
  add_completion_command(app, exit_code);
  // The global flags may stand behind the command as well.
  for (CLI::App* command : app.get_subcommands({})) {
    command->fallthrough();
    std::string footer;
    for (const Example& e : kExamples) {
      if (e.command != command->get_name()) continue;
      footer += (footer.empty() ? "Example:\n" : "") + ("  " + std::string(e.line)) + "\n" +
                wrapped(e.text, 6, kColumns);
    }
    command->footer(footer + "Global options and exit codes: aranctl --help");
  }
  app.footer(exit_codes_text() + "Options of a command: aranctl COMMAND --help. The manual: man aranctl");
}

}  // namespace arancini::tools
