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
           TCP is charged to the sender. "all" is what the whole machine was busy (/proc/stat), strangers included. --json also
           has what publishd's busiest thread takes: a core is the most that it can have.
messages   updates and bytes per message, and "full": payload as a share of [publish] batch_bytes
ring, wire bytes per update: what the tail of the ring advanced, and what nats-server received (payload, headers, protocol)
limit      updates/s and CPU of nats-server when nats_limit sends as many bytes in messages of the same mean size to as
           many subjects, right after; "of it" is updates/s as a share of that. nats_limit is not a NATS client library
           but the bare protocol from one buffer: next to nothing but the server is measured.
Medians of --repeat runs; --json has least and greatest, too, --detail each run. e2e.FORMAT.updates_per_s is the dump with
4 subjects. The two cores of a virtual machine may be "near" or "far" from each other: the first line says which
(ring_bench)."""
import json
import os
import select
import signal
import statistics
import subprocess
import time

import processes
from processes import Generator, NatsServer, Ring, cpu_s, machine_busy_s, switches

FORMATS = ["update-v1", "update-v1-concat", "batch-v2"]
SUBJECTS = {4: 1, 400: 100}  # routers; two peers, two families each
PROCESSES = ["bmpgen", "ingestd", "publishd", "nats-server", "curated"]


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
    tables = {**processes.DEFAULTS, "publish": {"format": fmt}}
    if args.batch_bytes:
        tables["publish"]["batch_bytes"] = args.batch_bytes
    if args.batch_count:
        tables["publish"]["batch_count"] = args.batch_count
    return processes.settings_of(args.set, tables)


def run_load(load, generator, ring, pids, nats, pipeline, args, name):
    generator.ready(load)
    perf = Perf(args.perf, f"{name}-{load}", pids)
    # The first updates of a pipeline are there (Peer Up makes none), heads have come to rest.
    before_sequence, before_tail = ring.next_sequence(), ring.tail()
    threads = {p: processes.thread_cpu_s(pid) for p, pid in pids.items()}
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
            found = generator.sent(load)
        head = ring.head()
        if found and ring.next_sequence() - before_sequence == found[0] and head == ring.tail():
            break
        if head != progress:
            progress, progress_at = head, now
        if now > progress_at + 20:
            raise RuntimeError(f"{load}: nothing acked for 20 s, {ring.next_sequence() - before_sequence} updates in the "
                               f"ring so far, {ring.tail() - head} bytes of them not acked:\n" + pipeline.log_text())
        time.sleep(0.002)
    updates, sent_bytes, generator_cpu = found
    seconds = now - start
    after = {p: cpu_s(pid) for p, pid in pids.items()}
    busy = machine_busy_s() - busy
    threads = {p: max(s - threads[p].get(task, 0) for task, s in processes.thread_cpu_s(pid).items()) for p, pid in pids.items()}
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
        "busiest_thread_s_per_million": {p: s / million for p, s in threads.items()},
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


def run_pipeline(fmt, subjects, args):
    routers = SUBJECTS[subjects]
    extra, environment = args.nats_conf.replace("\\n", "\n"), dict(e.split("=", 1) for e in args.nats_env)
    results = {}
    with NatsServer(args.store, extra, environment) as nats:
        with processes.pipeline(args, shards=1, settings=settings_of(args, fmt), nats=nats.url) as p:
            ring = Ring(os.path.join(p.run_dir, "ring-0"))
            pids = {"ingestd": p.pid("ingestd@0"), "publishd": p.pid("publishd"), "nats-server": nats.pid, "curated": p.process.pid}
            with Generator(args.build, p.bmp, routers, 2, args.routes // routers // 2, args.churn // routers, args.seed) as generator:
                for load in ("dump", "churn"):
                    results[load] = run_load(load, generator, ring, pids, nats, p, args, f"{fmt}-{subjects}")
                    if load not in args.loads:
                        del results[load]
                    if load == args.loads[-1]:
                        break
        if not args.no_limit:
            for result in results.values():
                run_limit(result, subjects, nats, processes.binary(args.build, "nats_limit"))
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
    lines = []
    for row in rows:
        m = row["median"]
        lines.append([row["format"], row["subjects"], row["load"], f"{m['updates_per_s'] / 1e6:.3f}",
                      "{:.2f}-{:.2f}".format(*(v / 1e6 for v in row["updates_per_s_range"])),
                      *[f"{m['cpu_s_per_million'][p]:.3f}" for p in PROCESSES], f"{m['cpu_sum']:.2f}", f"{m['cpu_all']:.2f}",
                      f"{m['updates_per_message']:.0f}", f"{m['bytes_per_message'] / 1024:.1f}", f"{m['full']:.0%}",
                      f"{m['wire_bytes_per_update']:.0f}", f"{m['ring_bytes_per_update']:.0f}",
                      *([f"{m['limit']['updates_per_s'] / 1e6:.2f}", f"{m['of_limit']:.0%}",
                         f"{m['limit']['nats_cpu_s_per_million']:.3f}"] if "limit" in m else ["-", "-", "-"])])
    return processes.text_table(head, lines)


def flat(rows):
    """Keys of tools/bench. The head figures e2e.FORMAT.updates_per_s are of the table dump of one router."""
    figures = processes.Figures()
    for row in rows:
        name = "e2e." + row["format"].removeprefix("update-").replace("-", "_")
        if row["format"] == "batch-v2":
            name = "e2e.batch_v2"
        head = row["subjects"] == 4 and row["load"] == "dump"
        key = name if head else f"{name}.{row['load']}.{row['subjects']}_subjects"
        for r in row["runs"]:
            figures.add(key + ".updates_per_s", r["updates_per_s"])
            figures.add(key + ".cpu_s_per_million_updates", r["cpu_sum"])
            for process, seconds in r["cpu_s_per_million"].items():
                figures.add(f"{key}.cpu_s_per_million_{process}", seconds, detail=not head)
            figures.add(key + ".publishd_busiest_thread_s_per_million", r["busiest_thread_s_per_million"]["publishd"], detail=not head)
            if "of_limit" in r:
                figures.add(key + ".of_server_limit", r["of_limit"])
            if head and row["format"] == "update-v1-concat":
                figures.add("publishd.cpu_s_per_million_updates", r["cpu_s_per_million"]["publishd"])
    return figures


def main():
    parser = processes.parser(__doc__, quick="100,000 of each, once: shows that it works, measures little")
    parser.add_argument("--formats", default="update-v1-concat,batch-v2", help="of " + ", ".join(FORMATS))
    parser.add_argument("--subjects", default="4,400")
    parser.add_argument("--loads", default="dump,churn")
    parser.add_argument("--routes", type=int, default=1_000_000, help="of the table dump, all peers together")
    parser.add_argument("--churn", type=int, default=1_000_000, help="updates of the churn")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--batch-bytes", type=int, default=0, help="[publish] batch_bytes, 0: the default")
    parser.add_argument("--batch-count", type=int, default=0, help="[publish] batch_count, 0: the default")
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=JSON", help="another setting")
    parser.add_argument("--nats-conf", default="", help="lines for nats-server's configuration")
    parser.add_argument("--nats-env", action="append", default=[], metavar="NAME=VALUE", help="in nats-server's environment")
    parser.add_argument("--store", default="/var/tmp", help="disk on which nats-server stores")
    parser.add_argument("--no-limit", action="store_true", help="without the limit of the server alone")
    parser.add_argument("--perf", default="", metavar="DIR", help="perf record every process (and slow it down by that)")
    parser.add_argument("--detail", default="", metavar="FILE", help="JSON: each run, medians, machine")
    args = processes.parse(parser)
    args.loads = args.loads.split(",")
    if args.quick:
        args.routes, args.churn = 100_000, 100_000
    machine = {"cores": processes.describe_machine(args.build),
               "nats_server": subprocess.run(["nats-server", "--version"], capture_output=True, text=True).stdout.strip()}
    print(f"{machine['cores']}, {machine['nats_server']}, store on {args.store}", flush=True)
    runs = {}
    for n in range(args.repeat):
        for fmt in args.formats.split(","):
            for subjects in map(int, args.subjects.split(",")):
                for load, result in run_pipeline(fmt, subjects, args).items():
                    runs.setdefault((fmt, subjects, load), []).append(result)
                    processes.progress(f"{n + 1}/{args.repeat} {fmt} {subjects} {load}: {result['updates_per_s'] / 1e6:.3f} M "
                                       f"updates/s, {result['cpu_sum']:.2f} CPU s per million")
    rows = []
    for (fmt, subjects, load), results in runs.items():
        rates = [r["updates_per_s"] for r in results]
        rows.append({"format": fmt, "subjects": subjects, "load": load, "median": median_of(results),
                     "updates_per_s_range": [min(rates), max(rates)], "runs": results})
    rows.sort(key=lambda r: (FORMATS.index(r["format"]), r["subjects"], r["load"] != "dump"))
    print(table(rows))
    print("CPU: seconds per million updates. wire, ring: bytes per update. full: of batch_bytes. --help has the method.")
    flat(rows).write(args.json)
    if args.detail:
        with open(args.detail, "w") as f:
            json.dump({"machine": machine, "arguments": vars(args), "rows": rows}, f, indent=1)


if __name__ == "__main__":
    main()
