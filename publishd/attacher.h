#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "common/ring/ring_attach.h"
#include "publishd/wake.h"

namespace arancini {
class Logger;
}

namespace arancini::publishd {

// Finds rings and attaches to them, in a thread of its own: opening and mapping must not delay the hot
// thread. Looks for the rings of all configured shards and for any other ring in the runtime directory: a
// shard that is no longer configured may have left records.
class Attacher {
 public:
  // `log` is written to by the thread only.
  Attacher(std::string runtime_dir, std::uint32_t shards, Wake& wake, Logger& log);
  ~Attacher();

  struct Ring {
    std::string name;  // the ring's path, for give_back()
    RingReader reader;
  };
  // A ring that was attached since the last call. Costs one load when there is none.
  std::optional<Ring> poll();
  // Every ring that is there was looked at once: what can be attached to is, or was given to poll().
  [[nodiscard]] bool looked() const { return looked_.load(std::memory_order_acquire); }
  // Once looked(): the writers of all ring files that were there then, attached or not.
  [[nodiscard]] const std::vector<WriterId>& writers_at_start() const { return writers_; }
  // The reader of that ring is destroyed; it may be attached to anew.
  void give_back(const std::string& name, RingAttach::Reason reason);

 private:
  void run();
  void discover();
  void tell(const RingAttach& attach);
  void note_writers();

  std::string runtime_dir_;
  Wake& wake_;
  Logger& log_;
  std::map<std::string, RingAttach> attaches_;  // by path; the thread's
  std::map<std::string, std::string> told_;     // what was logged last of each

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Ring> attached_;                                          // under mutex_
  std::vector<std::pair<std::string, RingAttach::Reason>> given_back_;  // under mutex_
  std::atomic<bool> any_{false};     // release with attached_, acquire by poll()
  std::vector<WriterId> writers_;    // written before looked_
  std::atomic<bool> looked_{false};  // release by the thread, acquire by looked()
  bool stop_ = false;                // under mutex_
  std::thread thread_;
};

}  // namespace arancini::publishd
