#include <gtest/gtest.h>

#include <cstdlib>

#include "tests/publishd/sim.h"

// The drain in a world that goes wrong: exactly once and in order per subject after each history.
// SIM_HISTORIES=N runs more; SIM_SEED=S runs one.
namespace arancini::publishd::sim {
namespace {

struct Outcome {
  std::string wrong;
  std::uint64_t sessions = 0, crashes = 0, messages = 0, already_stored = 0;
};

struct Options {
  bool check_previous_id = true;
  bool check_sequence = true;
  bool barriers = true;
};

Outcome run_history(std::uint64_t seed, Options options = {}) {
  Random random(seed);
  Faults faults;
  if (random.chance(60)) faults.lose_connection = random.below(6);
  if (random.chance(30)) faults.drop_ack = random.below(5);
  if (random.chance(30)) faults.refuse = random.below(5);
  if (random.chance(30)) faults.drop_message = random.below(5);
  if (random.chance(30)) faults.session_fails = random.below(60);
  if (random.chance(30)) faults.server_restart = random.below(3);
  World world(random, faults);
  world.stream.check_previous_id = options.check_previous_id;
  world.stream.check_sequence = options.check_sequence;

  std::vector<std::unique_ptr<RingMemory>> rings;
  const std::uint32_t ring_count = 1 + random.below(3);
  const auto add_ring = [&] {
    auto r = std::make_unique<RingMemory>();
    r->shard = static_cast<std::uint32_t>(rings.size());
    r->writer.bytes[0] = static_cast<std::uint8_t>(rings.size() + 1);
    rings.push_back(std::move(r));
  };
  add_ring();

  Outcome out;
  std::uint64_t now = 1'000'000'000;
  std::uint32_t to_write = 20 + random.below(60);  // records
  const std::uint32_t lives = random.below(6);
  const std::uint32_t subjects = 1 + random.below(5);

  for (std::uint32_t life_number = 0; life_number <= lives; ++life_number) {
    const bool last_life = life_number == lives;
    Life life;
    if (!last_life) life.left = 1 + random.below(60);
    SimBroker broker(world, random, life);
    broker.max_message_bytes = random.chance(30) ? 4096 : 1 << 20;
    DrainOptions o;
    o.subject_prefix = "p";
    o.format = static_cast<PublishFormat>(random.below(3));
    o.batch_bytes = 1024 + random.below(8192);
    o.batch_count = 1 + random.below(40);
    o.in_flight.messages = 1 + random.below(12);
    o.ack_timeout_ns = 50'000'000;
    o.round_bytes = 500 + random.below(5000);
    Drain drain(o, broker, nullptr);
    std::size_t attached = 0;
    std::uint32_t stop_after = random.chance(15) && !last_life ? 20 + random.below(200) : 0;

    for (std::uint32_t round = 0; !life.dead() && !drain.stopped(); ++round) {
      if (!last_life && round > 2000) break;
      if (round > 20'000) {
        out.wrong = "wedged in phase " + std::string(to_string(drain.phase()));
        return out;
      }
      if (rings.size() < ring_count && random.chance(2)) add_ring();
      while (attached < rings.size() && (attached == 0 || random.chance(10))) {
        drain.add_ring(std::make_unique<SimSource>(*rings[attached], life), "ring");
        ++attached;
      }
      if (to_write > 0 && random.chance(40)) {
        RingMemory& r = *rings[random.below(static_cast<std::uint32_t>(rings.size()))];
        const std::uint32_t subject = random.below(subjects);
        if (random.chance(10)) {
          r.write(random.chance(20) ? RingMemory::kForAll : subject, 0);
          if (!options.barriers) r.spoil_barrier();
        } else {
          r.write(subject, 1 + random.below(30));
        }
        --to_write;
      }
      if (last_life && round > 300) world.calm();
      now += random.chance(5) ? 30'000'000 : 100'000 * random.below(20);
      drain.do_work(now);
      world.step();
      if (stop_after > 0 && round == stop_after) drain.stop(now);
      if (last_life && to_write == 0 && round > 400 && drain.phase() == Drain::Phase::Publishing &&
          std::all_of(rings.begin(), rings.end(), [](const auto& r) { return r->head == r->tail; })) {
        break;
      }
    }
    broker.die();
    out.sessions += drain.metric(PublishMetric::Recoveries);
    out.already_stored += drain.metric(PublishMetric::UpdatesAlreadyStored);
    out.messages += broker.sent;
    if (!last_life) ++out.crashes;
    if (random.chance(50)) world.step();
  }
  world.deliver_all();  // what was still under way must not be accepted
  out.wrong = check(world.stream, rings);
  if (out.wrong.empty()) {
    for (const auto& r : rings) {
      if (r->floor != shm::kNoFloor && r->floor > world.stream.last()) out.wrong = "floor above the stream";
    }
  }
  return out;
}

TEST(DrainSim, EachUpdateOnceAndInOrder) {
  if (const char* one = std::getenv("SIM_SEED")) {
    const Outcome o = run_history(std::strtoull(one, nullptr, 10));
    EXPECT_EQ(o.wrong, "");
    return;
  }
  const char* more = std::getenv("SIM_HISTORIES");
  const std::uint64_t histories = more != nullptr ? std::strtoull(more, nullptr, 10) : 3000;
  Outcome sum;
  for (std::uint64_t seed = 1; seed <= histories; ++seed) {
    const Outcome o = run_history(seed);
    ASSERT_EQ(o.wrong, "") << "SIM_SEED=" << seed;
    sum.sessions += o.sessions;
    sum.crashes += o.crashes;
    sum.messages += o.messages;
    sum.already_stored += o.already_stored;
  }
  // The histories must have been worth it.
  EXPECT_GT(sum.crashes, histories);
  EXPECT_GT(sum.sessions, sum.crashes);
  EXPECT_GT(sum.already_stored, histories);
  RecordProperty("messages", std::to_string(sum.messages));
  std::printf("%lu histories: %lu deaths, %lu sessions, %lu messages sent, %lu updates found stored\n",
              histories, sum.crashes, sum.sessions, sum.messages, sum.already_stored);
}

// The simulator finds what each safeguard is for.
std::uint64_t failures(Options options) {
  std::uint64_t n = 0;
  for (std::uint64_t seed = 1; seed <= 1500; ++seed) {
    const std::string wrong = run_history(seed, options).wrong;
    n += !wrong.empty() && !wrong.starts_with("wedged");
  }
  return n;
}

TEST(DrainSim, PredictedSequenceAloneDoesNotSuffice) {
  Options o;
  o.check_previous_id = false;
  EXPECT_GT(failures(o), 0U);
}

TEST(DrainSim, IdsAloneDoNotSuffice) {
  Options o;
  o.check_sequence = false;
  EXPECT_GT(failures(o), 0U);
}

TEST(DrainSim, OrderAcrossSubjectsNeedsBarriers) {
  Options o;
  o.barriers = false;
  EXPECT_GT(failures(o), 0U);
}

}  // namespace
}  // namespace arancini::publishd::sim
