#!/usr/bin/env python3
"""What operators do while routers talk: a rolling restart, a drain and its end, reloads that all daemons take or none does, who
may call over TCP, and a gRPC client that is not ours. Afterwards the stream folds to the routers' tables, each update once."""
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time

import harness
from harness import Load, Pipeline, folded_equals, wait_for

CLIENT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "grpc_client.py")


class PersistentLoad(Load):
    """Routers that connect anew when their session ends, and tell everything again then."""

    def __init__(self, *args, routers=1, **kwargs):
        self.whole = [False] * routers  # have told everything in the session that they have, since finish()
        self.end = False
        super().__init__(*args, routers=routers, **kwargs)

    def _router(self, router, source, data, split):
        told_all = False
        while not self.end:
            try:
                with socket.create_connection(self.target, source_address=(source, 0)) as s:
                    self._send(router, s, memoryview(data)[:split], 0)
                    told_all = False
                    while not self.end:
                        if not (self.finishing.is_set() and told_all):
                            told_all = self.finishing.is_set()
                            self._send(router, s, memoryview(data)[split:], self.rate)
                            self.whole[router] = told_all
                        if self._ended(s):
                            break
            except OSError:
                pass
            self.whole[router] = False
            time.sleep(0.05)

    @staticmethod
    def _ended(s):
        s.settimeout(0.05)
        try:
            return s.recv(1) == b""
        except TimeoutError:
            return False
        finally:
            s.settimeout(None)

    def finish(self, seconds=120):
        self.finishing.set()
        wait_for("all routers have told everything in the session that they have", lambda: all(self.whole), seconds)

    def close(self):
        self.end = True
        self.finishing.set()
        for t in self.threads:
            t.join(30)


def certificates(folder):
    """Two CAs; of the first one a server and three clients, of the other one a client."""
    def openssl(*args):
        subprocess.run(["openssl", *args], check=True, capture_output=True, cwd=folder)

    for ca in ("ca", "other-ca"):
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
                f"/CN={ca}", "-keyout", f"{ca}.key", "-out", f"{ca}.pem")
    for name, ca, more in (("server", "ca", "subjectAltName=IP:127.0.0.1"), ("noc", "ca", None), ("wall", "ca", None),
                           ("guest", "ca", None), ("stranger", "other-ca", None)):
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}", "-keyout",
                f"{name}.key", "-out", f"{name}.csr")
        with open(os.path.join(folder, f"{name}.ext"), "w") as f:
            f.write(more or f"subjectAltName=DNS:{name}.example.net")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", f"{ca}.pem", "-CAkey", f"{ca}.key", "-CAcreateserial", "-days", "2",
                "-extfile", f"{name}.ext", "-out", f"{name}.pem")


def rolling_restart(p, load):
    before = {s["name"]: s["pid"] for s in p.status()["processes"]}
    wrong = p.aranctl("restart", check=False)
    assert wrong.returncode == 64 and "--rolling" in wrong.stderr, wrong
    nobody = p.aranctl("restart", "ingestd@9", check=False)
    assert nobody.returncode == 64 and "there are: " in nobody.stderr, nobody
    running = subprocess.Popen([harness.binary("aranctl"), "--runtime-dir", p.run_dir, "restart", "--rolling", "--json"],
                               stdout=subprocess.PIPE, text=True)
    first = running.stdout.readline()
    second = p.aranctl("restart", "publishd", check=False)
    assert second.returncode == 2 and "another restart is under way" in second.stderr, second
    steps = [json.loads(line) for line in [first] + running.stdout.read().splitlines()]
    assert running.wait(300) == 0, steps
    back = [s["process"] for s in steps if s["step"] == "back"]
    assert back == ["ingestd@0", "ingestd@1", "publishd"], steps
    after = {s["name"]: s["pid"] for s in p.status()["processes"]}
    for name in back:
        assert before[name] != after[name], f"{name} is the same process"
    assert before["nats-server"] == after["nats-server"] and before["curated"] == after["curated"]
    snapshots = [s["process"] for s in steps if s["step"] == "snapshot"]
    assert snapshots == ["ingestd@0", "ingestd@1"], steps
    assert not [s for s in p.status()["processes"] if s["state"] not in ("running",)], p.status()
    wait_for("the routers are back", lambda: sum(int(s["sessions"]) for s in p.status()["shards"]) == len(load.whole))


def drain(p, load):
    done = json.loads(p.aranctl("drain", "--json").stdout)
    assert all(s["draining"] and s["empty"] and s["ring_used_bytes"] == 0 for s in done["shards"]), done
    status = p.status()
    assert [s["draining"] for s in status["shards"]] == [True, True], status["shards"]
    states = {s["name"]: s["state"] for s in status["processes"]}
    assert states["ingestd@0"] == "draining" and states["publishd"] == "running", states
    received = p.metric("arancini_ingest_received_bytes_total")
    sessions = p.metric("arancini_ingest_sessions_open")
    # Longer than re-syncs and grace of this configuration: what is not read is not missing.
    withdrawn = p.metric("arancini_ingest_updates_withdrawn_total")
    time.sleep(5)
    assert p.metric("arancini_ingest_received_bytes_total") == received, "it reads"
    assert p.metric("arancini_ingest_sessions_open") == sessions, "sessions ended"
    assert p.metric("arancini_ingest_updates_withdrawn_total") == withdrawn, "what is not read was taken for missing"
    refused = p.aranctl("restart", "publishd", "--timeout", "2", check=False)
    assert refused.returncode == 3 and "ingestd@0 is draining" in refused.stderr, refused
    one = json.loads(p.aranctl("drain", "--undo", "--shard", "0", "--json").stdout)
    assert [(s["shard"], s["draining"]) for s in one["shards"]] == [(0, False)], one
    assert [s["draining"] for s in p.status()["shards"]] == [False, True]
    p.aranctl("drain", "--undo")
    assert not any(s["draining"] for s in p.status()["shards"])
    wait_for("it reads again", lambda: p.metric("arancini_ingest_received_bytes_total") > received)
    no_such = p.aranctl("drain", "--shard", "9", check=False)
    assert no_such.returncode == 64 and "there is no shard 9" in no_such.stderr, no_such


def drain_without_broker(p):
    nats = p.pid("nats-server")
    os.kill(nats, 19)  # SIGSTOP
    try:
        left = p.aranctl("drain", "--timeout", "3", check=False)
        assert left.returncode == 3 and "(904)" in left.stderr and "not acked" in left.stderr, left
    finally:
        os.kill(nats, 18)
    p.aranctl("drain", "--undo")


def reload(p, load):
    file = os.path.join(p.dir, "arancini.toml")
    with open(file) as f:
        good = f.read()

    def write(text):
        with open(file, "w") as f:
            f.write(text)

    def answer(*args, check=True):
        r = p.aranctl("reload", "--json", *args, check=check)
        return r.returncode, json.loads(r.stdout)

    assert p.aranctl("reload").stdout == "the configuration is valid, nothing changed\n"
    write(good + "[bmp]\nbacklog = -1\n")
    line = good.count("\n") + 2
    bad = p.aranctl("reload", check=False)
    assert bad.returncode == 78 and f"{file}:{line}: bmp.backlog" in bad.stderr and "stays, everywhere" in bad.stderr, bad

    routers = [r["address"] for r in p.routers()]
    entry = f"[[router]]\naddress = \"{routers[0]}\"\nname = \"edge\"\ntags = [\"x\"]\nmax_routes = 1000000\n"
    text = (good.replace("session_grace_s = 1.0", "session_grace_s = 2.0") + "[bmp]\nmax_sessions = 4000\nallow = "
            "[\"127.0.0.0/8\"]\n[log]\nlevel = \"debug\"\n[snapshot]\ninterval_s = 7\n[metrics]\nmax_routers = 0\n" + entry)
    write(text)
    # Another entry is another list of each of its keys.
    expected = ["bmp.allow", "curation.session_grace_s", "log.level", "metrics.max_routers",
                *(f"router.{key}" for key in ("address", "max_routes", "max_sessions", "name", "sys_name", "tags")),
                "snapshot.interval_s"]
    code, checked = answer("--check")
    assert code == 0 and checked["applied"] == expected, checked
    assert p.metric("arancini_router_routes") > 0, "--check changes nothing"
    code, done = answer()
    assert code == 0 and done["applied"] == expected and done["hash"] == checked["hash"], done
    assert done["needs_restart"] == [{"key": "bmp.max_sessions", "processes": ["ingestd@0", "ingestd@1"]}], done
    # Each key shows.
    assert p.metric("arancini_router_routes") == 0 and p.metric("arancini_routers_not_exported") >= len(routers)
    def named():
        return [r for r in p.routers() if r["address"] == routers[0] and r["name"] == "edge" and r["state"] != "lost"]
    wait_for("the router is back under its name", named)
    wait_for("debug lines", lambda: p.log_lines("debug", "ingestd@"))
    write(text.replace("127.0.0.0/8", "192.0.2.0/24").replace(entry, ""))
    code, done = answer()
    assert code == 0 and "bmp.allow" in done["applied"], done
    wait_for("nobody may connect", lambda: sum(int(s["sessions"]) for s in p.status()["shards"]) == 0)
    write(text)
    answer()
    wait_for("the routers are back", lambda: sum(int(s["sessions"]) for s in p.status()["shards"]) == len(load.whole))

    # One that does not answer: nobody takes it.
    write(text.replace('level = "debug"', 'level = "warn"'))
    stopped = p.pid("ingestd@1")
    os.kill(stopped, 19)
    try:
        code, done = answer(check=False)
    finally:
        os.kill(stopped, 18)
    assert code == 78 and [x["process"] for x in done["problems"]] == ["ingestd@1"] and done["applied"] == [], done
    code, done = answer()
    assert code == 0 and done["applied"] == ["log.level"], done
    write(good)
    answer()
    wait_for("the routers are back without names", lambda: sum(
        1 for r in p.routers() if r["name"] != "edge" and r["sessions"] > 0) == len(load.whole))


def callers(p, folder):
    at = p.status()["control_listen"]

    def call(name, *command, ca="ca"):
        return p.command(harness.binary("aranctl"), "--control", at, "--tls-ca", f"{folder}/{ca}.pem", "--tls-cert",
                         f"{folder}/{name}.pem", "--tls-key", f"{folder}/{name}.key", *command, check=False)

    assert json.loads(call("noc", "status", "--json").stdout)["control_listen"] == at
    assert call("noc", "snapshot").returncode == 0
    assert call("wall", "status").returncode == 0
    refused = call("wall", "drain")
    assert refused.returncode == 77 and "it may look, not change" in refused.stderr, refused
    assert not any(s["draining"] for s in p.status()["shards"])
    refused = call("guest", "status")
    assert refused.returncode == 77 and "guest" in refused.stderr and "control.allow_names" in refused.stderr, refused
    assert p.metric("arancini_control_calls_refused_total") == 1
    refused = call("stranger", "status")
    assert refused.returncode == 2 and "does not accept the certificate" in refused.stderr, refused
    refused = call("noc", "status", ca="other-ca")
    assert refused.returncode == 2 and "is not trusted" in refused.stderr, refused
    bare = p.command(harness.binary("aranctl"), "--control", at, "status", check=False)
    assert bare.returncode == 64 and "--tls-cert" in bare.stderr, bare
    # Whoever comes without a certificate gets nothing.
    host, port = at.rsplit(":", 1)
    plain = subprocess.run(["openssl", "s_client", "-connect", at, "-CAfile", f"{folder}/ca.pem", "-alpn", "h2", "-ign_eof"],
                           input="", capture_output=True, text=True, timeout=30)
    assert plain.returncode != 0, plain
    wait_for("it is said", lambda: p.log_lines("peer did not return a certificate"))
    with socket.create_connection((host, int(port))) as s:
        s.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        s.settimeout(30)
        assert b"arancini" not in s.recv(100)

    if os.geteuid() != 0:
        print("not root: another uid was not tried")
        return
    other = p.command("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", harness.binary("aranctl"),
                      "--runtime-dir", p.run_dir, "status", check=False)
    assert other.returncode == 2 and "no permission to open" in other.stderr, other
    # Where the modes would let it in, curated itself refuses it.
    socket_path = os.path.join(p.run_dir, "curated.sock")
    os.chmod(p.run_dir, 0o755)
    os.chmod(socket_path, 0o666)
    other = p.command("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", harness.binary("aranctl"),
                      "--runtime-dir", p.run_dir, "drain", check=False)
    os.chmod(socket_path, 0o660)
    os.chmod(p.run_dir, 0o750)
    assert other.returncode == 2 and "refuses this user" in other.stderr, other
    assert p.log_lines("call of pid", "uid 65534", "refused"), p.log_text()


def audit_lines(p):
    path = os.path.join(p.dir, "state", "audit.log")
    assert os.stat(path).st_mode & 0o137 == 0, "0640"
    with open(path) as f:
        lines = f.read().splitlines()
    pattern = re.compile(r'\d{4}-\d\d-\d\dT[\d:.]+Z (uid=\d+ gid=\d+ pid=\d+ user=\S+|certificate=".*" address=\S+) '
                         r'command=\w+( call=\d+\.\d+)? arguments=".*" result=".*"$')
    for line in lines:
        assert pattern.match(line), line
    def one(*words):
        found = [line for line in lines if all(w in line for w in words)]
        assert found, (words, lines)
        return found
    one("command=Restart", "rolling: true", 'result="ok"', f"uid={os.geteuid()} ")
    one("command=Restart", "another restart is under way")
    one("command=Drain", "undo: true", 'result="ok"')
    one("command=Drain", "(904)")
    one("command=Reload", 'result="ok"')
    one("command=Reload", "bmp.backlog must be")
    one("command=TakeSnapshot", 'certificate="noc.example.net,noc"', 'result="ok"')
    one("command=Drain", 'certificate="wall.example.net,wall"', "it may look, not change")
    assert not [line for line in lines if "65534" in line or "guest" in line], "they never called"
    # Two callers at a time are told apart: the pids are those of the two aranctl.
    assert len({re.search(r"pid=(\d+)", line)[1] for line in lines if "command=Reload" in line}) > 3, lines
    assert p.log_lines("control: uid=", "command=Drain"), "the log has it as well"


def independent_client(p, folder):
    python = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable
    out = subprocess.run([python, CLIENT, os.path.join(p.run_dir, "curated.sock"), p.status()["control_listen"], folder,
                          os.path.join(harness.REPO, "common", "proto")], capture_output=True, text=True, timeout=60)
    if out.returncode == harness.SKIP:
        print("no independent client:", out.stdout.strip())
        return
    assert out.returncode == 0, out.stdout + out.stderr
    print(out.stdout.strip())


def without_curated(p, load):
    """Data flows on; the next curated takes over what runs and sees it."""
    pids = {n: p.pid(n) for n in ("ingestd@0", "ingestd@1", "publishd")}
    routes = sum(int(s["routes"]) for s in p.status()["shards"])
    p.process.kill()
    p.process.wait()
    p.log.close()

    def last_sequence():
        return json.loads(p.aranctl("audit", "--nats", p.nats, "--json").stdout)["records"]

    before = last_sequence()
    wait_for("updates go on", lambda: last_sequence() > before, 30)
    gone = p.aranctl("status", check=False)
    assert gone.returncode == 2 and "curated is not running" in gone.stderr, gone
    p.start()
    assert {n: p.pid(n) for n in pids} == pids
    assert sum(int(s["routes"]) for s in p.status()["shards"]) > routes / 2
    assert p.aranctl("drain").returncode == 0 and p.aranctl("drain", "--undo").returncode == 0


def main():
    with tempfile.TemporaryDirectory(prefix="arancini-certs-") as folder:
        certificates(folder)
        control = {"listen": "127.0.0.1:0", "tls_cert": f"{folder}/server.pem", "tls_key": f"{folder}/server.key",
                   "tls_ca": f"{folder}/ca.pem", "allow_names": ["noc.example.net"], "read_only_names": ["wall"]}
        with Pipeline(shards=2, settings={"control": control}) as p, \
                PersistentLoad(p, routers=4, peers=2, prefixes=2000, churn=3000, rate=40000) as load:
            wait_for("tables are told", lambda: p.metric("arancini_ingest_routes") >= 10000, 60, 0.2)
            rolling_restart(p, load)
            drain(p, load)
            drain_without_broker(p)
            reload(p, load)
            callers(p, folder)
            independent_client(p, folder)
            audit_lines(p)
            without_curated(p, load)
            load.finish()
            wait_for("the rings are drained", p.drained, 60, 0.2)
            folded_equals(p, load.truth)
            audit = p.audit()
            assert audit["gaps"] == 0 and audit["duplicates"] == 0 and audit["order_violations"] == 0, audit
            print(f"{audit['records']} records, no gap, no duplicate")


main()
