#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "common/base/fd.h"
#include "common/base/result.h"

// How state and sockets get from one ingestd to the next (docs/decisions/0014-restart-without-drops.md): as
// one descriptor that whoever manages the process holds meanwhile, by the protocol of systemd's file
// descriptor store. The descriptor is the receiving end of a SOCK_SEQPACKET pair, whose other end has said
// everything: a header with a sealed memfd that holds the state, then the sockets in their order, and is
// closed.
namespace arancini::ingestd {

inline constexpr const char* kRestartFdName = "handover";  // FDNAME

struct RestartParcel {
  std::vector<std::byte> state;
  std::vector<Fd> sockets;
};

// `sockets` are borrowed; the parcel holds them as well. The error is one line.
[[nodiscard]] Result<Fd, std::string> pack_restart(std::span<const std::byte> state,
                                                   std::span<const Fd> sockets);
// What is in the descriptor, which comes from outside: everything is checked but the state itself.
[[nodiscard]] Result<RestartParcel, std::string> unpack_restart(const Fd& parcel);

// Somebody listens on NOTIFY_SOCKET, who may keep a descriptor. Asks the kernel.
[[nodiscard]] bool has_manager();
// Hands the descriptor to the manager and waits until it has it, at most so long. The error is one line.
[[nodiscard]] std::string store_restart(const Fd& parcel, std::uint64_t timeout_ns);
// The manager need not keep it any longer: it was taken.
void forget_restart();

}  // namespace arancini::ingestd
