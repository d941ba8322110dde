"""What the benchmarks that run whole processes share: starting them on chosen cores, their CPU clocks, headers of rings, pages of
counters, and figures with median and spread in the flat JSON that tools/bench collects."""
import argparse
import ctypes
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

LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1
HERE = os.path.dirname(os.path.abspath(__file__))
REPO = os.path.abspath(os.path.join(HERE, "..", ".."))
sys.path.insert(0, os.path.join(HERE, "..", "scenario"))

CORES = sorted(os.sched_getaffinity(0))
INGEST_CORES = {CORES[0]}  # of ingestd; all else runs on the other ones
OTHER_CORES = set(CORES[1:]) or {CORES[0]}


# -- the command line -----------------------------------------------------------------------------------------------

def parser(doc, repeat=3, quick="a tenth of everything, once: shows that it works, measures little"):
    p = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--build", default=os.environ.get("ARANCINI_BUILD") or os.path.join(REPO, "build"), help="build directory")
    p.add_argument("--json", default="", metavar="FILE", help="flat object of numbers: KEY is the median, KEY.min and KEY.max")
    p.add_argument("--quick", action="store_true", help=quick)
    p.add_argument("--before-others", action="store_true",
                   help="in a session of its own that the scheduler prefers to all others (nice -20, needs root): for shared machines")
    p.add_argument("--repeat", type=int, default=repeat, metavar="N", help=f"runs of each, default {repeat}")
    return p


def parse(p):
    args = p.parse_args()
    args.build = os.path.abspath(args.build)
    os.environ["ARANCINI_BUILD"] = args.build  # for harness.py, which is imported later
    os.environ["PATH"] += ":/usr/local/sbin:/usr/sbin"
    if args.quick:
        args.repeat = 1
    if args.before_others:
        prefer_session()
    return args


def prefer_session():
    """This process and its children before other programs, whether the kernel compares sessions (autogroups) or threads."""
    if os.fork():  # a group leader cannot begin a session; and who waits gets the result
        try:
            status = os.wait()[1]
        except KeyboardInterrupt:
            os._exit(130)
        os._exit(os.waitstatus_to_exitcode(status))
    os.setsid()
    os.setpriority(os.PRIO_PROCESS, 0, -20)
    prefer_session_of(os.getpid())


def prefer_session_of(pid):
    path = f"/proc/{pid}/autogroup"
    if os.path.exists(path):
        with open(path, "w") as f:
            f.write("-20")


def pipeline(args, **options):
    """harness.Pipeline, whose daemons have sessions of their own."""
    import harness
    started = harness.Pipeline(**options)
    if args.before_others:
        for process in started.status()["processes"]:
            prefer_session_of(process["pid"])
    return started


def settings_of(pairs, tables=None):
    """["TABLE.KEY=JSON"] into {table: {key: value}}."""
    tables = {t: dict(keys) for t, keys in (tables or {}).items()}
    for text in pairs:
        key, value = text.split("=", 1)
        table, key = key.split(".", 1)
        tables.setdefault(table, {})[key] = json.loads(value)
    return tables


# For harness.Pipeline, whose own are for tests.
DEFAULTS = {"ring": {"size_bytes": 64 * 1024 * 1024},
            "curation": {"session_grace_s": 300.0, "resync_timeout_s": 300.0, "resync_settle_s": 5.0}}


def write_toml(path, tables):
    with open(path, "w") as f:
        for table, keys in tables.items():
            f.write(f"[{table}]\n")
            for key, value in keys.items():
                f.write(f"{key} = {json.dumps(value)}\n")


def binary(build, name):
    folder = {"ingestd": "ingestd", "publishd": "publishd", "curated": "curated", "bmpgen": "tools", "aranctl": "tools",
              "bmpreplay": "tools"}.get(name, "tests/bench")
    return os.path.join(build, folder, name)


# -- the machine ----------------------------------------------------------------------------------------------------

def core_to_core_ns(build):
    """One way from core to core, by ring_bench; None where there is only one core."""
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        r = subprocess.run([binary(build, "ring_bench"), "--latency-only", "--json", out.name], capture_output=True, text=True)
        return json.load(out)["c2c_latency_ns"] if r.returncode == 0 else None


def describe_machine(build):
    ns = core_to_core_ns(build)
    far = "" if ns is None else f", core to core {ns:.0f} ns ({'near' if ns < 120 else 'far'})"
    return f"{len(CORES)} cores{far}, load average {os.getloadavg()[0]:.2f}"


def cpu_s(pid):
    """CPU of all threads, exact: MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED) of the kernel."""
    return time.clock_gettime((~pid << 3) | 2)


def thread_cpu_s(pid):
    """{thread: CPU seconds so far}"""
    out = {}
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/schedstat") as f:
            out[task] = int(f.read().split()[0]) * 1e-9
    return out


def switches(pid):
    """Context switches of each thread so far."""
    out = {}
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/status") as f:
            text = f.read()
        out[task] = sum(int(n) for n in re.findall(r"ctxt_switches:\s+(\d+)", text))
    return out


def resident_bytes(pid, what="VmRSS"):
    """VmRSS, or VmHWM: the greatest so far. Without what is shared with others: rings."""
    with open(f"/proc/{pid}/status") as f:
        found = dict(re.findall(r"^(\w+):\s+(\d+) kB", f.read(), re.M))
    return (int(found[what]) - (int(found["RssShmem"]) if what == "VmRSS" else 0)) * 1024


def machine_busy_s():
    with open("/proc/stat") as f:
        user, nice, system, _, _, irq, softirq, _ = map(int, f.readline().split()[1:9])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def until(what, condition, seconds=60, step=0.005):
    """Polls until condition() is truthy and returns it."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise RuntimeError(f"not in {seconds} s: {what}")
        time.sleep(step)


def start(command, cores=None, fifo=False, **options):
    """A child on these cores, which ends with us. fifo: before all ordinary programs (SCHED_FIFO; needs root)."""
    def prepare():
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if cores:
            os.sched_setaffinity(0, cores)
        if fifo:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    return subprocess.Popen(command, preexec_fn=prepare, **options)  # noqa: PLW1509: no threads here


def may_use_fifo():
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        return True
    except PermissionError:
        return False


def end(process):
    if process.poll() is None:
        process.kill()
    process.wait()


# -- shared memory --------------------------------------------------------------------------------------------------

class Ring:
    """The header of a ring file (shm-layout/ring_header.h)."""
    ABI = 3

    def __init__(self, path):
        with open(path, "rb") as f:
            self.memory = mmap.mmap(f.fileno(), 4096, prot=mmap.PROT_READ)
        if struct.unpack_from("<I", self.memory, 8)[0] != self.ABI:
            raise RuntimeError(f"{path}: the ring's layout is another one: adapt Ring in processes.py")

    def _u64(self, at):
        return struct.unpack_from("<Q", self.memory, at)[0]

    def capacity(self):
        return self._u64(24)

    def tail(self):
        return self._u64(128)

    def head(self):
        return self._u64(256)

    def used(self):
        return self.tail() - self.head()

    def next_sequence(self):
        """That of the next update to be written; 0 while it is being stored."""
        tail = self.tail()
        for slot in (144, 176):
            if self._u64(slot) == tail:
                return self._u64(slot + 8)
        return 0


class Stats:
    """The counters of a daemon's page (shm-layout/stats_page.h), by the names of common/metrics/metric_list.h."""
    ABI = 3

    def __init__(self, path, enum="IngestMetric"):
        with open(path, "rb") as f:
            self.memory = mmap.mmap(f.fileno(), 4096, prot=mmap.PROT_READ)
        if struct.unpack_from("<I", self.memory, 8)[0] != self.ABI:
            raise RuntimeError(f"{path}: the page's layout is another one: adapt Stats in processes.py")
        with open(os.path.join(REPO, "common", "metrics", "metric_list.h")) as f:
            body = re.search(rf"enum class {enum} : std::size_t {{(.*?)}};", f.read(), re.S)[1]
        self.names = re.findall(r"^\s*(\w+),?", re.sub(r"//[^\n]*", "", body), re.M)

    def value(self, name):
        return struct.unpack_from("<Q", self.memory, 128 + 8 * self.names.index(name))[0]

    def heartbeat(self):
        return struct.unpack_from("<Q", self.memory, 40)[0]

    def settled(self):
        """Gauges and what is copied into the page at times are as of a moment after this call."""
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        until("the daemon's page is refreshed", lambda: self.heartbeat() > now, 10)
        return self


# -- processes ------------------------------------------------------------------------------------------------------

class Ingestd:
    """ingestd alone: no publishd, no curated. `settings` as in settings_of()."""

    def __init__(self, build, io="auto", settings=None, shard=0, shards=1, cores=None, beside=None, fifo=False, wrap=()):
        """beside: another Ingestd whose directory and address it shares. wrap: a command before it that becomes it, as valgrind."""
        self.dir = beside.dir if beside else tempfile.mkdtemp(
            prefix="ingest-bench-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
        self.owns_dir = beside is None
        self.port = beside.port if beside else free_port()
        self.bmp = f"127.0.0.1:{self.port}"
        config = os.path.join(self.dir, f"config-{shard}")
        write_toml(config, settings_of([], {"shards": {"count": shards, "pin": False}, "snapshot": {"store": "none"},
                                            **(settings or {})}))
        self.log_path = os.path.join(self.dir, f"log-{shard}")
        ready_path = os.path.join(self.dir, f"notify-{shard}")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready, open(self.log_path, "wb") as log:
            ready.bind(ready_path)
            ready.settimeout(0.2)
            self.process = start([*wrap, binary(build, "ingestd"), "--shard", str(shard), "--config", config, "--runtime-dir",
                                  self.dir, "--state-dir", os.path.join(self.dir, "state"), "--bmp-listen", self.bmp, "--io", io,
                                  "--no-restore"], cores, fifo, stdout=log, stderr=log, env=dict(os.environ, NOTIFY_SOCKET=ready_path))
            while True:
                try:
                    if b"READY=1" in ready.recv(4096):
                        break
                except TimeoutError:
                    if self.process.poll() is not None:
                        raise RuntimeError("ingestd did not start: " + self.log_text()) from None
        self.ring_path = os.path.join(self.dir, f"ring-{shard}")
        self.ring = Ring(self.ring_path)
        self.stats = Stats(os.path.join(self.dir, f"ingestd@{shard}.stats"))
        self.pid = self.process.pid

    def log_text(self):
        with open(self.log_path, errors="replace") as f:
            return f.read()[-4000:]

    def close(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                end(self.process)
        if self.owns_dir:
            # Rings on huge pages are elsewhere, and these are links to them.
            for name in os.listdir(self.dir):
                path = os.path.join(self.dir, name)
                if name.startswith("ring-") and os.path.islink(path) and os.path.exists(path):
                    os.unlink(os.path.realpath(path))
            shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Counting:
    """A program that answers `wait N` (tests/bench/progress.h)."""

    def __init__(self, command, cores=None, fifo=False):
        self.process = start(command, cores, fifo, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self.process.stdout.readline().strip() != "ready":
            raise RuntimeError(f"{command[0]} did not start")
        self.pid = self.process.pid

    def wait(self, count, seconds=120):
        """time.monotonic() when that many were done. Raises when it is another number in the end."""
        self.process.stdin.write(f"wait {count}\n")
        self.process.stdin.flush()
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            raise RuntimeError(f"{count} did not come in {seconds} s")
        done, at_ns, _ = map(int, self.process.stdout.readline().split())
        if done != count:
            raise RuntimeError(f"{done} came where {count} should")
        return at_ns * 1e-9

    def close(self):
        end(self.process)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def ring_drain(build, rings, cores=None, every_us=500, fifo=False):
    command = [binary(build, "ring_drain"), "--every-us", str(every_us)]
    for path in rings:
        command += ["--ring", path]
    return Counting(command, cores, fifo)


def tcp_drain(build, port, sessions, cores=None):
    return Counting([binary(build, "tcp_drain"), "--port", str(port), "--sessions", str(sessions)], cores)


class Generator:
    """bmpgen --step: everything is made before it says "dump: ready"."""

    def __init__(self, build, to, routers=1, peers=4, prefixes=250_000, churn=0, seed=1, source="", cores=None, extra=()):
        command = [binary(build, "bmpgen"), "--to", to, "--routers", str(routers), "--peers", str(peers), "--prefixes", str(prefixes),
                   "--churn", str(churn), "--seed", str(seed), "--step", "--hold", "600", *extra]
        if source:
            command += ["--source", source]
        self.process = start(command, cores, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def line(self, pattern):
        line = self.process.stdout.readline()
        found = re.match(pattern, line)
        if not found:
            raise RuntimeError(f"bmpgen: {line!r}")
        return found

    def ready(self, load):
        self.line(load + ": ready")

    def begin(self):
        now = time.monotonic()
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return now

    def sent(self, load):
        """(updates, bytes, CPU seconds of sending) when all is sent."""
        found = self.line(load + r": (\d+) updates, (\d+) bytes sent in ([\d.]+) s with ([\d.]+) s of CPU")
        return int(found[1]), int(found[2]), float(found[4])

    def close(self):
        end(self.process)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class NatsServer:
    def __init__(self, store="/var/tmp", extra="", environment=None, cores=None, jetstream=""):
        """extra: lines of its configuration, jetstream: of that block."""
        self.dir = tempfile.mkdtemp(prefix="bench-nats-", dir=store)
        self.port, self.http = free_port(), free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        with open(os.path.join(self.dir, "conf"), "w") as f:
            f.write(f'listen: "127.0.0.1:{self.port}"\nhttp: "127.0.0.1:{self.http}"\n'
                    f'jetstream {{ store_dir: "{self.dir}/store"\n{jetstream} }}\n{extra}\n')
        self.environment, self.cores = dict(os.environ, **(environment or {})), cores
        self.log = open(os.path.join(self.dir, "log"), "wb")  # noqa: SIM115: the process's, until close()
        self.start()

    def start(self):
        self.process = start(["nats-server", "-c", os.path.join(self.dir, "conf")], self.cores, stdout=self.log, stderr=self.log,
                             env=self.environment)
        self.pid = self.process.pid

        def answers():
            try:
                return self.varz()
            except OSError:
                if self.process.poll() is not None:
                    raise RuntimeError("nats-server did not start: see " + self.dir) from None
                return None
        until("nats-server answers", answers, 10, 0.05)

    def varz(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/varz", timeout=10) as r:
            return json.load(r)

    def close(self):
        self.process.terminate()
        self.process.wait()
        self.log.close()
        shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


# -- figures --------------------------------------------------------------------------------------------------------

class Figures:
    """Values of the runs by key; keys with dots as in tools/bench."""

    def __init__(self):
        self.runs = {}
        self.details = set()

    def add(self, key, value, detail=False):
        """detail: for the program's own table, not for the JSON."""
        self.runs.setdefault(key, []).append(value)
        if detail:
            self.details.add(key)

    def median(self, key):
        return statistics.median(self.runs[key])

    def spread(self, key, scale=1.0, digits=2):
        """"median (least-greatest)", or "-" where there is nothing."""
        if key not in self.runs:
            return "-"
        v = [x * scale for x in self.runs[key]]
        return f"{statistics.median(v):.{digits}f}" + (f" ({min(v):.{digits}f}-{max(v):.{digits}f})" if len(v) > 1 else "")

    def flat(self):
        out = {}
        for key, values in self.runs.items():
            if key in self.details:
                continue
            out[key] = statistics.median(values)
            out[key + ".min"], out[key + ".max"] = min(values), max(values)
        return out

    def write(self, path):
        if path:
            with open(path, "w") as f:
                json.dump(self.flat(), f, indent=1)


def text_table(head, rows, left=1):
    """Lines; the first `left` columns are flush left."""
    lines = [head, *rows]
    widths = [max(len(str(line[i])) for line in lines) for i in range(len(head))]
    return "\n".join("  ".join(str(c).ljust(w) if i < left else str(c).rjust(w) for i, (c, w) in enumerate(zip(line, widths)))
                     .rstrip() for line in lines)


def progress(text):
    print("  " + text, file=sys.stderr, flush=True)
