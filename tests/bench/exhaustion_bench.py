#!/usr/bin/env python3
"""What degrades when something is at its limit, and that nothing else does.

METHOD. In each scenario a small router, the canary, sends single-prefix UPDATEs on a fixed schedule and latency_probe says when each
was in its shard's ring (from the scheduled time, as in latency_bench.py; it looks every 100 us): before, during and after the trouble,
--seconds each. What must not degrade: its latency and its rate. Real ingestds and bmpgens; ring_drain empties rings where the
scenario is not about the publisher. Shard 0 and the generator of its load run on the first core, shard 1 with the canary on the
second, so that what is shared between shards is seen and not what is shared between programs on a core. ingestds, drains and the
probe run before all ordinary programs where that is permitted (SCHED_FIFO).

ring_full    two shards; shard 0's consumer is stopped (SIGSTOP) while a router dumps 1M routes into it. Its ring fills, its router is
             made to wait by TCP, ingestd@0 keeps no more than the ring holds. Canary: on shard 1.
             Then the consumer goes on: all the routes must come, none twice.
max_routes   one shard, bmp.max_routes_per_router = 100,000; a router dumps 1M routes. It must have exactly 100,000, the others are
             skipped and counted. Canary: another router of the same shard. A busy shard answers later than an idle one, limit or not, so
             the ratio is to the same dump without a limit, which is measured next.
memory       two shards; the process of shard 0 may not have more memory (RLIMIT_AS: what it has and 48 MiB) when a router dumps 3M
             routes into it. The daemon must live and its sessions stay; whoever needs memory waits (TCP). Then it may have more:
             all must come. Canary: on shard 1.
imbalance    two shards; a router on shard 0 sends churn as fast as it is taken, the canary on shard 1 a ninth of that
             rate, so 90 % of all load are on one shard. A second small router is on the busy shard.
broker_disk  the whole pipeline (two shards), state on a disk of 96 MiB (needs root to mount it). The broker is killed while two routers
             send churn: the journal fills, the disk fills, the rings fill, the routers wait. Then it comes back: all is acked, and
             an audit of the stream finds no gap and no duplicate. No canary: without a broker nothing can be published; what must go
             on is everything else: sessions, memory, curated's answers.

A ratio is p99 during / before but for max_routes. Latency on a shared machine is noise: --repeat, and compare "before" of the scenarios."""
import json
import os
import re
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import processes as p

PHASES = ["before", "during", "after"]


class Canary:
    """latency_probe with a rate, phase by phase."""

    def __init__(self, args, d, source, rate, cores, folder):
        self.args, self.rate = args, rate
        path = os.path.join(folder, "canary")
        common = [p.binary(args.build, "bmpgen"), "--peers", "1", "--prefixes", "2000", "--seed", "7", "--out", path]
        out = subprocess.run(common, check=True, capture_output=True, text=True).stdout
        updates, size = int(re.search(r"(\d+) updates", out)[1]), os.path.getsize(path)
        count = int(rate * args.seconds * len(PHASES)) + 1
        subprocess.run([*common, "--churn", str(count)], check=True, capture_output=True)
        command = [p.binary(args.build, "latency_probe"), "--to", d.bmp, "--source", source, "--file", path, "--dump-bytes", str(size),
                   "--dump-updates", str(updates), "--ring", d.ring_path, "--sleep-us", "100", "--seconds", str(args.seconds), "--messages",
                   str(count), "--step"]
        for _ in PHASES:
            command += ["--rate", str(rate)]
        self.process = p.start(command, cores, args.fifo, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self.process.stdout.readline().strip() != "ready":
            raise RuntimeError("latency_probe did not start")

    def begin(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self):
        """Figures of the phase that began last."""
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the canary died")
        return json.loads(line)

    def phase(self):
        self.begin()
        return self.end()

    def close(self):
        p.end(self.process)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def source_of_shard(args, daemons, shard, number):
    """An address whose router belongs to that shard. `number`: where to begin to look."""
    for k in range(number, number + 64):
        source = f"127.0.{60 + shard}.{k}"
        before = [d.ring.tail() for d in daemons]
        # A peer without routes: events, and nothing that would be missing later.
        subprocess.run([p.binary(args.build, "bmpgen"), "--to", daemons[0].bmp, "--source", source, "--peers", "1", "--prefixes", "0"],
                       check=True, capture_output=True)
        p.until("its events came", lambda before=before: [d.ring.tail() for d in daemons] != before, 60)
        p.until("its session is over", lambda: all(d.stats.value("SessionsOpen") == 0 for d in daemons), 60)
        if daemons[shard].ring.tail() != before[shard]:
            return source
    raise RuntimeError("no address of that shard")


class Shards:
    """ingestds with their drains; shard K on the K-th core."""

    def __init__(self, args, count, settings=None):
        self.args = args
        self.cores = [{c} for c in (p.CORES * count)[:count]] if count > 1 else [p.INGEST_CORES]
        self.daemons, self.drains = [], []
        try:
            for k in range(count):
                self.daemons.append(p.Ingestd(args.build, settings=settings, shard=k, shards=count, cores=self.cores[k], fifo=args.fifo,
                                              beside=self.daemons[0] if k else None))
            self.drains = [p.ring_drain(args.build, [d.ring_path], cores, fifo=args.fifo) for d, cores in zip(self.daemons, self.cores)]
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        for x in self.drains + self.daemons[::-1]:
            x.close()


def load(args, d, source, cores, routes, churn=0, seed=1):
    return p.Generator(args.build, d.bmp, 1, 4, routes // 4, churn, seed, source, cores)


def ring_full(args, folder):
    with Shards(args, 2) as s:
        busy, other = s.daemons
        heavy, small = source_of_shard(args, s.daemons, 0, 1), source_of_shard(args, s.daemons, 1, 1)
        with load(args, busy, heavy, s.cores[0], args.routes) as generator, Canary(args, other, small, args.rate, s.cores[1], folder) as canary:
            generator.ready("dump")
            written = busy.ring.next_sequence()
            out = {"before": canary.phase()}
            memory = p.resident_bytes(busy.pid)
            s.drains[0].process.send_signal(signal.SIGSTOP)
            generator.begin()
            canary.begin()
            p.until("the ring is full", lambda: busy.stats.value("SessionsThrottled") > 0, 60)
            at, cpu = time.monotonic(), p.cpu_s(busy.pid)
            out["during"] = canary.end()
            blocked_cpu = (p.cpu_s(busy.pid) - cpu) / (time.monotonic() - at)
            full = busy.ring.used() / busy.ring.capacity()
            grown = p.resident_bytes(busy.pid) - memory
            s.drains[0].process.send_signal(signal.SIGCONT)
            begin = time.monotonic()
            canary.begin()
            updates = generator.sent("dump")[0]
            p.until("all has come", lambda: busy.ring.next_sequence() - written == updates and busy.ring.used() == 0, 60)
            recovery = time.monotonic() - begin
            out["after"] = canary.end()
            lost = updates - (busy.ring.next_sequence() - written)
    return out, {"ring_full_percent": 100 * full, "blocked_cpu_percent": 100 * blocked_cpu, "memory_grown_mb": grown / 2**20,
                 "recovery_s": recovery, "lost_updates": lost}


def max_routes(args, folder):
    out, facts = {}, {}
    for limit in (100_000, 0):
        limit = min(limit, args.routes // 10)
        with Shards(args, 1, {"bmp": {"max_routes_per_router": limit}}) as s:
            d = s.daemons[0]
            heavy, small = source_of_shard(args, s.daemons, 0, 1), source_of_shard(args, s.daemons, 0, 80)
            with Canary(args, d, small, args.rate, p.OTHER_CORES, folder) as canary, load(args, d, heavy, p.OTHER_CORES, args.routes) as generator:
                generator.ready("dump")
                phases = {"before": canary.phase()}
                canary.begin()
                generator.begin()
                updates = generator.sent("dump")[0]
                taken = d.stats.value("MessagesRouteMonitoring")

                def at_rest():
                    nonlocal taken
                    now = d.stats.settled().value("MessagesRouteMonitoring")
                    still, taken = now - taken <= 3 * args.rate, now
                    return still
                p.until("the dump is read", at_rest, 60)
                phases["during"] = canary.end()
                phases["after"] = canary.phase()
            if limit:
                out = phases
                facts = {"routes_taken": updates - d.stats.value("RoutesOverLimit"), "routes_skipped": d.stats.value("RoutesOverLimit")}
            else:
                facts["p99_us_without_limit"] = phases["during"]["ring_us"]["p99"]
    return out, facts


def memory(args, folder):
    with Shards(args, 2) as s:
        full, other = s.daemons
        heavy, small = source_of_shard(args, s.daemons, 0, 1), source_of_shard(args, s.daemons, 1, 1)
        with Canary(args, other, small, args.rate, s.cores[1], folder) as canary, \
                load(args, full, heavy, s.cores[0], 3 * args.routes) as generator:
            generator.ready("dump")
            out = {"before": canary.phase()}
            with open(f"/proc/{full.pid}/statm") as f:
                size = int(f.read().split()[0]) * os.sysconf("SC_PAGESIZE")
            resource.prlimit(full.pid, resource.RLIMIT_AS, (size + (48 << 20), resource.RLIM_INFINITY))
            sequence = full.ring.next_sequence()
            generator.begin()
            p.until("the router waits", lambda: full.stats.value("SessionsThrottled") == 1, 60)
            out["during"] = canary.phase()
            waits, routes = full.stats.settled().value("SessionsThrottled"), full.stats.value("Routes")
            resource.prlimit(full.pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            begin = time.monotonic()
            canary.begin()
            updates = generator.sent("dump")[0]
            p.until("all has come", lambda: full.ring.next_sequence() - sequence == updates, 60)
            recovery = time.monotonic() - begin
            out["after"] = canary.end()
            alive = full.process.poll() is None
    return out, {"daemon_lives": int(alive), "routes_when_full": routes, "sessions_waiting": waits, "recovery_s": recovery,
                 "lost_updates": 0}


def imbalance(args, folder):
    with Shards(args, 2) as s:
        busy, other = s.daemons
        heavy, small = source_of_shard(args, s.daemons, 0, 1), source_of_shard(args, s.daemons, 1, 1)
        beside = source_of_shard(args, s.daemons, 0, 80)
        # How fast the busy shard is, to know a ninth of it.
        with load(args, busy, heavy, s.cores[0], args.routes // 10, args.routes // 4, 3) as generator:
            generator.ready("dump")
            generator.begin()
            generator.sent("dump")
            generator.ready("churn")
            sequence = busy.ring.next_sequence()
            begin = generator.begin()
            updates = generator.sent("churn")[0]
            p.until("all has come", lambda: busy.ring.next_sequence() - sequence == updates, 60, 0.001)
            rate = updates / (time.monotonic() - begin)
        ninth = rate / 9
        churn = int(rate * args.seconds * 1.5)
        beside_folder = os.path.join(folder, "beside")
        os.makedirs(beside_folder, exist_ok=True)
        with load(args, busy, heavy, s.cores[0], args.routes // 10, churn, 4) as generator, \
                Canary(args, other, small, ninth, s.cores[1], folder) as canary, \
                Canary(args, busy, beside, 500, s.cores[1], beside_folder) as neighbour:
            generator.ready("dump")
            generator.begin()
            generator.sent("dump")
            generator.ready("churn")
            neighbour.begin()
            out = {"before": canary.phase()}
            near = {"before": neighbour.end()}
            sequence = busy.ring.next_sequence()
            generator.begin()
            begin = time.monotonic()
            neighbour.begin()
            out["during"] = canary.phase()
            done = (busy.ring.next_sequence() - sequence) / (time.monotonic() - begin)
            near["during"] = neighbour.end()
            updates = generator.sent("churn")[0]
            p.until("all has come", lambda: busy.ring.next_sequence() - sequence >= updates, 60)
            neighbour.begin()
            out["after"] = canary.phase()
            near["after"] = neighbour.end()
    return out, {"busy_shard_updates_per_s": done, "other_shard_updates_per_s": out["during"]["reached"],
                 "share_of_load_percent": 100 * done / (done + out["during"]["reached"]),
                 "same_shard_latency_ratio": near["during"]["ring_us"]["p99"] / near["before"]["ring_us"]["p99"],
                 "same_shard_p99_us": near["during"]["ring_us"]["p99"], "same_shard_after_p99_us": near["after"]["ring_us"]["p99"]}


def broker_disk(args, folder):
    import harness
    if not harness.SmallDisk.possible():
        p.progress("broker_disk: cannot mount a small disk here, left out")
        return None, None
    with harness.SmallDisk(96) as disk, p.NatsServer() as nats:
        settings = {**p.DEFAULTS, "journal": {"segment_bytes": 8 * 2**20}, "ring": {"size_bytes": 16 * 2**20}}
        with harness.Pipeline(shards=2, settings=settings, nats=nats.url, read_from=nats.url, state=os.path.join(disk.path, "state")) as pipeline:
            pids = {name: pipeline.pid(name) for name in ("ingestd@0", "ingestd@1", "publishd")} | {"curated": pipeline.process.pid}

            def answer_ms():
                begin = time.monotonic()
                pipeline.status()
                return (time.monotonic() - begin) * 1000
            with harness.Load(pipeline, routers=2, prefixes=20000, churn=100_000, rate=20_000_000) as routers:
                p.until("updates are acked", lambda: pipeline.metric("arancini_publish_updates_acked_total") > 50_000, 60, 0.1)
                sent, begin = sum(routers.sent), time.monotonic()
                time.sleep(args.seconds)  # the rate before
                rate_before = (sum(routers.sent) - sent) / (time.monotonic() - begin)
                before = {name: p.resident_bytes(pid) for name, pid in pids.items()}
                answer_before = statistics.median(answer_ms() for _ in range(5))
                nats.process.kill()
                nats.process.wait()
                gone = time.monotonic()
                moved = (time.monotonic(), sum(routers.sent))

                def all_is_full():
                    nonlocal moved
                    if sum(routers.sent) != moved[1]:
                        moved = (time.monotonic(), sum(routers.sent))
                    return time.monotonic() - moved[0] > 2 and pipeline.metric("arancini_publish_journal_trouble_code")
                p.until("disk and rings are full, the routers wait", all_is_full, 120, 0.05)
                full_after = moved[0] - gone
                sent = sum(routers.sent)
                cpu = {name: p.cpu_s(pid) for name, pid in pids.items()}
                begin = time.monotonic()
                time.sleep(args.seconds)  # the state that is measured
                answer_during = statistics.median(answer_ms() for _ in range(5))
                took = time.monotonic() - begin
                cpu = {name: 100 * (p.cpu_s(pid) - cpu[name]) / took for name, pid in pids.items()}
                grown = sum(p.resident_bytes(pid) - before[name] for name, pid in pids.items())
                taken = sum(routers.sent) - sent
                routers.alive()
                free = disk.free_bytes()
                nats.start()
                begin = time.monotonic()
                p.until("the routers go on", lambda: sum(routers.sent) - sent > taken + 2**22, 120, 0.05)
                flows = time.monotonic() - begin
                routers.finish()
                p.until("all is acked", pipeline.drained, 120, 0.1)
                recovery = time.monotonic() - begin
                records = harness.check_stream(pipeline, routers)
    return None, {"bytes_per_s_before": rate_before, "routers_wait_after_s": full_after, "bytes_taken_while_full": taken, "disk_free_bytes": free,
                  "memory_grown_mb": grown / 2**20, "curated_answer_ms_before": answer_before, "curated_answer_ms_during": answer_during,
                  **{f"blocked_cpu_percent.{name}": value for name, value in cpu.items()}, "flows_again_after_s": flows,
                  "all_acked_after_s": recovery, "records_checked": records, "gaps_and_duplicates": 0}


SCENARIOS = {"ring_full": ring_full, "max_routes": max_routes, "memory": memory, "imbalance": imbalance, "broker_disk": broker_disk}
RATIOS = {"ring_full": "other_shard_latency_ratio", "max_routes": "other_router_latency_ratio", "memory": "other_shard_latency_ratio",
          "imbalance": "other_shard_latency_ratio"}


def main():
    parser = p.parser(__doc__)
    parser.add_argument("--scenarios", default=",".join(SCENARIOS))
    parser.add_argument("--seconds", type=float, default=2, help="before, during and after")
    parser.add_argument("--rate", type=float, default=5000, help="of the canary, UPDATEs per second")
    parser.add_argument("--routes", type=int, default=1_000_000)
    parser.add_argument("--no-fifo", action="store_true", help="not before all ordinary programs")
    args = p.parse(parser)
    if args.quick:
        args.seconds, args.rate = 0.5, 2000
    args.fifo = not args.no_fifo and p.may_use_fifo()
    print(f"{p.describe_machine(args.build)}, {'SCHED_FIFO' if args.fifo else 'ordinary scheduling'}", flush=True)
    f = p.Figures()
    facts_of = {}
    for n in range(args.repeat):
        for name in args.scenarios.split(","):
            with tempfile.TemporaryDirectory(prefix="exhaustion-bench-") as folder:
                phases, facts = SCENARIOS[name](args, folder)
            if facts is None:
                continue
            for fact, value in facts.items():
                f.add(f"{name}.{fact}", value)
                facts_of.setdefault(name, []).append(fact)
            for phase, r in (phases or {}).items():
                f.add(f"{name}.{phase}.updates_per_s", r["reached"], detail=True)
                for point in ("p50", "p99", "p999"):
                    f.add(f"{name}.{phase}.{point}_us", r["ring_us"][point], detail=point != "p99")
            if phases:
                compared = facts.get("p99_us_without_limit", phases["before"]["ring_us"]["p99"])
                f.add(f"{name}.{RATIOS[name]}", phases["during"]["ring_us"]["p99"] / compared)
            p.progress(f"{n + 1}/{args.repeat} {name}: " + ", ".join(f"{k} {v:.4g}" for k, v in facts.items()))
    rows = [[name, phase, f.spread(f"{name}.{phase}.updates_per_s", 1, 0), *[f.spread(f"{name}.{phase}.{x}_us", 1, 0) for x in ("p50", "p99", "p999")],
             f.spread(f"{name}.{RATIOS[name]}") if phase == "during" else ""]
            for name in args.scenarios.split(",") if name in RATIOS for phase in PHASES if f"{name}.{phase}.p99_us" in f.runs]
    if rows:
        print(p.text_table(["scenario", "canary", "updates/s", "p50 us", "p99 us", "p99.9 us", "ratio of p99"], rows, 2))
    for name, facts in facts_of.items():
        print(f"{name}: " + ", ".join(f"{fact} {f.spread(f'{name}.{fact}', 1, 1)}" for fact in dict.fromkeys(facts)))
    f.write(args.json)


if __name__ == "__main__":
    sys.exit(main())
