#!/usr/bin/env python3
"""Does a second shard cost the first one anything?

METHOD. Standalone ingestds, each with a ring_drain on its ring and a router of its own (bmpgen; table dump of --routes with 4 peers,
then as many single-prefix UPDATEs). Everything of a shard, generator and drain included, is on one core, the K-th for shard K: so a
second shard brings a core of its own with it, as it would on a larger machine, and a row of one shard leaves the other core idle.

throughput    updates/s of all shards together, from the begin until the last ring is read; all shards begin at the same moment.
              Efficiency is that of N shards / (N x that of one), in the same run. On a virtual machine the cores may be two threads of
              one physical core: then less than 1 is what such threads lose to each other, whatever runs.
CPU           seconds of ingestd's CPU per million updates, by shard
instructions  per update in the event loop of shard 0 (valgrind's callgrind, --toggle-collect of EventLoop::run_once), alone and while
              shard 1 does the same: what a shard executes must not depend on others. They vary a little by themselves, since
              rounds of the loop cut the stream where the data happen to end.
shared        memory that two ingestds both could write: mappings with MAP_SHARED that are writable in both (/proc/PID/maps). There is
              none (io_uring's rings are each process's own): so no cache line is written by two shards in user space, by
              construction. perf c2c, which would show it, needs hardware counters: tried, and said.
copy          GB/s that memcpy() moves (read + written) on one core and on all at once: what memory itself has to give here."""
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

import processes as p
from exhaustion_bench import source_of_shard

LOADS = ["dump", "churn"]


class Setup:
    def __init__(self, args, shards, wrap=()):
        self.daemons, self.drains, self.generators = [], [], []
        self.cores = [{c} for c in (p.CORES * shards)[:shards]]
        try:
            for k in range(shards):
                self.daemons.append(p.Ingestd(args.build, shard=k, shards=shards, cores=self.cores[k], wrap=wrap if k == 0 else (),
                                              beside=self.daemons[0] if k else None))
            self.drains = [p.ring_drain(args.build, [d.ring_path], c) for d, c in zip(self.daemons, self.cores)]
            for k in range(shards):
                source = source_of_shard(args, self.daemons, k, 1)
                self.generators.append(p.Generator(args.build, self.daemons[k].bmp, 1, 4, args.routes // 4, args.routes, k + 1, source,
                                                   self.cores[k]))
        except BaseException:
            self.close()
            raise

    def close(self):
        for x in self.generators + self.drains + self.daemons[::-1]:
            x.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def throughput(args, shards):
    out = {}
    with Setup(args, shards) as s:
        done = 0
        for load in LOADS:
            for g in s.generators:
                g.ready(load)
            cpu = [p.cpu_s(d.pid) for d in s.daemons]
            begin = time.monotonic()
            for g in s.generators:
                g.begin()
            updates = [g.sent(load)[0] for g in s.generators]
            done += updates[0]  # the same for each
            seconds = max(drain.wait(done) for drain in s.drains) - begin
            out[load] = {"updates_per_s": sum(updates) / seconds,
                         "cpu": [(p.cpu_s(d.pid) - c) / n * 1e6 for d, c, n in zip(s.daemons, cpu, updates)]}
        out["shared"] = shared(s.daemons)
    return out


def writable_shared(pid):
    """{(device, inode): path} of what the process could write and others might map."""
    with open(f"/proc/{pid}/maps") as f:
        lines = [line.split(None, 5) for line in f]
    return {(w[3], w[4]): w[5].strip() for w in lines if len(w) == 6 and w[1][1] == "w" and w[1][3] == "s" and
            "anon_inode:" not in w[5]}


def shared(daemons):
    """Number of mappings that two of them can write."""
    maps = [writable_shared(d.pid) for d in daemons]
    both = {path for i, a in enumerate(maps) for b in maps[i + 1:] for key, path in a.items() if key in b}
    if both:
        print("two shards can write: " + ", ".join(sorted(both)))
    return len(both)


def instructions(args, shards):
    """Per update, of shard 0's event loop, over dump and churn."""
    with tempfile.TemporaryDirectory(prefix="scaling-bench-") as folder:
        path = os.path.join(folder, "out")
        wrap = ["valgrind", "--tool=callgrind", "--toggle-collect=arancini::ingestd::EventLoop::run_once()", f"--callgrind-out-file={path}", "-q"]
        total = 0
        with Setup(args, shards, wrap) as s:
            done = 0
            for load in LOADS:
                for g in s.generators:
                    g.ready(load)
                    g.begin()
                updates = [g.sent(load)[0] for g in s.generators]
                done += updates[0]
                total += updates[0]
                for drain in s.drains:
                    drain.wait(done)
        with open(path) as f:
            found = re.search(r"^(?:summary|totals): (\d+)", f.read(), re.M)
        return int(found[1]) / total


def copy_rate(core, seconds):
    os.sched_setaffinity(0, {core})
    size = 256 << 20
    a, b = bytearray(size), bytearray(size)
    a[:] = b
    count, begin = 0, time.monotonic()
    while time.monotonic() - begin < seconds:
        a[:] = b
        count += 1
    return 2 * size * count / (time.monotonic() - begin)


def c2c():
    with tempfile.TemporaryDirectory() as folder:
        r = subprocess.run(["perf", "c2c", "record", "-o", os.path.join(folder, "data"), "--", "true"], capture_output=True, text=True) \
            if shutil.which("perf") else None
    return "there is no perf here" if r is None else "works here" if r.returncode == 0 else \
        "not here: " + (r.stderr.strip().splitlines() or ["?"])[0]


def main():
    parser = p.parser(__doc__)
    parser.add_argument("--routes", type=int, default=1_000_000, help="of each shard, and its UPDATEs of churn")
    parser.add_argument("--shards", default="1,2")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-callgrind", action="store_true")
    args = p.parse(parser)
    if args.quick:
        args.routes = 100_000
    counts = [int(n) for n in args.shards.split(",")]
    if max(counts) > len(p.CORES):
        print(f"only {len(p.CORES)} cores: {max(counts)} shards would share them")
        return 77
    print(p.describe_machine(args.build), flush=True)
    f = p.Figures()
    for n in range(args.repeat):
        one = {}
        for shards in counts:
            r = throughput(args, shards)
            f.add(f"scaling.{shards}_shards.shared_writable_mappings", r["shared"])
            for load in LOADS:
                key = f"scaling.{shards}_shards.{'table_dump' if load == 'dump' else 'churn'}"
                f.add(key + ".updates_per_s", r[load]["updates_per_s"])
                f.add(key + ".cpu_s_per_million", max(r[load]["cpu"]))
                one.setdefault(load, r[load]["updates_per_s"] / shards)
                f.add(key + ".efficiency", r[load]["updates_per_s"] / shards / one[load])
                p.progress(f"{n + 1}/{args.repeat} {shards} shards, {load}: {r[load]['updates_per_s'] / 1e6:.2f} M updates/s")
        alone = copy_rate(p.CORES[0], 0.3)
        with multiprocessing.Pool(len(p.CORES)) as pool:
            together = sum(pool.starmap(copy_rate, [(c, 0.5) for c in p.CORES], 1))
        f.add("scaling.copy_bytes_per_s.one_core", alone)
        f.add("scaling.copy_bytes_per_s.all_cores", together)
    if not args.no_callgrind and shutil.which("valgrind"):
        small = args.routes
        args.routes = min(args.routes, 50_000)
        for shards in counts:
            f.add(f"scaling.{shards}_shards.instructions_per_update", instructions(args, shards))
        args.routes = small
    rows = []
    for shards in counts:
        for load in ("table_dump", "churn"):
            k = f"scaling.{shards}_shards.{load}"
            rows.append([shards, load, f.spread(k + ".updates_per_s", 1e-6), f.spread(k + ".efficiency"), f.spread(k + ".cpu_s_per_million", 1, 3),
                         f.spread(f"scaling.{shards}_shards.instructions_per_update", 1, 0), f.spread(f"scaling.{shards}_shards.shared_writable_mappings", 1, 0)])
    print(p.text_table(["shards", "load", "M updates/s", "efficiency", "CPU s/M, worst shard", "instructions per update (both loads)",
                        "shared mappings"], rows, 2))
    print(f"copy: {f.spread('scaling.copy_bytes_per_s.one_core', 1e-9, 1)} GB/s on one core, {f.spread('scaling.copy_bytes_per_s.all_cores', 1e-9, 1)} "
          f"GB/s on {len(p.CORES)}; perf c2c: {c2c()}")
    f.write(args.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
