#pragma once

#include <sys/un.h>

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "common/base/fd.h"

namespace arancini {

// Fills `address` with `path`; false when the path is too long for a unix socket.
bool unix_address(const std::string& path, sockaddr_un& address);

// Sends `text` with one descriptor (SCM_RIGHTS); false with errno when it did not leave whole. `flags` of
// sendmsg(2), beside MSG_NOSIGNAL.
bool send_with_fd(int channel, std::string_view text, int fd, int flags);

// One message of a SOCK_SEQPACKET socket, with the descriptor that came along, if any. Returns the size, or
// -1 with errno.
std::ptrdiff_t receive_with_fd(int channel, std::span<char> text, Fd& passed, int flags);

// What is said on ingestd's handover socket (Config::handover_path, SOCK_SEQPACKET): one request a
// connection.
inline constexpr std::string_view kHandoverSession = "session";           // with the session's descriptor
inline constexpr std::string_view kHandoverSessionTaken = "A";            // the answer: it is ours now
inline constexpr std::string_view kHandoverAskForListener = "listener?";  // a new supervisor adopts the shard
inline constexpr std::string_view kHandoverListener = "L";  // the answer, with the listener's descriptor

}  // namespace arancini
