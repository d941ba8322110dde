#include "ingestd/io_backend.h"

namespace arancini::ingestd {

std::unique_ptr<IoBackend> make_io_backend(const IoOptions& options, IoHandler& handler, std::string& note) {
  note.clear();
  switch (options.kind) {
    case IoBackendKind::Uring: return make_uring_backend(options, handler, note);
    case IoBackendKind::Epoll: return make_epoll_backend(options, handler, note);
    case IoBackendKind::Auto: break;
  }
  if (auto backend = make_uring_backend(options, handler, note)) return backend;
  const std::string reason = note;
  auto backend = make_epoll_backend(options, handler, note);
  if (backend) {
    note = "io_uring is not available (" + reason + "), using epoll";
  } else {
    note = reason + "; " + note;
  }
  return backend;
}

}  // namespace arancini::ingestd
