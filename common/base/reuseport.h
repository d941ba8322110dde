#pragma once

#include <cstdint>
#include <string>

#include "common/base/config.h"
#include "common/base/fd.h"
#include "common/base/result.h"

// The listening sockets of the shards: one SO_REUSEPORT group, in which the kernel picks the socket by the
// same function as owner_of() (types.h), so that a router nearly always lands on its shard.
namespace arancini {

// A non-blocking, close-on-exec TCP listener of the group at `address`; port 0 lets the kernel choose.
// `rcvbuf_bytes` 0 leaves the kernel's default. Sessions inherit TCP_NODELAY and the receive buffer. An IPv6
// wildcard takes IPv4 too. The error is one line for the operator.
Result<Fd, std::string> make_bmp_listener(const SocketAddress& address, std::uint32_t backlog,
                                          std::uint32_t rcvbuf_bytes);

// Lets the group of `listener_fd` choose the socket with index owner_of(source address, shard_count). The
// index counts the sockets in the order in which they began to listen; one socket's program holds for the
// whole group. False (errno says why) where the kernel refuses: then the spread is the kernel's hash and
// misplaced sessions are passed on.
bool attach_owner_program(int listener_fd, std::uint32_t shard_count);

}  // namespace arancini
