#pragma once

#include <string>

// The operator's tool: one file per group of commands, each adds its own to the command line.
namespace arancini::tools {

struct GlobalOptions {
  std::string runtime_dir = "/run/arancini";
  std::string control;                    // "HOST:PORT" of a curated elsewhere; empty: the unix socket
  std::string tls_ca, tls_cert, tls_key;  // PEM files, for that
  bool json = false;
};

// Exit codes, a contract with scripts; --help prints them. Above 63 they are those of sysexits.h.
inline constexpr int kExitOk = 0;
inline constexpr int kExitFound = 1;      // audit: a gap, duplicate or order violation; doctor: a problem
inline constexpr int kExitNoCurated = 2;  // curated gave no answer
inline constexpr int kExitIncomplete =
    3;  // the stream's beginning is gone (retention, purge), or updates are missing; also kStreamIncomplete
inline constexpr int kExitUsage = 64;
inline constexpr int kExitBadData = 65;      // something could not be decoded
inline constexpr int kExitNoInput = 66;      // no such file, no such stream
inline constexpr int kExitUnavailable = 69;  // NATS cannot be reached
inline constexpr int kExitSoftware = 70;
inline constexpr int kExitNoPermission = 77;  // NATS or curated refuses the login, certificate or request
inline constexpr int kExitConfig = 78;        // the configuration file has a mistake

}  // namespace arancini::tools
