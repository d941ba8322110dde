#!/usr/bin/env python3
"""How fast updates get from routers into the stream, and what that costs.

METHOD. The whole pipeline of real processes on this machine: bmpgen -> TCP -> ingestd (one shard) -> ring -> publishd ->
nats-server, which stores in files of a temporary directory (--store) and acks every message; curated watches. The
settings are the defaults but for [publish] format, --batch-bytes and what --set names. Per format and count of subjects, one new pipeline runs
  dump   the table dump of all peers: 1 to 8 prefixes per UPDATE, cut where the family changes (2.7 on average), 10 %
         IPv6, Internet-like prefix lengths, 35 % of the UPDATEs with attributes that another one had
  churn  then, when all of that is acked, single-prefix UPDATEs with new attributes, 20 % withdrawals
4 subjects are one router with two peers and two families, 400 are a hundred such routers, a session each.

updates/s  from the line that makes bmpgen begin, until the ring is empty and everything is acked: looked at every 2 ms
           in the ring's header. bmpgen has made all bytes before and sends them with sendfile(); its CPU is counted.
CPU        seconds of CPU (user and system) per million updates: the process's CPU clock, read before and after. Loopback
           TCP is charged to the sender. "all" is what the whole machine was busy (/proc/stat), strangers included.
messages   updates and bytes per message, and "full": payload as a share of [publish] batch_bytes
ring, wire bytes per update: what the tail of the ring advanced, and what nats-server received (payload, headers, protocol)
limit      updates/s and CPU of nats-server when nats_limit sends as many bytes in messages of the same mean size to as
           many subjects, right after; "of it" is updates/s as a share of that. nats_limit is not a NATS client library
           but the bare protocol from one buffer: next to nothing but the server is measured.
Medians of --repeat runs; JSON has each run, least and greatest. The two cores of a virtual machine may be "near" or "far"
from each other: the first line says which (ring_bench)."""
import argparse
import json
import mmap
import os
import re
import select
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "scenario"))

FORMATS = ["update-v1", "update-v1-concat", "batch-v2"]
SUBJECTS = {4: 1, 400: 100}  # routers; two peers, two families each
PROCESSES = ["bmpgen", "ingestd", "publishd", "nats-server", "curated"]


def cpu_s(pid):
    """CPU of all threads, exact: MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED) of the kernel."""
    return time.clock_gettime((~pid << 3) | 2)


def switches(pid):
    """Context switches of each thread so far."""
    out = {}
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/status") as f:
            text = f.read()
        out[task] = sum(int(n) for n in re.findall(r"ctxt_switches:\s+(\d+)", text))
    return out


def machine_busy_s():
    with open("/proc/stat") as f:
        user, nice, system, idle, iowait, irq, softirq, steal = map(int, f.readline().split()[1:9])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class NatsServer:
    def __init__(self, store, extra, environment):
        self.dir = tempfile.mkdtemp(prefix="publish-bench-", dir=store)
        self.port, self.http = free_port(), free_port()
        with open(os.path.join(self.dir, "conf"), "w") as f:
            f.write(f'listen: "127.0.0.1:{self.port}"\nhttp: "127.0.0.1:{self.http}"\n'
                    f'jetstream {{ store_dir: "{self.dir}/store" }}\n{extra}\n')
        self.log = open(os.path.join(self.dir, "log"), "wb")
        self.process = subprocess.Popen(["nats-server", "-c", os.path.join(self.dir, "conf")], stdout=self.log,
                                        stderr=self.log, env=dict(os.environ, **environment))
        deadline = time.monotonic() + 10
        while True:
            try:
                self.varz()
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def varz(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/varz", timeout=10) as r:
            return json.load(r)

    def close(self):
        self.process.terminate()
        self.process.wait()
        self.log.close()
        shutil.rmtree(self.dir, ignore_errors=True)


class Ring:
    """The header of a ring file (shm-layout/ring_header.h)."""

    def __init__(self, path):
        with open(path, "rb") as f:
            self.memory = mmap.mmap(f.fileno(), 4096, prot=mmap.PROT_READ)
        if struct.unpack_from("<I", self.memory, 8)[0] != 2:
            raise RuntimeError("the ring's layout is another one: adapt Ring in publish_bench.py")

    def _u64(self, at):
        return struct.unpack_from("<Q", self.memory, at)[0]

    def tail(self):
        return self._u64(128)

    def head(self):
        return self._u64(256)

    def next_sequence(self):
        tail = self.tail()
        for slot in (144, 176):
            if self._u64(slot) == tail:
                return self._u64(slot + 8)
        return 0  # being written


class Perf:
    """perf record of some processes while one load runs; only with --perf."""

    def __init__(self, directory, name, pids):
        self.children = []
        if not directory:
            return
        os.makedirs(directory, exist_ok=True)
        for process, pid in pids.items():
            self.children.append(subprocess.Popen(
                ["perf", "record", "-q", "-e", "cpu-clock", "-F", "1999", "-g", "-p", str(pid), "-o",
                 os.path.join(directory, f"{name}.{process}.data")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        time.sleep(1.5)

    def stop(self):
        for c in self.children:
            c.send_signal(signal.SIGINT)
        for c in self.children:
            c.wait()


def settings_of(args, fmt):
    tables = {"publish": {"format": fmt}, "ring": {"size_bytes": 64 * 1024 * 1024}}
    if args.batch_bytes:
        tables["publish"]["batch_bytes"] = args.batch_bytes
    if args.batch_count:
        tables["publish"]["batch_count"] = args.batch_count
    for text in args.set:
        key, value = text.split("=", 1)
        table, key = key.split(".", 1)
        tables.setdefault(table, {})[key] = json.loads(value)
    return tables


class Generator:
    """bmpgen --step: everything is made before it says "dump: ready"."""

    def __init__(self, binary, bmp, args, routers):
        peers = 2
        self.process = subprocess.Popen(
            [binary, "--to", bmp, "--routers", str(routers), "--peers", str(peers), "--prefixes",
             str(args.routes // routers // peers), "--churn", str(args.churn // routers), "--seed", str(args.seed), "--step",
             "--hold", "600"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def line(self, pattern):
        line = self.process.stdout.readline()
        found = re.match(pattern, line)
        if not found:
            raise RuntimeError(f"bmpgen: {line!r}")
        return found

    def begin(self):
        now = time.monotonic()
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return now

    def close(self):
        self.process.kill()
        self.process.wait()


def run_load(load, generator, ring, pids, nats, pipeline, args, name):
    generator.line(load + ": ready")
    perf = Perf(args.perf, f"{name}-{load}", pids)
    # The first updates of a pipeline are there (Peer Up makes none), heads have come to rest.
    before_sequence, before_tail = ring.next_sequence(), ring.tail()
    before = {p: cpu_s(pid) for p, pid in pids.items()}
    switched = {p: switches(pid) for p, pid in pids.items()}
    metrics = {m: pipeline.metric(f"arancini_publish_{m}_total") for m in ("messages_sent", "sent_bytes", "updates_acked")}
    in_bytes = nats.varz()["in_bytes"]
    busy = machine_busy_s()
    start = generator.begin()
    found = None
    progress, progress_at = 0, start
    while True:
        now = time.monotonic()
        if found is None and select.select([generator.process.stdout], [], [], 0)[0]:
            found = generator.line(load + r": (\d+) updates, (\d+) bytes sent in ([\d.]+) s with ([\d.]+) s of CPU")
        head = ring.head()
        if found and ring.next_sequence() - before_sequence == int(found[1]) and head == ring.tail():
            break
        if head != progress:
            progress, progress_at = head, now
        if now > progress_at + 20:
            raise RuntimeError(f"{load}: nothing acked for 20 s, {ring.next_sequence() - before_sequence} updates in the "
                               f"ring so far, {ring.tail() - head} bytes of them not acked:\n" + pipeline.log_text())
        time.sleep(0.002)
    updates, sent_bytes, generator_cpu = int(found[1]), int(found[2]), float(found[4])
    seconds = now - start
    after = {p: cpu_s(pid) for p, pid in pids.items()}
    busy = machine_busy_s() - busy
    switched = {p: sum(n - switched[p].get(task, 0) for task, n in switches(pid).items()) for p, pid in pids.items()}
    perf.stop()
    time.sleep(0.3)  # publishd writes its counters every 100 ms
    metrics = {m: pipeline.metric(f"arancini_publish_{m}_total") - v for m, v in metrics.items()}
    if metrics["updates_acked"] != updates:
        raise RuntimeError(f"{load}: {metrics['updates_acked']} updates acked of {updates}")
    million = updates / 1e6
    cpu = {p: (after[p] - before[p]) / million for p in pids}
    cpu["bmpgen"] = generator_cpu / million
    return {
        "switches_per_message": {p: n / metrics["messages_sent"] for p, n in switched.items()},
        "updates": updates, "seconds": seconds, "updates_per_s": updates / seconds,
        "cpu_s_per_million": cpu, "cpu_sum": sum(cpu.values()), "cpu_all": busy / million,
        "messages": metrics["messages_sent"], "updates_per_message": updates / metrics["messages_sent"],
        "bytes_per_message": metrics["sent_bytes"] / metrics["messages_sent"],
        "full": metrics["sent_bytes"] / metrics["messages_sent"] / (args.batch_bytes or 65536),
        "payload_bytes_per_update": metrics["sent_bytes"] / updates,
        "wire_bytes_per_update": (nats.varz()["in_bytes"] - in_bytes) / updates,
        "ring_bytes_per_update": (ring.tail() - before_tail) / updates,
        "bmp_bytes_per_update": sent_bytes / updates,
    }


def run_limit(result, subjects, nats, binary):
    """The same messages by nats_limit; at most a million of them, at least what takes a moment."""
    size = round(result["wire_bytes_per_update"] * result["updates_per_message"])
    count = int(min(max(result["messages"], 500e6 / max(size, 1)), 300_000))
    server = cpu_s(nats.process.pid)
    out = json.loads(subprocess.run([binary, "--port", str(nats.port), "--bytes", str(size), "--subjects", str(subjects),
                                     "--count", str(count)], check=True, capture_output=True, text=True).stdout)
    server = cpu_s(nats.process.pid) - server
    updates = out["messages"] * result["updates_per_message"]
    result["limit"] = {"bytes_per_message": size, "messages_per_s": out["messages"] / out["seconds"],
                       "updates_per_s": updates / out["seconds"], "nats_cpu_s_per_million": server / updates * 1e6,
                       "client_cpu_s_per_million": out["client_cpu_s"] / updates * 1e6}
    result["of_limit"] = result["updates_per_s"] / result["limit"]["updates_per_s"]


def run_pipeline(fmt, subjects, args, harness):
    import harness as h
    routers = SUBJECTS[subjects]
    nats = NatsServer(args.store, args.nats_conf.replace("\\n", "\n"), dict(e.split("=", 1) for e in args.nats_env))
    results = {}
    try:
        class Pipeline(h.Pipeline):
            def start(self):
                self.args[self.args.index("embedded")] = f"nats://127.0.0.1:{nats.port}"
                super().start()

        with Pipeline(shards=1, settings=settings_of(args, fmt)) as p:
            ring = Ring(os.path.join(p.run_dir, "ring-0"))
            pids = {"ingestd": p.pid("ingestd@0"), "publishd": p.pid("publishd"), "nats-server": nats.process.pid,
                    "curated": p.process.pid}
            generator = Generator(h.binary("bmpgen"), p.bmp, args, routers)
            try:
                for load in ("dump", "churn"):
                    results[load] = run_load(load, generator, ring, pids, nats, p, args, f"{fmt}-{subjects}")
                    if load not in args.loads:
                        del results[load]
                    if load == args.loads[-1]:
                        break
            finally:
                generator.close()
        if not args.no_limit:
            for result in results.values():
                run_limit(result, subjects, nats, os.path.join(h.BUILD, "tests", "bench", "nats_limit"))
    finally:
        nats.close()
    return results


def median_of(runs):
    """Runs are nested dictionaries of numbers: the medians, and [least, greatest] of the head figures."""
    first = runs[0]
    if isinstance(first, dict):
        return {k: median_of([r[k] for r in runs]) for k in first}
    return statistics.median(runs)


def table(rows):
    head = ["format", "subj.", "load", "M upd/s", "spread", *PROCESSES, "sum", "all", "upd/msg", "KiB/msg", "full", "wire",
            "ring", "limit M/s", "of it", "limit CPU"]
    lines = [head]
    for row in rows:
        m = row["median"]
        lines.append([row["format"], str(row["subjects"]), row["load"], f"{m['updates_per_s'] / 1e6:.3f}",
                      "{:.2f}-{:.2f}".format(*(v / 1e6 for v in row["updates_per_s_range"])),
                      *[f"{m['cpu_s_per_million'][p]:.3f}" for p in PROCESSES], f"{m['cpu_sum']:.2f}", f"{m['cpu_all']:.2f}",
                      f"{m['updates_per_message']:.0f}", f"{m['bytes_per_message'] / 1024:.1f}", f"{m['full']:.0%}",
                      f"{m['wire_bytes_per_update']:.0f}", f"{m['ring_bytes_per_update']:.0f}",
                      *([f"{m['limit']['updates_per_s'] / 1e6:.2f}", f"{m['of_limit']:.0%}",
                         f"{m['limit']['nats_cpu_s_per_million']:.3f}"] if "limit" in m else ["-", "-", "-"])])
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join("  ".join(c.ljust(w) if i in (0, 2) else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths)))
                     for line in lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=os.environ.get("ARANCINI_BUILD", "build"), help="build directory")
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--subjects", default="4,400")
    parser.add_argument("--loads", default="dump,churn")
    parser.add_argument("--routes", type=int, default=1_000_000, help="of the table dump, all peers together")
    parser.add_argument("--churn", type=int, default=1_000_000, help="updates of the churn")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="100,000 of each, once: shows that it works, measures little")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--batch-bytes", type=int, default=0, help="[publish] batch_bytes, 0: the default")
    parser.add_argument("--batch-count", type=int, default=0, help="[publish] batch_count, 0: the default")
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=JSON", help="another setting")
    parser.add_argument("--nats-conf", default="", help="lines for nats-server's configuration")
    parser.add_argument("--nats-env", action="append", default=[], metavar="NAME=VALUE", help="in nats-server's environment")
    parser.add_argument("--store", default="/var/tmp", help="disk on which nats-server stores")
    parser.add_argument("--no-limit", action="store_true", help="without the limit of the server alone")
    parser.add_argument("--perf", default="", metavar="DIR", help="perf record every process (and slow it down by that)")
    parser.add_argument("--json", default="", metavar="FILE", help="each run, medians, machine")
    args = parser.parse_args()
    args.loads = args.loads.split(",")
    if args.quick:
        args.routes, args.churn, args.repeat = 100_000, 100_000, 1
    args.build = os.path.abspath(args.build)
    os.environ["ARANCINI_BUILD"] = args.build
    os.environ["PATH"] += ":/usr/local/sbin:/usr/sbin"
    import harness

    machine = {"cores": os.cpu_count(), "load_average": os.getloadavg()[0],
               "nats_server": subprocess.run(["nats-server", "--version"], capture_output=True, text=True).stdout.strip()}
    probe = subprocess.run([os.path.join(args.build, "tests", "bench", "ring_bench"), "--json", "--records", "500000"],
                           capture_output=True, text=True)
    if probe.returncode == 0:
        ns = json.loads(probe.stdout)["c2c_latency_ns"]
        machine["core_to_core_ns"] = ns
        print(f"{machine['cores']} cores, core to core {ns:.0f} ns ({'near' if ns < 120 else 'far'}), load average "
              f"{machine['load_average']:.2f}, {machine['nats_server']}, store on {args.store}", flush=True)
    runs = {}
    for n in range(args.repeat):
        for fmt in args.formats.split(","):
            for subjects in map(int, args.subjects.split(",")):
                for load, result in run_pipeline(fmt, subjects, args, harness).items():
                    runs.setdefault((fmt, subjects, load), []).append(result)
                    print(f"  {n + 1}/{args.repeat} {fmt} {subjects} {load}: {result['updates_per_s'] / 1e6:.3f} M updates/s, "
                          f"{result['cpu_sum']:.2f} CPU s per million", file=sys.stderr, flush=True)
    rows = []
    for (fmt, subjects, load), results in runs.items():
        rates = [r["updates_per_s"] for r in results]
        rows.append({"format": fmt, "subjects": subjects, "load": load, "median": median_of(results),
                     "updates_per_s_range": [min(rates), max(rates)], "runs": results})
    rows.sort(key=lambda r: (FORMATS.index(r["format"]), r["subjects"], r["load"] != "dump"))
    print(table(rows))
    print("CPU: seconds per million updates. wire, ring: bytes per update. full: of batch_bytes. --help has the method.")
    if args.json:
        with open(args.json, "w") as f:
            json.dump({"machine": machine, "arguments": vars(args), "rows": rows}, f, indent=1)


if __name__ == "__main__":
    main()
