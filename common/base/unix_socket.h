#pragma once

#include <sys/un.h>

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/fd.h"

namespace arancini {

// Fills `address` with `path`; false when the path is too long for a unix socket.
bool unix_address(const std::string& path, sockaddr_un& address);

inline constexpr std::size_t kMostFdsInMessage = 253;  // SCM_MAX_FD

// Sends `bytes` (at least one) with descriptors (SCM_RIGHTS), kMostFdsInMessage at most; false with errno
// when it did not leave whole. `flags` of sendmsg(2), beside MSG_NOSIGNAL.
bool send_with_fds(int channel, std::span<const std::byte> bytes, std::span<const int> fds, int flags);
bool send_with_fd(int channel, std::string_view text, int fd, int flags);

// One message of a socket that keeps their bounds; the descriptors that came along are added to `passed`.
// Returns the size, 0 at the end, or -1 with errno: EMSGSIZE when it is longer than `bytes`, EMFILE when
// there were more descriptors than the limits allow.
std::ptrdiff_t receive_with_fds(int channel, std::span<std::byte> bytes, std::vector<Fd>& passed, int flags);
// With one descriptor, or none; if more came along, none is taken.
std::ptrdiff_t receive_with_fd(int channel, std::span<char> text, Fd& passed, int flags);

// What is said on ingestd's handover socket (Config::handover_path, SOCK_SEQPACKET): one request a
// connection.
inline constexpr std::string_view kHandoverSession = "session";           // with the session's descriptor
inline constexpr std::string_view kHandoverSessionTaken = "A";            // the answer: it is ours now
inline constexpr std::string_view kHandoverAskForListener = "listener?";  // a new supervisor adopts the shard
inline constexpr std::string_view kHandoverListener = "L";  // the answer, with the listener's descriptor

}  // namespace arancini
