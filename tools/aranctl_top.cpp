#include "tools/aranctl_top.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "common/base/clock.h"
#include "common/base/fd.h"
#include "tools/curated_client.h"
#include "tools/route_json.h"
#include "tools/text_table.h"
#include "tools/top_frame.h"

namespace arancini::tools {

namespace {

namespace pb = control::v1;

constexpr std::size_t kRowsWithoutTerminal = 20;

struct TopOptions {
  TopSort sort = TopSort::Updates;
  double interval_s = 1;
  std::uint64_t count = 0;  // frames; 0: until it is ended
  std::size_t rows = 0;     // 0: as many as the terminal has room for
};

// The exit code, and where it is not 0 why.
int take(const GlobalOptions& options, TopSample& sample, std::string& why) {
  const int code = try_curated(
      options, kCuratedPatience,
      [&](pb::Control::Stub& stub, grpc::ClientContext& context) {
        return stub.GetStatus(&context, pb::GetStatusRequest{}, &sample.status);
      },
      why);
  if (code != kExitOk) return code;
  const int routers = try_curated(
      options, kCuratedPatience,
      [&](pb::Control::Stub& stub, grpc::ClientContext& context) {
        return stub.ListRouters(&context, pb::ListRoutersRequest{}, &sample.routers);
      },
      why);
  sample.monotonic_ns = clock_ns(CLOCK_BOOTTIME);
  sample.realtime_ns = clock_ns(CLOCK_REALTIME);
  return routers;
}

// The whole screen and single keys, until the end; what is not a terminal stays as it is.
class Screen {
 public:
  Screen() {
    sigset_t signals;
    sigemptyset(&signals);
    for (const int s : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&signals, s);
    // Before gRPC starts its threads, which inherit it.
    ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    signals_ = Fd(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  }
  Screen(const Screen&) = delete;
  Screen& operator=(const Screen&) = delete;
  ~Screen() { close(); }

  void open() {
    if (::isatty(STDOUT_FILENO) == 0) return;
    drawn_ = true;
    put("\x1b[?1049h\x1b[?25l");
    if (::isatty(STDIN_FILENO) == 0 || ::tcgetattr(STDIN_FILENO, &before_) != 0) return;
    termios keys = before_;
    keys.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
    keys_ = ::tcsetattr(STDIN_FILENO, TCSANOW, &keys) == 0;
  }
  void close() {
    if (keys_) (void)::tcsetattr(STDIN_FILENO, TCSANOW, &before_);
    if (drawn_) put("\x1b[?25h\x1b[?1049l");
    keys_ = drawn_ = false;
  }

  // Rows of the terminal, 0 if it is none.
  [[nodiscard]] std::size_t rows() const {
    winsize size{};
    return drawn_ && ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 ? size.ws_row : 0;
  }

  // False when nobody reads.
  bool show(const std::string& text) {
    if (!drawn_) {
      // Frames for people are apart; objects are one a line.
      put(first_ || text.starts_with('{') ? text : "\n" + text);
      first_ = false;
      return std::ferror(stdout) == 0;
    }
    std::string out = "\x1b[H";
    for (const char c : text) out += c == '\n' ? std::string("\x1b[K\r\n") : std::string(1, c);
    put(out + "\x1b[J");
    return std::ferror(stdout) == 0;
  }

  // Until `deadline_ns` (CLOCK_BOOTTIME). True: a signal or q ends it.
  bool ended_before(std::uint64_t deadline_ns) {
    for (;;) {
      const std::uint64_t now = clock_ns(CLOCK_BOOTTIME);
      const int left = now >= deadline_ns ? 0 : static_cast<int>((deadline_ns - now) / 1'000'000U) + 1;
      pollfd fds[2] = {{signals_.get(), POLLIN, 0}, {keys_ ? STDIN_FILENO : -1, POLLIN, 0}};
      const int n = ::poll(fds, 2, left);
      if (n == 0) return false;
      if (n < 0 && errno != EINTR) return true;
      if (n > 0 && fds[0].revents != 0) return true;
      if (n > 0 && fds[1].revents != 0) {
        char key = 0;
        if (::read(STDIN_FILENO, &key, 1) != 1 || key == 'q' || key == 'Q') return true;
      }
    }
  }

 private:
  static void put(const std::string& text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  }
  Fd signals_;
  termios before_{};
  bool drawn_ = false, keys_ = false, first_ = true;
};

int top(const GlobalOptions& globals, const TopOptions& options) {
  const auto failed = [](int code, const std::string& why) {
    std::fprintf(stderr, "aranctl: %s\n", why.c_str());
    return code;
  };
  Screen screen;
  TopSample before;
  std::string why;
  if (const int code = take(globals, before, why); code != kExitOk) return failed(code, why);
  if (!globals.json) screen.open();
  const auto interval_ns = static_cast<std::uint64_t>(options.interval_s * 1e9);
  std::uint64_t next = before.monotonic_ns;
  std::string last;
  for (std::uint64_t frames = 0; options.count == 0 || frames < options.count; ++frames) {
    // After a slow answer the interval begins anew: no frames of no time.
    next = std::max(next + interval_ns, clock_ns(CLOCK_BOOTTIME) + interval_ns / 2);
    if (screen.ended_before(next)) return kExitOk;
    TopSample now;
    if (const int code = take(globals, now, why); code != kExitOk) {
      // Who looks at it waits for curated to come back.
      if (screen.rows() == 0) return failed(code, why);
      screen.show("no answer: " + why.substr(0, why.find('\n')) + "\n" + last);
      continue;
    }
    const TopFrame frame = top_frame(before, now, options.sort);
    const std::size_t around = frame.shards.size() + 8;  // lines that are not of routers
    const std::size_t height = screen.rows();
    const std::size_t rows = options.rows > 0  ? options.rows
                             : globals.json    ? frame.routers.size()
                             : height == 0     ? kRowsWithoutTerminal
                             : height > around ? height - around
                                               : 1;
    last = globals.json ? to_line(top_json(frame, rows)) + "\n" : top_text(frame, rows);
    if (!screen.show(last)) return kExitOk;
    before = std::move(now);
  }
  return kExitOk;
}

void version(const GlobalOptions& options, int& exit_code) {
  pb::Status answer;
  const bool answered =
      ask_curated(options, exit_code, pb::GetStatusRequest{}, answer, &pb::Control::Stub::GetStatus);
  const auto differs = [&](const pb::ProcessStatus& p) {
    const auto& named = answer.version_differs();
    return (!p.version().empty() && p.name() != "nats-server" && p.version() != ARANCINI_VERSION) ||
           std::find(named.begin(), named.end(), p.name()) != named.end();
  };
  if (options.json) {
    nlohmann::ordered_json out = {{"aranctl", ARANCINI_VERSION},
                                  {"processes", nlohmann::ordered_json::array()}};
    for (const auto& p : answer.processes()) {
      out["processes"].push_back(
          {{"name", p.name()}, {"pid", p.pid()}, {"version", p.version()}, {"differs", differs(p)}});
    }
    std::printf("%s\n", to_line(out).c_str());
    return;
  }
  TextTable table({{"PROGRAM", 14}, {"VERSION", 20}, {"UP", 7, true}, {"", 34}});
  table.add({"aranctl", ARANCINI_VERSION, "", ""});
  bool any = false;
  for (const auto& p : answer.processes()) {
    any = any || differs(p);
    table.add({p.name(), p.version().empty() ? "-" : p.version(),
               p.pid() > 0 ? short_duration(p.uptime_s()) : "-", differs(p) ? "* differs from aranctl" : ""});
  }
  table.print();
  if (answered && any) std::printf("* was started before an upgrade: aranctl restart --rolling\n");
}

}  // namespace

void add_top_commands(CLI::App& app, const GlobalOptions& options, int& exit_code) {
  CLI::App* const top_command =
      app.add_subcommand("top", "rates of shards and routers, live; q or Ctrl-C ends it");
  const auto wanted = std::make_shared<TopOptions>();
  static const std::map<std::string, TopSort> kSorts = {{"updates", TopSort::Updates},
                                                        {"bytes", TopSort::Bytes},
                                                        {"routes", TopSort::Routes},
                                                        {"malformed", TopSort::Malformed},
                                                        {"lag", TopSort::Lag}};
  const auto sort = std::make_shared<std::string>("updates");
  top_command->add_option("--sort", *sort, "what comes first; lag: who has been silent for longest")
      ->check(CLI::IsMember({"updates", "bytes", "routes", "malformed", "lag"}))
      ->capture_default_str();
  top_command->add_option("--interval", wanted->interval_s, "seconds between two frames")
      ->check(CLI::Range(0.1, 3600.0))
      ->capture_default_str();
  top_command->add_option("--count", wanted->count, "ends after that many frames")
      ->check(CLI::PositiveNumber);
  top_command
      ->add_option("-n,--rows", wanted->rows,
                   "routers that are shown (default: as many as the terminal has room for, else 20; "
                   "with --json all)")
      ->check(CLI::PositiveNumber);
  top_command->callback([&options, &exit_code, wanted, sort] {
    wanted->sort = kSorts.at(*sort);
    exit_code = top(options, *wanted);
  });
  app.add_subcommand("version", "versions of aranctl and of every process; marks those that differ")
      ->callback([&options, &exit_code] { version(options, exit_code); });
}

}  // namespace arancini::tools
