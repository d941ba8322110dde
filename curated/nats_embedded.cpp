#include "curated/nats_embedded.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>

#include "common/base/socket_address.h"

namespace arancini::curated {

namespace {

namespace fs = std::filesystem;

// Below the range from which kernels take the ports of outgoing connections (ip_local_port_range, 32768 and
// up): the port must be free again whenever the server is restarted.
constexpr std::uint32_t kFirstPort = 20000;
constexpr std::uint32_t kPorts = 12000;

std::string find_nats_server() {
  const char* path = std::getenv("PATH");
  std::istringstream list(std::string(path != nullptr ? path : "") + ":/usr/local/sbin:/usr/sbin:/sbin");
  std::string folder;
  while (std::getline(list, folder, ':')) {
    std::string program = folder + "/nats-server";
    if (folder.starts_with('/') && ::access(program.c_str(), X_OK) == 0) return program;
  }
  return "";
}

KernelAddress loopback(std::uint32_t port) {
  return *kernel_address({"127.0.0.1", static_cast<std::uint16_t>(port)});
}

bool port_is_free(std::uint32_t port) {
  const Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int one = 1;
  const KernelAddress a = loopback(port);
  return fd && ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0 &&
         ::bind(fd.get(), a.get(), a.size) == 0;
}

// First line of a small file of ours, empty if there is none.
std::string first_line(const fs::path& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

std::uint32_t to_number(const std::string& text) {
  std::uint32_t n = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
  return error == std::errc{} && end == text.data() + text.size() ? n : 0;
}

// By rename, so that a crash leaves the old file or the new one.
bool write_file(const fs::path& path, const std::string& text) {
  const fs::path temporary = path.string() + ".new";
  {
    std::ofstream out(temporary, std::ios::trunc);
    out << text;
    out.flush();
    if (!out) return false;
  }
  std::error_code error;
  fs::rename(temporary, path, error);
  return !error;
}

// The server that was started with this configuration file, if it still runs.
std::optional<int> running_server(const fs::path& pid_file, const std::string& config_file) {
  const int pid = static_cast<int>(to_number(first_line(pid_file)));
  if (pid <= 1) return std::nullopt;
  std::ifstream in(fmt::format("/proc/{}/cmdline", pid), std::ios::binary);
  std::ostringstream whole;
  whole << in.rdbuf();
  const std::string command = whole.str();
  const bool ours = command.find("nats-server") != std::string::npos &&
                    command.find(std::string(1, '\0') + config_file + '\0') != std::string::npos;
  return ours ? std::optional(pid) : std::nullopt;
}

// In quotes as the server's configuration language wants it.
std::string nats_string(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + '"';
}

}  // namespace

bool nats_answers(std::uint16_t port) {
  const Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const KernelAddress a = loopback(port);
  return fd && ::connect(fd.get(), a.get(), a.size) == 0;
}

Result<EmbeddedNats, std::string> prepare_embedded_nats(const std::string& state_dir) {
  EmbeddedNats out;
  const std::string program = find_nats_server();
  if (program.empty()) {
    return Err{std::string(
        "nats = \"embedded\" needs the program nats-server: apt-get install nats-server, or name the URL of "
        "your own server")};
  }
  std::error_code error;
  const fs::path folder = fs::absolute(state_dir, error) / "nats";
  fs::create_directories(folder / "store", error);
  if (error) return Err{fmt::format("{}: cannot be made: {}", folder.string(), error.message())};
  ::chmod(folder.c_str(), 0750);

  const std::string config_file = (folder / "nats-server.conf").string();
  const fs::path pid_file = folder / "nats-server.pid";
  const fs::path port_file = folder / "port";
  out.log_file = (folder / "nats-server.log").string();
  out.pid = running_server(pid_file, config_file);

  std::uint32_t port = to_number(first_line(port_file));
  if (port > 65535) port = 0;
  if (port != 0 && !out.pid && !port_is_free(port)) {
    out.note = fmt::format(
        "port {} of the embedded NATS is taken by another program; another one is used from now on", port);
    port = 0;
  }
  // Instances start their search at different places, so that two that start at once do not choose the same
  // port.
  const auto start = static_cast<std::uint32_t>(std::hash<std::string>{}(folder.string()) % kPorts);
  for (std::uint32_t i = 0; port == 0 && i < kPorts; ++i) {
    const std::uint32_t candidate = kFirstPort + (start + i) % kPorts;
    if (port_is_free(candidate)) port = candidate;
  }
  if (port == 0) return Err{std::string("no free port on 127.0.0.1 for the embedded NATS")};

  const std::string text = fmt::format(
      "# Written by curated at each start; changes are lost. For a server of your own set nats.url.\n"
      "listen: 127.0.0.1:{}\n"
      "server_name: arancini-embedded\n"
      "pid_file: {}\n"
      "log_file: {}\n"
      "logfile_size_limit: 16777216\n"
      "jetstream {{\n"
      "  store_dir: {}\n"
      "}}\n",
      port, nats_string(pid_file.string()), nats_string(out.log_file),
      nats_string((folder / "store").string()));
  if (!write_file(port_file, fmt::format("{}\n", port)) || (!out.pid && !write_file(config_file, text))) {
    return Err{fmt::format("{}: cannot be written: {}", folder.string(), std::strerror(errno))};
  }
  out.port = static_cast<std::uint16_t>(port);
  out.url = fmt::format("nats://127.0.0.1:{}", port);
  out.child.name = "nats-server";
  out.child.argv = {program, "-c", config_file};
  return out;
}

}  // namespace arancini::curated
