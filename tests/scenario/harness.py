"""Starts the real pipeline (curated --supervise with its own nats-server) in temporary directories and talks to it with
the operator's tools. For tests: every wait has a deadline and a condition."""
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

BUILD = os.environ.get("ARANCINI_BUILD") or os.path.join(os.path.dirname(__file__), "..", "..", "build")
BUILD = os.path.abspath(BUILD)
REPO = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
SKIP = 77


def binary(name):
    folder = {"ingestd": "ingestd", "publishd": "publishd", "curated": "curated"}.get(name, "tools")
    return os.path.join(BUILD, folder, name)


def skip(why):
    print("skipped:", why)
    sys.exit(SKIP)


def needs_metric(name):
    """Skips a scenario of something that the daemons of this tree do not have."""
    with open(os.path.join(REPO, "docs", "metrics.md")) as f:
        if f"`{name}`" not in f.read():
            skip(f"there is no {name}")


class SmallDisk:
    """A tmpfs of its own, to be filled. Needs root: see SmallDisk.possible()."""

    def __init__(self, mebibytes):
        self.path = tempfile.mkdtemp(prefix="arancini-disk-")
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mebibytes}M,mode=0755", "arancini-test", self.path], check=True)

    @staticmethod
    def possible():
        return os.geteuid() == 0 and subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"],
                                                    capture_output=True).returncode == 0

    def resize(self, mebibytes):
        subprocess.run(["mount", "-o", f"remount,size={mebibytes}M", self.path], check=True)

    def free_bytes(self):
        s = os.statvfs(self.path)
        return s.f_bavail * s.f_frsize

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # Whoever still holds a file there is a process that ends now.
        subprocess.run(["umount", "-l", self.path], check=True)
        os.rmdir(self.path)


def wait_for(what, condition, seconds=30, step=0.05):
    """Polls until condition() is truthy and returns it; fails with `what` at the deadline."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not in {seconds} s: {what}")
        time.sleep(step)


class Pipeline:
    def __init__(self, shards=2, settings=None, prefix=(), bmp="127.0.0.1:0", metrics="127.0.0.1:0", args=(),
                 nats="embedded", read_from=None, state=None):
        """settings: {table: {key: value}} for the TOML file. prefix: command prefix, e.g. `ip netns exec X`. nats: URLs of
        servers that the test runs itself; read_from: the URL that the tools use then. state: the state directory."""
        self.dir = tempfile.mkdtemp(prefix="arancini-test-")
        base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else self.dir
        self.run_dir = tempfile.mkdtemp(prefix="arancini-run-", dir=base)
        self.prefix = list(prefix)
        self.args = ["--supervise", "--config", os.path.join(self.dir, "arancini.toml"), "--runtime-dir", self.run_dir,
                     "--state-dir", state or os.path.join(self.dir, "state"), "--bmp-listen", bmp, "--metrics-listen", metrics,
                     "--nats", nats, "--shards", str(shards), *args]
        tables = {"curation": {"session_grace_s": 1.0, "resync_settle_s": 0.2, "resync_timeout_s": 3.0},
                  "ring": {"size_bytes": 16 * 1024 * 1024}}
        for table, keys in (settings or {}).items():
            tables.setdefault(table, {}).update(keys)
        with open(os.path.join(self.dir, "arancini.toml"), "w") as f:
            for table, keys in tables.items():
                f.write(f"[{table}]\n")
                for key, value in keys.items():
                    f.write(f"{key} = {json.dumps(value)}\n")
        self.log_path = os.path.join(self.dir, "log")
        self.process = None
        self.read_from = read_from
        self.start()

    def start(self):
        self.log = open(self.log_path, "ab")
        self.process = subprocess.Popen(self.prefix + [binary("curated"), *self.args], stdout=subprocess.PIPE,
                                        stderr=self.log, text=True)
        line = ""
        while not line.startswith("arancini ready:"):
            line = self.process.stdout.readline()
            if not line:
                raise AssertionError("the pipeline did not start:\n" + self.log_text())
        words = dict(w.split("=", 1) for w in line.split()[2:])
        self.bmp = words["bmp"]
        host, port = words["bmp"].rsplit(":", 1)
        self.bmp_address = (host.strip("[]"), int(port))
        self.nats = self.read_from or words["nats"]
        self.metrics = words["metrics"]

    def log_text(self):
        with open(self.log_path, errors="replace") as f:
            return f.read()[-8000:]

    def log_lines(self, *words):
        """Lines of the whole log that hold all of these."""
        with open(self.log_path, errors="replace") as f:
            return [line.rstrip() for line in f if all(w in line for w in words)]

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.send_signal(signal.SIGCONT)  # a test may have stopped it
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise AssertionError("SIGTERM did not stop the pipeline:\n" + self.log_text())
        self.log.close()
        return self.process.returncode

    def close(self):
        try:
            self.stop()
        finally:
            shutil.rmtree(self.run_dir, ignore_errors=True)
            shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind and not issubclass(kind, SystemExit):
            print("---- log of the pipeline ----\n" + self.log_text(), file=sys.stderr)
        self.close()

    # -- the operator's tools ------------------------------------------------------------------------------------
    def command(self, *args, check=True, timeout=120):
        r = subprocess.run(self.prefix + list(args), capture_output=True, text=True, timeout=timeout)
        if check and r.returncode != 0:
            raise AssertionError(f"{' '.join(args)}: exit {r.returncode}\n{r.stdout[-2000:]}{r.stderr[-2000:]}")
        return r

    def aranctl(self, *args, check=True, timeout=120):
        return self.command(binary("aranctl"), "--runtime-dir", self.run_dir, *args, check=check, timeout=timeout)

    def status(self):
        return json.loads(self.aranctl("status", "--json").stdout)

    def routers(self):
        out = json.loads(self.aranctl("routers", "--json").stdout)
        return out["routers"] if isinstance(out, dict) else out

    def peers(self):
        out = json.loads(self.aranctl("peers", "--json").stdout)
        return out["peers"] if isinstance(out, dict) else out

    def fold_text(self):
        return self.aranctl("fold", "--nats", self.nats, "--json").stdout

    def fold(self):
        return [json.loads(line) for line in self.fold_text().splitlines()]

    def audit(self, check=True):
        return json.loads(self.aranctl("audit", "--nats", self.nats, "--json", check=check).stdout)

    def metrics_text(self):
        return urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=10).read().decode()

    def metric(self, name):
        """Sum over all label sets; 0 while no process shows it."""
        total, found = 0.0, False
        for line in self.metrics_text().splitlines():
            if line.split("{")[0].split(" ")[0] == name:
                total += float(line.rsplit(" ", 1)[1])
                found = True
        if not found:
            with open(os.path.join(REPO, "docs", "metrics.md")) as f:
                assert f"`{name}`" in f.read(), f"there is no metric {name}"
        return total

    def metric_by(self, name, label):
        """{value of the label: value of the metric}"""
        out = {}
        for line in self.metrics_text().splitlines():
            if line.startswith(name + "{"):
                key = line.split(label + '="')[1].split('"')[0]
                out[key] = out.get(key, 0.0) + float(line.rsplit(" ", 1)[1])
        return out

    def events(self):
        """All that the events stream holds."""
        text = self.aranctl("tail", "--nats", self.nats, "--events", "--all", "--json").stdout
        return [json.loads(line) for line in text.splitlines()]

    def pid(self, process):
        for p in self.status()["processes"]:
            if p["name"] == process:
                return int(p["pid"])
        raise AssertionError(f"no process {process}")

    def drained(self):
        """Rings and journal are empty: what was written is acked."""
        return (all(int(s["ring_used_bytes"]) == 0 for s in self.status()["shards"]) and
                self.metric("arancini_publish_journal_bytes") == 0)


class Load:
    """Routers that send a table dump, then churn over and over until finish(): each round of churn ends in the same tables,
    which are `truth`. rate: bytes per second of each router's churn (a single-prefix UPDATE has about 130), 0 for all that
    the collector takes."""

    def __init__(self, pipeline, routers=1, peers=2, prefixes=10000, churn=20000, seed=1, rate=0, first="127.0.5.1"):
        self.target, self.rate = pipeline.bmp_address, rate
        base = os.path.join(pipeline.dir, f"load-{first}-{seed}")
        common = ["--routers", str(routers), "--peers", str(peers), "--prefixes", str(prefixes), "--seed", str(seed),
                  "--source", first]
        # The dump is the beginning of dump and churn.
        pipeline.command(binary("bmpgen"), "--out", base + ".dump", *common)
        pipeline.command(binary("bmpgen"), "--out", base + ".all", *common, "--churn", str(churn), "--truth", base + ".truth")
        with open(base + ".truth") as f:
            self.truth = f.read().splitlines()
        self.finishing = threading.Event()
        self.failures = []
        self.sent = [0] * routers  # bytes
        self.threads = []
        host, number = first.rsplit(".", 1)
        for r in range(routers):
            suffix = f".{r}" if routers > 1 else ""
            with open(base + ".all" + suffix, "rb") as f:
                data = f.read()
            split = os.path.getsize(base + ".dump" + suffix)
            source = f"{host}.{int(number) + r}"
            self.threads.append(threading.Thread(target=self._router, args=(r, source, data, split), daemon=True))
        self.sockets = []
        for t in self.threads:
            t.start()

    def _router(self, router, source, data, split):
        try:
            s = socket.create_connection(self.target, source_address=(source, 0))
            self.sockets.append(s)
            self._send(router, s, memoryview(data)[:split], 0)
            while not self.finishing.is_set():
                self._send(router, s, memoryview(data)[split:], self.rate)
        except OSError as e:
            self.failures.append(f"{source}: {e}")

    def _send(self, router, s, data, rate):
        step = max(min(rate // 50, 1 << 16), 1) if rate else 1 << 16
        due = time.monotonic()
        for at in range(0, len(data), step):
            s.sendall(data[at:at + step])
            self.sent[router] += min(step, len(data) - at)
            if rate and not self.finishing.is_set():
                due += step / rate
                self.finishing.wait(max(due - time.monotonic(), 0))

    def alive(self):
        """No session was ended by the collector."""
        for s in self.sockets:
            try:
                if s.recv(1, socket.MSG_DONTWAIT) == b"":
                    self.failures.append("the collector closed a session")
            except BlockingIOError:
                pass
        assert not self.failures, self.failures
        return True

    def finish(self, seconds=120):
        """Sends the round of churn to its end; the sessions stay open."""
        self.finishing.set()
        deadline = time.monotonic() + seconds
        for t in self.threads:
            t.join(max(deadline - time.monotonic(), 0.1))
            assert not t.is_alive(), "the collector does not read"
        return self.alive()

    def close(self):
        self.finishing.set()
        for s in self.sockets:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for t in self.threads:
            t.join(10)
        for s in self.sockets:
            s.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def check_stream(pipeline, load, seconds=120):
    """After load.finish(): fold equals the truth, nothing is missing, twice or out of order; returns the number of updates."""
    wait_for("all is read", lambda: pipeline.metric("arancini_ingest_received_bytes_total") >= sum(load.sent), seconds, 0.2)
    wait_for("the rings are drained", pipeline.drained, seconds, 0.2)
    folded_equals(pipeline, load.truth, seconds)
    audit = pipeline.audit()
    assert audit["gaps"] == 0 and audit["duplicates"] == 0 and audit["order_violations"] == 0, audit
    return audit["records"]


def folded_equals(pipeline, expected_lines, seconds=60):
    """Waits until fold gives exactly the expected lines (a list of JSON texts, sorted as fold sorts)."""
    def same():
        return pipeline.fold_text().splitlines() == expected_lines
    try:
        wait_for("fold equals the expected table", same, seconds, step=0.3)
    except AssertionError:
        got, want = set(pipeline.fold_text().splitlines()), set(expected_lines)
        for line in sorted(want - got)[:5]:
            print("missing:", line, file=sys.stderr)
        for line in sorted(got - want)[:5]:
            print("extra:  ", line, file=sys.stderr)
        raise
