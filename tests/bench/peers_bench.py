#!/usr/bin/env python3
"""Other collectors and Arancini on the same stream.

METHOD. bmpgen is one router: W1, a table dump of 1M routes (4 peers, Internet-like prefix lengths, 2.7 prefixes per UPDATE on average,
10 % IPv6); then W2, a churn of single-prefix UPDATEs with new attributes, 20 % withdrawals. The same bytes over loopback TCP to one
collector after the other, in each run anew:
  peers            what the files of --peers describe (pmbmpd with and without its table are shipped); all of it on the first core
  arancini_ring    ingestd alone, on the first core: table, curation, encoding into the ring, which ring_drain empties
  arancini_acked   the whole pipeline: the same, then publishd and nats-server with file store, every update acked by JetStream
                   (update-v1-concat; batch-v2 in the next row); all of its processes on both cores
What is in the path is said in each row. bmpgen has made all bytes before and sends with sendfile() and cubic; it runs on the other
core(s).

prefixes/s  from the line that makes bmpgen begin to send until the collector is done. Arancini: until the last update is in the ring (and
            read), or acked. Peers (done = "idle"): all is sent, neither the socket's receive nor its send queue holds a byte
            (/proc/net/tcp), and the CPU clocks of the process and its children have stood still for --settle seconds; the end is when
            they last moved, so that the settling is not counted.
CPU         seconds per million prefixes of all processes of the collector (nats-server included for acked rows), by their CPU clocks;
            the generator is not in it.
memory      resident at the end of W1, without the rings of shared memory (64 MiB a shard).
ratio       prefixes/s and CPU relative to each peer in the same run (medians of the ratios of the runs).
--check     with less data, does a peer that keeps a table hold as many routes as bmpgen says it must? (its file says how to see it)

A DESCRIPTION of another collector is a TOML file:
  name      key in the JSON output: peers.NAME.table_dump.updates_per_s
  title     in the table
  command   list; {port}: where it must listen on 127.0.0.1, {dir}: a directory of its own, {...}: from [variables]
  version   a command whose first line of output names the version; optional
  path      what is in the path, in words
  done      "idle" (default, see above), or a command (list) that prints how many prefixes it has taken in so far;
            then it is done when it prints at least as many as were sent
  [files]      file name = content, written to {dir} before the start, with the same {...}; {{ and }} for braces
  [variables]  NAME = "text"
  [check]      variables = {...} for this run, pattern = a regular expression that finds the number of routes in what the
               program prints, seconds = how long that may take; optional
It is started in the foreground and ended with SIGTERM. It is ready when it listens on its port."""
import glob
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib

import processes as p

LOADS = {"dump": "table_dump", "churn": "churn"}


def tree(pid):
    """A process and its descendants."""
    pids = [pid]
    for task in glob.glob(f"/proc/{pid}/task/*/children"):
        try:
            with open(task) as f:
                for child in f.read().split():
                    pids += tree(int(child))
        except OSError:
            pass
    return pids


def tree_cpu_s(pid):
    total = 0.0
    for child in tree(pid):
        try:
            total += p.cpu_s(child)
        except OSError:  # it has ended
            pass
    return total


def queued_bytes(port):
    """What connections to this port of 127.0.0.1 hold in their queues, on both sides."""
    total = 0
    with open("/proc/net/tcp") as f:
        next(f)
        for line in f:
            words = line.split()
            ports = {int(words[1].split(":")[1], 16), int(words[2].split(":")[1], 16)}
            if port in ports and words[3] == "01":
                sending, receiving = words[4].split(":")
                total += int(sending, 16) + int(receiving, 16)
    return total


class Peer:
    """A collector as its file describes it."""

    def __init__(self, path):
        with open(path, "rb") as f:
            self.about = tomllib.load(f)
        known = {"name", "title", "command", "version", "path", "done", "files", "variables", "check"}
        if unknown := set(self.about) - known:
            raise SystemExit(f"{path}: unknown keys: {', '.join(sorted(unknown))}")
        for key in ("name", "command", "path"):
            if key not in self.about:
                raise SystemExit(f"{path}: {key} is missing")
        self.name = self.about["name"]
        self.title = self.about.get("title", self.name)
        self.process = None

    def missing(self):
        return not shutil.which(self.about["command"][0])

    def version(self):
        if "version" not in self.about:
            return ""
        out = subprocess.run(self.about["version"], capture_output=True, text=True)
        return (out.stdout + out.stderr).strip().splitlines()[0]

    def start(self, cores, variables=None):
        self.dir = tempfile.mkdtemp(prefix="peers-bench-")
        self.port = p.free_port()
        self.words = {**self.about.get("variables", {}), **(variables or {}), "port": str(self.port), "dir": self.dir}
        for name, content in self.about.get("files", {}).items():
            with open(os.path.join(self.dir, name), "w") as f:
                f.write(content.format(**self.words))
        self.log_path = os.path.join(self.dir, "output")
        with open(self.log_path, "wb") as log:
            self.process = p.start([w.format(**self.words) for w in self.about["command"]], cores, stdout=log, stderr=log, cwd=self.dir)

        def listens():
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name} did not start:\n{self.log_text()}")
            with open("/proc/net/tcp") as f:
                return any(w[1].endswith(f":{self.port:04X}") and w[3] == "0A" for w in (line.split() for line in f))
        p.until(f"{self.name} listens", listens, 30)

    def log_text(self):
        with open(self.log_path, errors="replace") as f:
            return f.read()

    def wait_done(self, count, settle):
        """time.monotonic() of the end."""
        done = self.about.get("done", "idle")
        if done != "idle":
            command = [w.format(**self.words) for w in done]
            p.until(f"{self.name} has taken {count}",
                    lambda: int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) >= count, 600, 0.01)
            return time.monotonic()
        cpu, moved = tree_cpu_s(self.process.pid), time.monotonic()
        while True:
            time.sleep(0.002)
            now, used = time.monotonic(), tree_cpu_s(self.process.pid)
            # A process that only waits looks at its clock now and then: 1 % of a core is standing still.
            if used - cpu > 0.01 * (now - moved):
                cpu, moved = used, now
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name} has ended:\n{self.log_text()[-2000:]}")
            if now - moved > settle:
                if queued_bytes(self.port) == 0:
                    return moved
                if now - moved > 60:
                    raise RuntimeError(f"{self.name} does not read")

    def close(self):
        if self.process:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                p.end(self.process)
            shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def generator(args, to, **more):
    return p.Generator(args.build, to, 1, 4, args.routes // 4, args.churn, args.seed, cores=p.OTHER_CORES, **more)


def run_peer(args, peer):
    """{load: (updates, seconds, CPU seconds, resident bytes)}"""
    out = {}
    with peer:
        peer.start(p.INGEST_CORES)
        with generator(args, f"127.0.0.1:{peer.port}") as source:
            total = 0
            for load in LOADS:
                source.ready(load)
                cpu = tree_cpu_s(peer.process.pid)
                begin = source.begin()
                updates = source.sent(load)[0]
                total += updates
                seconds = peer.wait_done(total, args.settle) - begin
                resident = sum(p.resident_bytes(pid) for pid in tree(peer.process.pid))
                out[load] = (updates, seconds, tree_cpu_s(peer.process.pid) - cpu, resident)
    return out


def run_ring(args):
    out = {}
    with p.Ingestd(args.build, cores=p.INGEST_CORES) as d, p.ring_drain(args.build, [d.ring_path], p.OTHER_CORES) as sink, \
            generator(args, d.bmp) as source:
        total = 0
        for load in LOADS:
            source.ready(load)
            cpu = p.cpu_s(d.pid)
            begin = source.begin()
            updates = source.sent(load)[0]
            total += updates
            seconds = sink.wait(total) - begin
            out[load] = (updates, seconds, p.cpu_s(d.pid) - cpu, p.resident_bytes(d.pid))
    return out


def run_acked(args, fmt):
    out = {}
    tables = {**p.DEFAULTS, "publish": {"format": fmt}}
    with p.NatsServer(args.store) as nats, p.pipeline(args, shards=1, settings=tables, nats=nats.url) as pipeline:
        ring = p.Ring(os.path.join(pipeline.run_dir, "ring-0"))
        pids = [pipeline.pid("ingestd@0"), pipeline.pid("publishd"), pipeline.process.pid, nats.pid]
        with generator(args, pipeline.bmp) as source:
            sequence = 1  # of a ring's first update
            for load in LOADS:
                source.ready(load)
                cpu = sum(map(p.cpu_s, pids))
                begin = source.begin()
                updates = source.sent(load)[0]
                sequence += updates
                p.until("all is acked", lambda wanted=sequence: ring.next_sequence() == wanted and ring.used() == 0, 300, 0.002)
                seconds = time.monotonic() - begin
                out[load] = (updates, seconds, sum(map(p.cpu_s, pids)) - cpu, sum(map(p.resident_bytes, pids)))
        if pipeline.metric("arancini_publish_journal_spilled_bytes_total"):
            raise RuntimeError("the journal took some of it: not all was acked by JetStream")
    return out


def check(args, peer):
    """A table of less routes, after churn, against bmpgen's own."""
    about = peer.about["check"]
    with tempfile.TemporaryDirectory(prefix="peers-bench-") as folder, peer:
        truth = os.path.join(folder, "truth")
        peer.start(None, about.get("variables"))
        source = subprocess.Popen([p.binary(args.build, "bmpgen"), "--to", f"127.0.0.1:{peer.port}", "--peers", "4", "--prefixes", "10000",
                                   "--churn", "40000", "--truth", truth, "--hold", "600"], stdout=subprocess.DEVNULL)
        try:
            found = p.until(f"{peer.name} says how many routes it has", lambda: re.search(about["pattern"], peer.log_text()),
                            about["seconds"], 0.2)
        finally:
            p.end(source)
        with open(truth) as f:
            expected = sum(1 for _ in f)
        print(f"{peer.title}: {found[1]} routes, {expected} expected: {'right' if int(found[1]) == expected else 'WRONG'}")


def main():
    parser = p.parser(__doc__)
    here = os.path.join(p.HERE, "peers")
    parser.add_argument("--peers", nargs="*", default=sorted(glob.glob(os.path.join(here, "*.toml"))), metavar="FILE",
                        help="descriptions, default: those in tests/bench/peers")
    parser.add_argument("--routes", type=int, default=1_000_000, help="of W1")
    parser.add_argument("--churn", type=int, default=1_000_000, help="updates of W2")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--settle", type=float, default=0.3, help="seconds")
    parser.add_argument("--store", default="/var/tmp", help="disk on which nats-server stores")
    parser.add_argument("--check", action="store_true", help="only: do peers hold the right number of routes")
    args = p.parse(parser)
    if args.quick:
        args.routes, args.churn = 100_000, 50_000
    peers = [Peer(path) for path in args.peers]
    if here_not := [x.name for x in peers if x.missing()]:
        print(f"not installed, left out: {', '.join(here_not)}")
        peers = [x for x in peers if not x.missing()]
    if args.check:
        for peer in peers:
            if "check" in peer.about:
                check(args, peer)
        return 0
    print(p.describe_machine(args.build), flush=True)
    for version in sorted({x.version() for x in peers}):
        print(version)
    rows = [(x.name, x.title, x.about["path"], lambda x=x: run_peer(args, x)) for x in peers]
    rows += [("arancini_ring", "Arancini, ingestd and ring", "socket, parsed, table, curated, encoded; ring emptied unread",
              lambda: run_ring(args)),
             ("arancini_acked", "Arancini, all of it", "the same, update-v1-concat to JetStream, stored and acked",
              lambda: run_acked(args, "update-v1-concat")),
             ("arancini_acked_batch_v2", "Arancini, all of it", "the same with batch-v2", lambda: run_acked(args, "batch-v2"))]
    f = p.Figures()
    for n in range(args.repeat):
        for name, title, _, run in rows:
            for load, (updates, seconds, cpu, resident) in run().items():
                key = f"peers.{name}.{LOADS[load]}"
                f.add(key + ".updates_per_s", updates / seconds)
                f.add(key + ".cpu_s_per_million_updates", cpu / updates * 1e6)
                f.add(key + ".resident_bytes", resident, detail=True)
                p.progress(f"{n + 1}/{args.repeat} {title}, {load}: {updates / seconds / 1e3:.0f} k prefixes/s, {cpu / updates * 1e6:.2f} CPU s per million")
    for load in LOADS.values():
        for name, *_ in rows[len(peers):]:
            for peer in peers:
                ours, theirs = f"peers.{name}.{load}", f"peers.{peer.name}.{load}"
                for what, flip in ((".updates_per_s", False), (".cpu_s_per_million_updates", True)):
                    pairs = zip(f.runs[ours + what], f.runs[theirs + what])
                    ratio = f"{ours}.{'less_cpu_than' if flip else 'times'}_{peer.name}"
                    f.runs[ratio] = [b / a if flip else a / b for a, b in pairs]
    lines = []
    for load in LOADS.values():
        for name, title, path, _ in rows:
            key = f"peers.{name}.{load}"
            ratios = []
            for peer in peers:
                times, less = f"{key}.times_{peer.name}", f"{key}.less_cpu_than_{peer.name}"
                ratios.append(f"{f.median(times):.1f} / {f.median(less):.1f}" if times in f.runs else "")
            lines.append(["W1 dump" if load == "table_dump" else "W2 churn", title, path, f.spread(key + ".updates_per_s", 1e-3, 0),
                          f.spread(key + ".cpu_s_per_million_updates"), f"{statistics.median(f.runs[key + '.resident_bytes']) / 2**20:.0f}",
                          *ratios])
    print(p.text_table(["load", "collector", "in the path", "1000 prefixes/s", "CPU s/M", "MiB", *[f"x {x.name}: speed / CPU" for x in peers]],
                       lines, 3))
    f.write(args.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
