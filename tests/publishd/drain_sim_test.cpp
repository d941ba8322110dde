#include <gtest/gtest.h>

#include <cstdlib>

#include "tests/publishd/sim.h"

// The drain in a world that goes wrong: exactly once and in order per subject after each history.
// SIM_HISTORIES=N runs more; SIM_SEED=S runs one.
namespace arancini::publishd::sim {
namespace {

struct Outcome {
  std::string wrong;
  std::uint64_t sessions = 0, crashes = 0, messages = 0, already_stored = 0, spilled = 0, power_cuts = 0,
                events = 0;
};

struct Options {
  bool check_previous_id = true;
  bool check_sequence = true;
  bool barriers = true;
  bool unique_ids = true;
  std::uint32_t replicas_chance = 30;  // percent of the histories
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
  if (random.chance(30)) faults.outage = random.below(3);
  if (random.chance(30)) faults.frozen = random.below(3);
  if (random.chance(30)) faults.stale = random.below(50);
  if (random.chance(10)) faults.purge = random.below(10);
  if (random.chance(10)) faults.replace = random.below(10);
  const bool journal = random.chance(70);
  const bool replicated = options.replicas_chance > 0 && random.chance(options.replicas_chance);
  const std::uint32_t power_cuts = journal && random.chance(30) ? 40 : 0;
  if (std::getenv("SIM_SEED") != nullptr) {
    std::printf(
        "lose %u drop_ack %u refuse %u drop_message %u session_fails %u restart %u outage %u frozen %u stale "
        "%u "
        "purge %u replace %u journal %d power %u\n",
        faults.lose_connection, faults.drop_ack, faults.refuse, faults.drop_message, faults.session_fails,
        faults.server_restart, faults.outage, faults.frozen, faults.stale, faults.purge, faults.replace,
        journal, power_cuts);
  }
  World world(random, faults);
  world.stream.check_previous_id = options.check_previous_id;
  world.stream.unique_ids = options.unique_ids;
  world.stream.check_sequence = options.check_sequence;

  std::vector<std::unique_ptr<RingMemory>> rings;
  std::vector<std::unique_ptr<DiskMemory>> disks;  // of the ring with the same index
  const std::uint32_t ring_count = 1 + random.below(3);
  const auto add_ring = [&](std::uint32_t shard, std::uint32_t generation) {
    auto r = std::make_unique<RingMemory>();
    r->shard = shard;
    r->generation = generation;
    r->writer.bytes[0] = static_cast<std::uint8_t>(rings.size() + 1);
    rings.push_back(std::move(r));
    disks.push_back(std::make_unique<DiskMemory>());
  };
  add_ring(0, 0);

  Outcome out;
  std::uint64_t now = 1'000'000'000;
  std::uint32_t to_write = 20 + random.below(60);  // records
  std::uint32_t shards = 1;
  const std::uint32_t lives = random.below(6);
  const std::uint32_t subjects = 1 + random.below(5);

  for (std::uint32_t life_number = 0; life_number <= lives; ++life_number) {
    const bool last_life = life_number == lives;
    Life life;
    if (!last_life) life.left = 1 + random.below(120);
    SimBroker broker(world, random, life);
    broker.max_message_bytes = random.chance(30) ? 4096 : 1 << 20;
    broker.replicated = replicated;
    DrainOptions o;
    o.subject_prefix = "p";
    o.format = static_cast<PublishFormat>(random.below(3));
    o.batch_bytes = 1024 + random.below(8192);
    o.batch_count = 1 + random.below(40);
    o.in_flight.messages = 1 + random.below(12);
    o.replicated_batch_bytes = o.batch_bytes + random.below(8192);
    o.id_nonce = options.unique_ids ? life_number + 1 : 0;
    o.ack_timeout_ns = 50'000'000;
    o.spill_after_ns = 1'000'000 + 1'000'000 * random.below(30);
    o.round_bytes = 500 + random.below(5000);
    o.ahead_bytes = 500 + random.below(20000);
    Drain drain(o, broker, nullptr);
    const auto source = [&](std::size_t i) -> std::unique_ptr<RecordSource> {
      RingMemory& r = *rings[i];
      auto ring = r.gone ? nullptr : std::make_unique<SimSource>(r, life);
      if (!journal) return ring;
      return std::make_unique<SpillSource>(
          std::move(ring), std::make_unique<SimStore>(*disks[i], random, life), r.writer, ShardId{r.shard});
    };
    for (std::size_t i = 0; i < rings.size(); ++i) {
      if (rings[i]->gone && disks[i]->begin < disks[i]->end) drain.add_ring(source(i), "left", true);
    }
    std::size_t attached = 0;  // of rings; those that are gone count
    std::uint32_t stop_after = random.chance(15) && !last_life ? 20 + random.below(200) : 0;

    for (std::uint32_t round = 0; !life.dead() && !drain.stopped(); ++round) {
      if (!last_life && round > 2000) break;
      if (round > 30'000) {
        out.wrong = "wedged in phase " + std::string(to_string(drain.phase()));
        return out;
      }
      if (shards < ring_count && random.chance(2)) add_ring(shards++, 0);
      while (attached < rings.size() && (rings[attached]->gone || attached == 0 || random.chance(10))) {
        if (!rings[attached]->gone) drain.add_ring(source(attached), "ring");
        ++attached;
      }
      if (to_write > 0 && random.chance(40)) {
        RingMemory& r = *rings[random.below(static_cast<std::uint32_t>(rings.size()))];
        const std::uint32_t subject = random.below(subjects);
        if (r.gone) {
          // Its shard writes to another ring now.
        } else if (random.chance(10)) {
          r.write(random.chance(20) ? RingMemory::kForAll : subject, 0);
          if (!options.barriers) r.spoil_barrier();
          --to_write;
        } else if (random.chance(10)) {
          r.write_event(subject);
          --to_write;
        } else {
          r.write(subject, 1 + random.below(30));
          --to_write;
        }
      }
      if (last_life && round > 300) {
        world.calm();
        for (const auto& d : disks) d->failing = false;
      }
      now += random.chance(5) ? 30'000'000 : 100'000 * random.below(20);
      drain.do_work(now);
      while (drain.poll_detached()) {
      }
      world.step();
      for (const auto& d : disks) d->step(random, life);
      if (stop_after > 0 && round == stop_after) drain.stop(now);
      if (random.below(2000) == 0 &&
          (out.wrong =
               check_log_marks(world.stream, rings, faults.stale == 0 ? &drain.log_end() : nullptr)) != "")
        return out;
      const auto done = [&] {
        for (std::size_t i = 0; i < rings.size(); ++i) {
          const DiskMemory& d = *disks[i];
          if (d.begin != d.end || !d.appended.empty()) return false;
          if (!rings[i]->gone && rings[i]->head != rings[i]->tail) return false;
        }
        return true;
      };
      if (last_life && to_write == 0 && round > 400 && drain.phase() == Drain::Phase::Publishing && done())
        break;
    }
    broker.die();
    if ((out.wrong = check_log_marks(world.stream, rings, nullptr)) != "") return out;
    out.sessions += drain.metric(PublishMetric::Recoveries);
    out.already_stored += drain.metric(PublishMetric::UpdatesAlreadyStored);
    out.messages += broker.sent;
    for (const auto& d : disks) out.spilled += d->records.size();
    if (!last_life) ++out.crashes;
    const bool power = !last_life && random.chance(power_cuts);
    for (const auto& d : disks) d->crash(random, power);
    if (power) {
      ++out.power_cuts;
      const std::size_t n = rings.size();
      for (std::size_t i = 0; i < n; ++i) {
        RingMemory& r = *rings[i];
        if (r.gone) continue;
        r.gone = true;
        r.lost_from = r.next_sequence;
        const std::uint64_t left = std::max(disks[i]->end, r.head);
        for (const RingMemory::Record& record : r.records) {
          if (record.begin < left) continue;
          r.lost_from = record.first;
          break;
        }
        add_ring(r.shard, r.generation + 1);
      }
    }
    if (random.chance(50)) world.step();
  }
  world.calm();
  world.deliver_all();  // what was still under way must not be accepted
  out.wrong = check(world.stream, rings);
  if (out.wrong.empty()) out.wrong = check_events(world, rings, faults.stale == 0);
  out.events = world.events.messages.size();
  if (out.wrong.empty()) {
    for (const auto& r : rings) {
      if (!r->gone && r->floor != shm::kNoFloor && r->floor_created == world.stream.created &&
          r->floor > world.stream.last())
        out.wrong = "floor above the stream";
      if (!r->gone && r->floor_created == world.stream.created &&
          r->log_identity / 1'000'000 != world.stream.created / 1'000'000)
        out.wrong = "mark of another log";
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
  const bool many = std::getenv("ARANCINI_LONG") != nullptr;
  const std::uint64_t histories = more != nullptr ? std::strtoull(more, nullptr, 10)
                                  : many          ? 200'000
                                                  : 40'000;
  Outcome sum;
  for (std::uint64_t seed = 1; seed <= histories; ++seed) {
    const Outcome o = run_history(seed);
    ASSERT_EQ(o.wrong, "") << "SIM_SEED=" << seed;
    sum.sessions += o.sessions;
    sum.crashes += o.crashes;
    sum.messages += o.messages;
    sum.already_stored += o.already_stored;
    sum.spilled += o.spilled;
    sum.power_cuts += o.power_cuts;
    sum.events += o.events;
  }
  // The histories must have been worth it.
  EXPECT_GT(sum.crashes, histories);
  EXPECT_GT(sum.sessions, sum.crashes);
  EXPECT_GT(sum.already_stored, histories);
  EXPECT_GT(sum.spilled, histories);
  EXPECT_GT(sum.events, histories);
  EXPECT_GT(sum.power_cuts, histories / 20);
  RecordProperty("messages", std::to_string(sum.messages));
  std::printf(
      "%lu histories: %lu deaths, %lu power cuts, %lu sessions, %lu messages sent, %lu updates found stored, "
      "%lu records "
      "by way of the disk\n",
      histories, sum.crashes, sum.power_cuts, sum.sessions, sum.messages, sum.already_stored, sum.spilled);
}

// The simulator finds what each safeguard is for, within so many histories.
bool finds_fault(Options options, std::uint64_t first_seed = 1) {
  if (std::getenv("SIM_HISTORIES") != nullptr)
    return true;  // a shorter run, or a sanitizer's: this needs the full one
  for (std::uint64_t seed = first_seed; seed < first_seed + 100'000; ++seed) {
    const std::string wrong = run_history(seed, options).wrong;
    if (!wrong.empty() && !wrong.starts_with("wedged")) {
      std::printf("found by history %lu: %s\n", seed, wrong.c_str());
      return true;
    }
  }
  return false;
}

TEST(DrainSim, PredictedSequenceAloneDoesNotSuffice) {
  Options o;
  o.check_previous_id = false;
  o.replicas_chance = 0;
  EXPECT_TRUE(finds_fault(o));
}

TEST(DrainSim, IdsThatOtherSessionsHaveDoNotSuffice) {
  Options o;
  o.unique_ids = false;
  o.replicas_chance = 0;
  EXPECT_TRUE(finds_fault(o, 65'000)) << "rare: the first 65,306 histories are without it";
}

TEST(DrainSim, IdsAloneDoNotSuffice) {
  Options o;
  o.check_sequence = false;
  EXPECT_TRUE(finds_fault(o));
}

TEST(DrainSim, OrderAcrossSubjectsNeedsBarriers) {
  Options o;
  o.barriers = false;
  EXPECT_TRUE(finds_fault(o));
}

}  // namespace
}  // namespace arancini::publishd::sim
