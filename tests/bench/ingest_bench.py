#!/usr/bin/env python3
"""How fast BMP gets from sockets into the ring.

METHOD. bmpgen -> TCP over loopback -> ingestd (one shard, real process) -> ring -> ring_drain, which walks the records and
releases them; no publishd, no broker. Loads: a table dump of 1M routes (4 peers, Internet-like prefix lengths, 1 to 8 prefixes per
UPDATE, 2.7 on average, 10 % IPv6), then a churn of 1M single-prefix UPDATEs, each with new attributes, 20 % withdrawals; once as one
session and once as 32 routers with a session each, which share the same number of routes. In each run, one after the other: io_uring,
epoll, and "recv": tcp_drain, which only recv()s the same bytes into one 64 KiB buffer, as an upper bound.

updates/s  from the line that makes bmpgen begin, until ring_drain has read the last update (it notes the time itself). bmpgen has
           made all bytes before, and sends with sendfile() and cubic. For recv: until the last byte has come.
cores      ingestd (all of its threads) or tcp_drain alone on the first core; bmpgen and ring_drain on the others. Loopback runs
           TCP's receive path in the sender's softirq, so it is charged to bmpgen: on two cores ingestd gets less of the work than
           with a network card whose interrupts its core serves.
CPU        seconds per million updates: the process's CPU clock before and after. bmpgen: of sending alone.
syscalls   per million updates: `io` is ingestd's own counter of calls for sockets; `all` is of a run of its own with `strace -f -c`
           attached while the load runs. strace makes each call slow, so that more data waits at the next one: `io` of that run is
           there to compare. ring_drain looks every --every-us microseconds, as a busy publisher does, so nobody
           rings it; --every-us 0: it sleeps and is woken by ingestd, futex() calls then count in `all`.
Medians of --repeat runs."""
import re
import shutil
import signal
import subprocess
import sys

import processes as p

LOADS = {"dump": "table_dump", "churn": "churn"}


class Strace:
    """Counts the system calls of all threads of a process, from here to stop()."""

    def __init__(self, pid):
        self.process = subprocess.Popen(["strace", "-f", "-c", "-U", "calls,name", "-p", str(pid)], stderr=subprocess.PIPE, text=True)
        if "attached" not in self.process.stderr.readline():
            raise RuntimeError("strace cannot attach")

    def stop(self):
        """{name: count}"""
        self.process.send_signal(signal.SIGINT)
        text = self.process.communicate()[1]
        return {name: int(n) for n, name in re.findall(r"^\s*(\d+)\s+(\w+)", text, re.M) if name != "total"}


class Run:
    def __init__(self, args, sessions):
        self.args, self.sessions = args, sessions
        self.peers = 4
        self.prefixes = max(args.routes // sessions // self.peers, 1)

    def generator(self, to):
        return p.Generator(self.args.build, to, self.sessions, self.peers, self.prefixes, self.args.churn // self.sessions,
                           self.args.seed, cores=p.OTHER_CORES, extra=self.args.bmpgen)

    def ingestd(self, io, strace=False):
        """{load: figures}"""
        out = {}
        with p.Ingestd(self.args.build, io, p.settings_of(self.args.set), cores=p.INGEST_CORES) as d, \
                p.ring_drain(self.args.build, [d.ring_path], p.OTHER_CORES, self.args.every_us) as sink, \
                self.generator(d.bmp) as generator:
            done = 0
            for load in LOADS:
                generator.ready(load)
                tail = d.ring.tail()
                calls = d.stats.settled().value("IoSyscalls")
                rounds = d.stats.value("LoopIterations")
                cpu = {"ingestd": p.cpu_s(d.pid), "consumer": p.cpu_s(sink.pid)}
                watch = Strace(d.pid) if strace else None
                begin = generator.begin()
                updates, sent, sending = generator.sent(load)
                done += updates
                seconds = sink.wait(done) - begin
                cpu = {"ingestd": p.cpu_s(d.pid) - cpu["ingestd"], "consumer": p.cpu_s(sink.pid) - cpu["consumer"], "bmpgen": sending}
                calls_by_name = watch.stop() if watch else {}
                d.stats.settled()
                million = updates / 1e6
                out[load] = {"updates_per_s": updates / seconds, "bytes_per_s": sent / seconds,
                             "syscalls": (d.stats.value("IoSyscalls") - calls) / million,
                             "ring_bytes": (d.ring.tail() - tail) / updates,
                             "rounds": (d.stats.value("LoopIterations") - rounds) / million,
                             "cpu": {name: s / million for name, s in cpu.items()},
                             "by_name": {name: n / million for name, n in calls_by_name.items()}}
        return out

    def recv(self):
        out = {}
        port = p.free_port()
        with p.tcp_drain(self.args.build, port, self.sessions, p.INGEST_CORES) as sink, self.generator(f"127.0.0.1:{port}") as generator:
            done = 0
            for load in LOADS:
                generator.ready(load)
                cpu = p.cpu_s(sink.pid)
                begin = generator.begin()
                updates, sent, sending = generator.sent(load)
                done += sent
                seconds = sink.wait(done) - begin
                out[load] = {"updates_per_s": updates / seconds, "bytes_per_s": sent / seconds,
                             "cpu": {"recv": (p.cpu_s(sink.pid) - cpu) / updates * 1e6, "bmpgen": sending / updates * 1e6}}
        return out


def key_of(load, sessions, kind):
    """tcp.table_dump, tcp.table_dump.32_sessions.epoll …"""
    return ".".join(["tcp", LOADS[load], *([f"{sessions}_sessions"] if sessions > 1 else []), *([kind] if kind != "uring" else [])])


def main():
    parser = p.parser(__doc__)
    parser.add_argument("--routes", type=int, default=1_000_000)
    parser.add_argument("--churn", type=int, default=1_000_000)
    parser.add_argument("--sessions", default="1,32")
    parser.add_argument("--kinds", default="uring,epoll,recv")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every-us", type=int, default=500, help="ring_drain looks that often; 0: ingestd wakes it")
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=JSON", help="a setting of ingestd")
    parser.add_argument("--bmpgen", action="append", default=[], metavar="FLAG", help="another flag for bmpgen")
    parser.add_argument("--no-strace", action="store_true")
    args = p.parse(parser)
    if args.quick:
        args.routes, args.churn = 100_000, 100_000
    sessions_of = [int(s) for s in args.sessions.split(",")]
    print(p.describe_machine(args.build), flush=True)
    if len(p.CORES) < 2:
        print("one core only: everything shares it, and the figures are not what --help says", flush=True)
    f = p.Figures()
    for n in range(args.repeat):
        for sessions in sessions_of:
            run = Run(args, sessions)
            for kind in args.kinds.split(","):
                for load, r in (run.recv() if kind == "recv" else run.ingestd(kind)).items():
                    key = key_of(load, sessions, kind)
                    f.add(key + ".updates_per_s", r["updates_per_s"])
                    f.add(key + ".bytes_per_s", r["bytes_per_s"], detail=True)
                    for name, value in r["cpu"].items():
                        f.add(f"{key}.cpu_s_per_million_{name}", value, detail=name not in ("ingestd", "recv"))
                    if "syscalls" in r:
                        f.add(key + ".syscalls_per_million_updates", r["syscalls"])
                        f.add(key + ".ring_bytes", r["ring_bytes"], detail=True)
                        f.add(key + ".rounds", r["rounds"], detail=True)
                    p.progress(f"{n + 1}/{args.repeat} {sessions} sessions, {kind}, {load}: {r['updates_per_s'] / 1e6:.2f} M updates/s")
    if "uring" in args.kinds and 1 in sessions_of:
        f.runs["syscalls.per_million_updates"] = f.runs[key_of("dump", 1, "uring") + ".syscalls_per_million_updates"]
    rows = []
    for load in LOADS:
        for sessions in sessions_of:
            for kind in args.kinds.split(","):
                k = key_of(load, sessions, kind)
                consumer = "recv" if kind == "recv" else "ingestd"
                rows.append([LOADS[load], sessions, kind, f.spread(k + ".updates_per_s", 1e-6), f.spread(k + ".bytes_per_s", 1e-6, 0),
                             f.spread(f"{k}.cpu_s_per_million_{consumer}", 1, 3), f.spread(k + ".cpu_s_per_million_bmpgen", 1, 3),
                             f.spread(k + ".cpu_s_per_million_consumer", 1, 3), f.spread(k + ".syscalls_per_million_updates", 1, 0),
                             f.spread(k + ".rounds", 1, 0), f.spread(k + ".ring_bytes", 1, 0)])
    print(p.text_table(["load", "sessions", "with", "M updates/s", "MB/s", "CPU s/M: receiver", "bmpgen", "ring_drain",
                        "io syscalls/M", "rounds/M", "ring bytes/update"], rows, 3))
    if not args.no_strace and "uring" in args.kinds:
        if shutil.which("strace"):
            for load, r in Run(args, sessions_of[0]).ingestd("uring", strace=True).items():
                f.add(f"syscalls.{LOADS[load]}.strace_per_million_updates", sum(r["by_name"].values()))
                names = ", ".join(f"{name} {n:.0f}" for name, n in sorted(r["by_name"].items(), key=lambda x: -x[1]))
                print(f"strace, {LOADS[load]}: {sum(r['by_name'].values()):.0f} system calls of all threads per million updates "
                      f"(ingestd's counter in this run: {r['syscalls']:.0f}): {names}")
        else:
            print("no strace here: calls are those that ingestd counts")
    print("CPU s/M: seconds of CPU per million updates. --help has the method.")
    f.write(args.json)


if __name__ == "__main__":
    sys.exit(main())
