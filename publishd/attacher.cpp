#include "publishd/attacher.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <string_view>

#include "common/base/log.h"

namespace arancini::publishd {

namespace {

constexpr std::chrono::milliseconds kPoll{100};

// "ring-7" and "ring-7.old-2" belong to ring-7; other files are none of ours.
std::optional<std::string> ring_of(std::string_view file) {
  constexpr std::string_view kPrefix = "ring-";
  if (!file.starts_with(kPrefix)) return std::nullopt;
  std::size_t at = kPrefix.size();
  while (at < file.size() && file[at] >= '0' && file[at] <= '9') ++at;
  const std::string_view rest = file.substr(at);
  if (at == kPrefix.size() || !(rest.empty() || rest.starts_with(".old-"))) return std::nullopt;
  return std::string(file.substr(0, at));
}

}  // namespace

Attacher::Attacher(std::string runtime_dir, std::uint32_t shards, Wake& wake, Logger& log)
    : runtime_dir_(std::move(runtime_dir)), wake_(wake), log_(log) {
  for (std::uint32_t k = 0; k < shards; ++k) {
    const std::string path = runtime_dir_ + "/ring-" + std::to_string(k);
    attaches_.emplace(path, RingAttach(path));
  }
  thread_ = std::thread([this] { run(); });
}

Attacher::~Attacher() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

std::optional<Attacher::Ring> Attacher::poll() {
  if (!any_.load(std::memory_order_acquire)) return std::nullopt;
  const std::lock_guard lock(mutex_);
  if (attached_.empty()) {
    any_.store(false, std::memory_order_relaxed);
    return std::nullopt;
  }
  Ring ring = std::move(attached_.back());
  attached_.pop_back();
  return ring;
}

void Attacher::give_back(const std::string& name, RingAttach::Reason reason) {
  {
    const std::lock_guard lock(mutex_);
    given_back_.emplace_back(name, reason);
  }
  changed_.notify_all();
}

void Attacher::discover() {
  std::error_code ec;
  for (std::filesystem::directory_iterator it(runtime_dir_, ec), end; !ec && it != end; it.increment(ec)) {
    if (const auto ring = ring_of(it->path().filename().string())) {
      const std::string path = runtime_dir_ + "/" + *ring;
      attaches_.try_emplace(path, path);
    }
  }
}

void Attacher::note_writers() {
  for (const auto& [path, attach] : attaches_) {
    std::vector<std::string> files = RingFile::moved_aside(path);
    files.push_back(path);
    for (const std::string& file : files) {
      if (const auto writer = RingFile::writer_of(file)) writers_.push_back(*writer);
    }
  }
}

// What an operator should know, once: not that a ring is not there yet, which is normal.
void Attacher::tell(const RingAttach& a) {
  std::string& told = told_[a.path()];
  if (a.text() == told || a.reason() == RingAttach::Reason::NotThere) return;
  told = a.text();
  switch (a.state()) {
    case RingAttach::State::Connected: log_.info("{}", a.text()); break;
    case RingAttach::State::Waiting: log_.warn("{}", a.text()); break;
    case RingAttach::State::Disconnected: log_.error("{}", a.text()); break;
  }
}

void Attacher::run() {
  for (;;) {
    std::vector<std::pair<std::string, RingAttach::Reason>> given_back;
    {
      std::unique_lock lock(mutex_);
      if (stop_) return;
      given_back.swap(given_back_);
    }
    for (const auto& [name, reason] : given_back) {
      if (const auto it = attaches_.find(name); it != attaches_.end()) {
        it->second.disconnect(reason);
        if (reason != RingAttach::Reason::Replaced) tell(it->second);
      }
    }
    discover();
    bool found = false;
    for (auto& [path, attach] : attaches_) {
      auto reader = attach.poll();
      tell(attach);
      if (!reader) continue;
      const std::lock_guard lock(mutex_);
      attached_.push_back({path, std::move(*reader)});
      any_.store(true, std::memory_order_release);  // pairs with poll()
      found = true;
    }
    if (!looked_.load(std::memory_order_relaxed)) {
      note_writers();
      looked_.store(true, std::memory_order_release);
      found = true;
    }
    if (found) wake_.bump();
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, kPoll, [&] { return stop_ || !given_back_.empty(); });
  }
}

}  // namespace arancini::publishd
