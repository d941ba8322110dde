#!/usr/bin/env python3
"""curated --supervise as a whole, with fake daemons under it: start, restart, adoption, stop, refusals.

usage: supervise_test.py CURATED FAKE_DAEMON ARANCTL"""
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.request

CURATED, FAKE, ARANCTL = map(os.path.abspath, sys.argv[1:4])


def until(what, condition, seconds=15):
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.02)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Supervise(unittest.TestCase):
    def setUp(self):
        self.work = tempfile.mkdtemp(prefix="arancini-sup-")
        self.run_dir, self.state_dir = self.work + "/run", self.work + "/state"
        self.libexec = self.work + "/libexec"
        os.mkdir(self.libexec)
        for name in ("ingestd", "publishd"):
            os.symlink(FAKE, f"{self.libexec}/{name}")
        self.processes, self.children = [], set()

    def tearDown(self):
        for p in self.processes:
            if p.poll() is None:
                p.terminate()
            try:
                p.wait(20)
            except subprocess.TimeoutExpired:
                p.kill()
            p.stdout.close()
        for pid in self.children:  # only what our own supervisors started and left behind
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.work)

    def start(self, *arguments, nats="nats://127.0.0.1:1", shards=2, bmp="127.0.0.1:0",
              metrics="127.0.0.1:0", ready=True):
        env = dict(os.environ, ARANCINI_LIBEXEC=self.libexec)
        log = open(f"{self.work}/log{len(self.processes)}", "w+")
        p = subprocess.Popen(
            [CURATED, "--supervise", "--runtime-dir", self.run_dir, "--state-dir", self.state_dir, "--bmp-listen", bmp,
             "--metrics-listen", metrics, "--nats", nats, "--shards", str(shards), *arguments],
            stdout=subprocess.PIPE, stderr=log, text=True, env=env)
        self.processes.append(p)
        p.log = log.name
        log.close()
        if ready:
            line = p.stdout.readline()
            match = re.fullmatch(r"arancini ready: bmp=(\S+) nats=(\S+) metrics=(\S+) runtime=(\S+)\n", line)
            self.assertTrue(match, f"{line!r}, log: {self.log(p)}")
            p.bmp, p.nats, p.metrics, runtime = match.groups()
            self.assertEqual(runtime, self.run_dir)
            self.children.update(self.pids(shards))
        return p

    def log(self, p):
        with open(p.log) as f:
            return f.read()

    def pid(self, page):
        with open(f"{self.run_dir}/{page}.stats", "rb") as f:  # shm-layout/stats_page.h
            return struct.unpack_from("<I", f.read(32), 28)[0]

    def pids(self, shards=2):
        pids = [self.pid(f"ingestd@{k}") for k in range(shards)] + [self.pid("publishd")]
        self.children.update(pids)
        return pids

    def get(self, p, path):
        try:
            with urllib.request.urlopen(f"http://{p.metrics}{path}", timeout=10) as r:
                return r.status, r.read().decode()
        except urllib.error.HTTPError as e:
            with e:
                return e.code, e.read().decode()

    def connect(self, p):
        host, port = p.bmp.rsplit(":", 1)
        return socket.create_connection((host, int(port)), timeout=5)

    def test_runs_restarts_and_stops(self):
        p = self.start()
        self.assertEqual(self.get(p, "/healthz"), (200, "ok: 4 processes run, NATS connected\n"))
        self.assertEqual(os.stat(self.run_dir).st_mode & 0o777, 0o750)
        self.assertEqual(os.stat(self.state_dir).st_mode & 0o777, 0o750)
        before = self.pids()

        # A killed ingestd comes back; while it is away, routers still connect.
        os.kill(before[0], signal.SIGKILL)
        with self.connect(p), self.connect(p):
            until("restart", lambda: self.pid("ingestd@0") != before[0])
        until("healthy", lambda: self.get(p, "/healthz")[0] == 200)
        self.assertEqual(self.pids()[1:], before[1:])
        self.assertIn('arancini_process_restarts_total{process="ingestd@0"} 1\n', self.get(p, "/metrics")[1])
        self.assertIn("ingestd@0: killed by signal 9 (Killed); starting it again in", self.log(p))

        # One that hangs is stuck, not dead.
        os.kill(before[1], signal.SIGUSR1)
        status, text = until("stuck is seen", lambda: (r := self.get(p, "/healthz"))[0] == 503 and r)
        self.assertEqual(text, "not ready: ingestd@1 stuck\n")

        p.terminate()
        self.assertEqual(p.wait(15), 0)
        log = self.log(p)
        order = [log.index(f"{name} stopped (exited with status 0)") for name in ("ingestd@1", "publishd")]
        self.assertEqual(order, sorted(order))
        self.assertFalse(any(alive(pid) for pid in self.children))
        self.assertFalse(os.path.exists(self.run_dir + "/curated.sock"))

    def aranctl(self, *arguments, status=0):
        p = subprocess.run([ARANCTL, "--runtime-dir", self.run_dir, *arguments], capture_output=True, text=True, timeout=30)
        self.assertEqual(p.returncode, status, p.stderr)
        return p.stdout if status == 0 else p.stderr

    def test_aranctl_shows_status_routers_and_peers(self):
        self.assertIn("curated is not running", self.aranctl("status", status=2))
        p = self.start(nats="nats://operator:secret@127.0.0.1:1")
        self.assertEqual(p.nats, "nats://operator:***@127.0.0.1:1")

        # The password reaches the one child that needs it, and no command line.
        def words(pid, file):
            with open(f"/proc/{pid}/{file}") as f:
                return f.read().split("\0")
        publishd, *ingestds = self.pid("publishd"), self.pid("ingestd@0"), self.pid("ingestd@1")
        self.assertIn("ARANCINI_NATS=nats://operator:secret@127.0.0.1:1", words(publishd, "environ"))
        for pid in ingestds:
            self.assertFalse([w for w in words(pid, "environ") if "secret" in w])
        for pid in (publishd, *ingestds):
            self.assertFalse([w for w in words(pid, "cmdline") if "secret" in w])
        self.assertNotIn("secret", self.log(p))

        status = json.loads(self.aranctl("status", "--json"))
        self.assertEqual(status["nats"], {"url": p.nats, "state": "connected", "stream": "ARANCINI_UPDATES",
                                          "last_sequence": 42, "in_flight": 0})
        self.assertEqual(status["bmp_listen"], p.bmp)
        self.assertEqual([s["routes"] for s in status["shards"]], [1000, 1001])
        self.assertEqual([x["name"] for x in status["processes"]], ["curated", "publishd", "ingestd@0", "ingestd@1"])
        self.assertEqual([x["pid"] for x in status["processes"]], [p.pid, self.pid("publishd"), self.pid("ingestd@0"),
                                                                   self.pid("ingestd@1")])
        for x in status["processes"]:
            self.assertEqual((x["state"], x["restarts"]), ("running", 0))
            self.assertRegex(x["version"], r"^\d+\.\d+\.\d+$")
            self.assertLess(x["uptime_s"], 60)

        routers = json.loads(self.aranctl("routers", "--json"))["routers"]
        self.assertEqual([(r["address"], r["name"], r["shard"]) for r in routers],
                         [("192.0.2.1", "edge0", 0), ("192.0.2.2", "edge1", 1)])
        peers = json.loads(self.aranctl("peers", "--router", "192.0.2.2", "--json"))["peers"]
        self.assertEqual([(x["router"], x["address"], x["asn"], x["view"], x["state"], x["distinguisher"]) for x in peers],
                         [("192.0.2.2", "2001:db8::1", 65001, "loc-rib", "up", "0:0")])
        self.assertEqual(len(json.loads(self.aranctl("peers", "--json"))["peers"]), 2)
        self.assertIn("is neither an address nor a name of", self.aranctl("peers", "--router", "edge1", status=64))

        for command, text in (("status", "ingestd@1"), ("routers", "edge1"), ("peers", "loc-rib")):
            shown = self.aranctl(command)
            self.assertIn(text, shown)
            self.assertLessEqual(max(map(len, shown.splitlines())), 80, shown)
        p.kill()
        p.wait()
        self.assertIn("curated is not running", self.aranctl("routers", status=2))

    def test_strangers_are_refused(self):
        def as_nobody(*arguments):
            return subprocess.run(arguments, user=65534, group=65534, extra_groups=[], capture_output=True, text=True,
                                  timeout=30)

        if os.getuid() != 0:
            self.skipTest("needs root, to be somebody else")
        try:
            self.assertEqual(as_nobody(ARANCTL, "--version").returncode, 0)
        except PermissionError:
            self.skipTest("the build folder is closed to other users")
        p = self.start()
        os.chmod(self.work, 0o755)
        refused = as_nobody(ARANCTL, "--runtime-dir", self.run_dir, "status")
        self.assertEqual(refused.returncode, 2)
        self.assertIn("no permission to open", refused.stderr)
        # Where the file's mode would let them in, their credentials do not.
        os.chmod(self.run_dir, 0o755)
        os.chmod(self.run_dir + "/curated.sock", 0o666)
        refused = as_nobody(ARANCTL, "--runtime-dir", self.run_dir, "status")
        self.assertEqual(refused.returncode, 2)
        self.assertIn("refuses this user", refused.stderr)
        until("log", lambda: "uid 65534, gid 65534 refused" in self.log(p))

    def test_a_new_supervisor_adopts_what_a_killed_one_left(self):
        first = self.start()
        before = self.pids()
        first.kill()
        first.wait()
        with self.connect(first):  # nobody supervises: data flows on
            second = self.start()
        self.assertEqual(second.bmp, first.bmp)
        self.assertEqual(self.pids(), before)
        # It watches them as if they were its own ...
        os.kill(before[2], signal.SIGKILL)
        until("restart", lambda: self.pid("publishd") != before[2])
        # ... and holds the listeners: they outlive the ingestds.
        os.kill(before[0], signal.SIGKILL)
        os.kill(before[1], signal.SIGKILL)
        with self.connect(second):
            until("restart", lambda: not {self.pid("ingestd@0"), self.pid("ingestd@1")} & set(before))
        until("healthy", lambda: self.get(second, "/healthz")[0] == 200)
        self.pids()
        second.terminate()
        self.assertEqual(second.wait(15), 0)
        self.assertFalse(any(alive(pid) for pid in self.children))

    def test_children_with_other_settings_are_not_adopted(self):
        first = self.start()
        before = self.pids()
        first.kill()
        first.wait()
        second = self.start(shards=1)
        self.assertFalse(any(alive(pid) for pid in before))
        self.assertIn("it cannot be taken over with these settings", self.log(second))

    def test_publishd_with_another_nats_is_not_adopted(self):
        first = self.start()
        before = self.pids()
        first.kill()
        first.wait()
        self.start(nats="nats://127.0.0.1:2")
        after = self.pids()
        self.assertEqual(after[:2], before[:2])
        self.assertNotEqual(after[2], before[2])
        self.assertFalse(alive(before[2]))

    def test_embedded_nats_keeps_its_port(self):
        if not any(os.access(f"{d}/nats-server", os.X_OK)
                   for d in os.environ["PATH"].split(":") + ["/usr/sbin", "/usr/local/sbin"]):
            self.skipTest("nats-server is not installed")

        def nats_pid():
            with open(self.state_dir + "/nats/nats-server.pid") as f:
                self.children.add(pid := int(f.read()))
            return pid

        def answers(url):
            try:
                with socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])), timeout=1) as s:
                    return s.recv(4) == b"INFO"
            except OSError:
                return False

        first = self.start(nats="embedded")
        pid = nats_pid()
        log = self.log(first)
        self.assertLess(log.index("nats-server started"), log.index("publishd started"))
        self.assertTrue(answers(first.nats))
        os.kill(pid, signal.SIGKILL)
        until("nats-server is back", lambda: answers(first.nats) and nats_pid() != pid)
        # The next supervisor takes it over, and one after a clean stop uses the same port.
        pid = nats_pid()
        first.kill()
        first.wait()
        second = self.start(nats="embedded")
        self.assertEqual((second.nats, nats_pid()), (first.nats, pid))
        second.terminate()
        self.assertEqual(second.wait(15), 0)
        self.assertFalse(alive(pid))
        self.assertEqual(self.start(nats="embedded").nats, first.nats)

    def test_a_reload_that_not_all_take_is_in_force_nowhere(self):
        file = self.work + "/arancini.toml"
        with open(file, "w") as f:
            f.write("[bmp]\nbacklog = 100\n")
        p = self.start("--config", file)

        def hangup(text):
            with open(file, "w") as f:
                f.write(text)
            p.send_signal(signal.SIGHUP)

        hangup("[bmp]\nbacklog = -1\n")
        until("error", lambda: f"the old one stays in force (905): curated: {file}:2: bmp.backlog must be" in self.log(p))
        # The stand-ins for the daemons answer nothing.
        hangup("[log]\nlevel = 'warn'\n")
        until("refusal", lambda: "the old one stays in force (905): publishd: does not answer" in self.log(p))
        self.assertEqual(self.get(p, "/healthz")[0], 200)

        def audited():
            with open(os.path.join(self.state_dir, "audit.log")) as f:
                return f.read().splitlines()
        until("both are written down", lambda: len(audited()) == 2)
        lines = audited()
        self.assertRegex(lines[1], r'^\S+Z signal=SIGHUP command=Reload arguments="" result="publishd: does not answer')

    def test_refuses_what_cannot_work(self):
        def refused(status, text, **options):
            p = self.start(ready=False, **options)
            self.assertEqual(p.wait(15), status, self.log(p))
            self.assertRegex(self.log(p), text)
            self.assertEqual(self.log(p).count("curated: "), self.log(p).count(" curated: ") + 1, "one line, ours")

        first = self.start()
        refused(69, rf"another curated \(pid {first.pid}\) serves {self.run_dir}: stop it, or choose")
        run_dir, state_dir = self.run_dir, self.state_dir
        self.run_dir = self.work + "/other"
        refused(69, rf"another curated \(pid {first.pid}\) serves {state_dir}: stop it, or choose another --state-dir")
        self.run_dir, self.state_dir = run_dir, self.work + "/other-state"
        refused(69, rf"another curated \(pid {first.pid}\) serves {run_dir}: stop it, or choose another --runtime-dir")
        self.run_dir = self.work + "/open"
        os.mkdir(self.run_dir)
        os.chmod(self.run_dir, 0o1777)
        refused(78, r"/open: other users may write there \(mode 1777")
        os.chmod(self.run_dir, 0o700)
        with open(self.work + "/victim", "w") as f:
            f.write("precious")
        os.symlink(self.work + "/victim", self.run_dir + "/curated.lock")
        refused(77, "/open/curated.lock: is a symbolic link: remove it")
        with open(self.work + "/victim") as f:
            self.assertEqual(f.read(), "precious")
        self.run_dir = self.work + "/other"
        refused(69, f"BMP listener {first.bmp}: Address already in use; another collector", bmp=first.bmp)
        refused(69, f"metrics listener {first.metrics}.*metrics.listen", metrics=first.metrics)
        refused(78, "--shards: at most 1024", shards=2000)
        if "without IPv6" in subprocess.run([CURATED, "--check-config", "--metrics-listen", "[::1]:8080"],
                                            capture_output=True, text=True).stderr:
            refused(78, r"metrics.listen: \[::1\]:0: .* use an IPv4 address, for example 127.0.0.1:0", metrics="[::1]:0")
        os.unlink(self.libexec + "/publishd")
        refused(69, "the program publishd is missing .*ARANCINI_LIBEXEC")

    def test_without_supervise_it_only_watches(self):
        first = self.start()
        before = self.pids()
        first.kill()
        first.wait()
        p = subprocess.Popen([CURATED, "--runtime-dir", self.run_dir, "--state-dir", self.state_dir, "--metrics-listen",
                              "127.0.0.1:0", "--shards", "2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            line = p.stderr.readline()
            p.metrics = re.search(r"http://(\S+)/metrics", line).group(1)
            self.assertEqual(self.get(p, "/healthz")[0], 200)
            os.kill(before[0], signal.SIGKILL)
            until("dead is seen", lambda: self.get(p, "/healthz") == (503, "not ready: ingestd@0 dead\n"))
            p.terminate()
            self.assertEqual(p.wait(15), 0)
            self.assertTrue(alive(before[1]) and alive(before[2]))
        finally:
            p.kill()
            p.wait()
            p.stdout.close()
            p.stderr.close()


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[4:], verbosity=2)
