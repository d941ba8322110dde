#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "common/base/config.h"
#include "common/base/fd.h"

// The router's side of a BMP session, for the load and replay tools.
namespace arancini::tools {

// Connects with TCP_NODELAY and, where the kernel has it, cubic congestion control (BBR paces loopback).
// `source` binds the local address when not empty. Retries refused connections until `retry_s` is over.
// Throws std::runtime_error that says what, where and why.
Fd connect_router(const SocketAddress& to, const std::string& source, double retry_s);

// Sends everything; throws std::runtime_error when the collector closes.
void send_all(int fd, std::span<const std::byte> bytes);

// Whole BMP session bytes of a file. Throws std::runtime_error.
std::string read_file(const std::string& path);

// Keeps the session open for `seconds`, reading and dropping what the collector might send. False when it
// closed.
bool hold(int fd, double seconds);

}  // namespace arancini::tools
