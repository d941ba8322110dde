#pragma once

#include <string>

#include "common/base/fd.h"
#include "common/base/result.h"

namespace arancini {

// A directory that nobody but this user, root and this process' group can put names into: made (0750) if it
// is missing, opened, and looked at through the descriptor. Refused are a symbolic link, another owner, and
// write permission for others or for another group; links above the last component are fine. `flag` names
// the option that chose it, for the operator. Throws ConfigError.
Fd open_own_dir(const std::string& path, const char* flag);

// The same for the runtime directory, before the first file is made there.
void check_runtime_dir(const std::string& path);

// How others could put names into an opened directory, for the operator; empty: they cannot.
std::string open_to_others(const Fd& directory);

struct LockFileError {
  bool held = false;  // by process `pid`, 0 if that is not known
  int pid = 0;
  std::string text;  // else: one line for the operator
};

// `<directory>/<name>`, made if it is missing and locked until the descriptor is closed, our pid in it. Never
// follows a link, and nothing is written before the lock is ours. `path` is the directory's, for texts.
Result<Fd, LockFileError> lock_pid_file(const Fd& directory, const std::string& path, const char* name);

}  // namespace arancini
