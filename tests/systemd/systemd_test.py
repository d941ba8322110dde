#!/usr/bin/env python3
"""The package on a real systemd (booted.py): installed, run with a real nats-server, hurt, rebooted, upgraded, removed and purged; and
the cases of tests/curated/process_manager_test.cpp on units.
usage: systemd_test.py tools/package CURATED_TEST FAKE_CHILD"""
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile

import booted
from booted import wait_for
from kept_sessions import KeptSessions

INGESTD = ("ingestd@0.service", "ingestd@1.service")
UNITS = ("publishd.service", *INGESTD, "curated.service")
SOCKETS = ("ingestd@0.socket", "ingestd@1.socket")
CONFIG_FILE = "/etc/arancini/arancini.toml"
CONFIG = "[shards]\ncount = 2\n[bmp]\nlisten = \"127.0.0.1:4001\"\n[ring]\nsize_bytes = 16777216\n"
NATS = "nats://127.0.0.1:4222"
BMP = ("127.0.0.1", 4001)


def packages(tool, out):
    """The package as it is built, and the same as a newer version."""
    done = subprocess.run([tool, "--no-build", "--no-install", "--out", out, "--version", "0.1.0"], capture_output=True, text=True)
    if done.returncode != 0:
        raise AssertionError(f"tools/package: {done.stderr}")
    first, tree, second = done.stdout.splitlines()[-1], f"{out}/tree", f"{out}/arancini_0.1.1.deb"
    subprocess.run(["dpkg-deb", "-R", first, tree], check=True)
    control = open(f"{tree}/DEBIAN/control").read()
    with open(f"{tree}/DEBIAN/control", "w") as f:
        f.write(control.replace("Version: 0.1.0", "Version: 0.1.1"))
    subprocess.run(["dpkg-deb", "-Znone", "--build", tree, second], check=True, stdout=subprocess.DEVNULL)
    return first, second


def check(true, text):
    assert true, text
    print("ok:", text, flush=True)


def free_hugepages():
    return int(re.search(r"HugePages_Free:\s*(\d+)", open("/proc/meminfo").read()).group(1))


@contextlib.contextmanager
def reserved_hugepages(count):
    """Of 2 MiB, on this machine, for as long as it takes; yields whether there are as many."""
    knob = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
    before = open(knob).read() if os.path.exists(knob) else None
    if before is None:
        yield False
        return
    try:
        with open(knob, "w") as f:
            f.write(str(int(before) + count))
        yield free_hugepages() >= count
    finally:
        with open(knob, "w") as f:
            f.write(before)


class Test:
    def __init__(self, system):
        self.b = system

    def pid(self, unit):
        return int(self.b.show(unit, "MainPID"))

    def pids(self):
        return {unit: self.pid(unit) for unit in UNITS}

    def up(self, unit, than=0):
        """Until the unit is ready with another process than `than`; its pid."""
        def look():
            got = self.b.show(unit, "ActiveState", "MainPID")
            pid = int(got["MainPID"])
            return pid if got["ActiveState"] == "active" and pid not in (0, than) else None
        try:
            return wait_for(f"{unit} runs", look)
        except AssertionError as e:
            raise AssertionError(f"{e}\n{self.b.systemctl('status', unit, check=False)}\n{self.b.journal(unit)}") from None

    def all_up(self):
        for unit in UNITS:
            self.up(unit)

    def signal(self, pid, number):
        self.b.run("kill", f"-{int(number)}", str(pid))

    def drop_in(self, unit, text):
        self.b.run("mkdir", "-p", f"/run/systemd/system/{unit}.d")
        self.b.run("sh", "-c", f"cat >/run/systemd/system/{unit}.d/zz-test.conf <<X\n{text}\nX")
        self.b.systemctl("daemon-reload")

    def no_drop_in(self, unit):
        self.b.run("rm", "-r", f"/run/systemd/system/{unit}.d")
        self.b.systemctl("daemon-reload")

    def aranctl(self, *argv):
        done = self.b.run("aranctl", *argv, "--json", check=False)
        return json.loads(done.stdout) if done.stdout else {}

    def process(self, name):
        return next(p for p in self.aranctl("status")["processes"] if p["name"] == name)

    def start_nats(self):
        self.b.run("systemd-run", "-q", "--unit=test-nats", "nats-server", "-js", "-sd", "/var/tmp/test-nats", "-a", "127.0.0.1")

    def router(self, prefixes, source="127.0.0.1", seed=1):
        return self.b.start("bmpgen", "--to", "127.0.0.1:4001", "--prefixes", str(prefixes), "--peers", "1", "--seed", str(seed),
                            "--hold", "600")

    def listening(self):
        """What tells one listener from another: when its unit began to listen, and the inodes of the descriptors."""
        inodes = self.b.run("sh", "-c", "ss -ltnHe sport = :4001 | grep -o 'ino:[0-9]*' | sort").stdout.split()
        return [self.b.show(s, "ActiveEnterTimestampMonotonic") for s in SOCKETS], inodes

    # --- what is shown

    def managers(self, curated_test, fake_child):
        """The cases that hold for children hold for units."""
        for name in (curated_test, fake_child):
            shutil.copy(name, self.b.root + "/opt/")
        env = {"ARANCINI_BOOTED": "1", "FAKE_CHILD": "/opt/fake_child"}
        done = self.b.run("/opt/curated_test", "--gtest_filter=Units/AnyManager*", env=env, check=False)
        check(done.returncode == 0 and re.search(r"PASSED  \] [1-9]", done.stdout) and "SKIPPED" not in done.stdout,
              "process managers: the same cases pass on units\n" + "".join(
                  line + "\n" for line in done.stdout.splitlines() if done.returncode != 0 or line.startswith("[       OK")))

    def install(self, deb):
        self.b.run("dpkg", "-i", deb)
        check(self.b.systemctl("is-enabled", "arancini.target").strip() == "enabled", "installed: the target is enabled")
        for k in range(len(os.sched_getaffinity(0))):
            self.up(f"ingestd@{k}.service")
        check(self.b.run("ss", "-ltnH", "sport = :4000").stdout.count("LISTEN") == len(os.sched_getaffinity(0)),
              "started with the defaults: one ingestd and one listener on port 4000 for each core")
        self.b.run("sh", "-c", f"cat >{CONFIG_FILE} <<'X'\n{CONFIG}X")
        mode = self.b.run("stat", "-c", "%U:%G %a", CONFIG_FILE).stdout.strip()
        check(mode == "root:arancini 640", f"{CONFIG_FILE} is {mode}")
        self.b.systemctl("stop", "arancini.target")
        wait_for("no process", lambda: self.b.run("pgrep", "-u", "arancini", check=False).stdout == "")
        check(not self.b.run("ss", "-ltnH", "sport = :4000").stdout, "stopped: no process and no listener is left")
        self.b.systemctl("daemon-reload")
        with reserved_hugepages(64) as reserved:
            self.b.systemctl("start", "arancini.target")
            self.all_up()
            said = self.b.run("readlink", "-f", "/run/arancini/ring-0", "/run/arancini/ring-1").stdout
            if reserved and free_hugepages() > 0:
                check(said.count("/run/arancini/huge/") == 2, f"within the sandbox rings are on huge pages: {said.split()}")
            else:
                print("not shown: rings on huge pages; this machine has none to reserve")
        wants = self.b.run("ls", "/run/systemd/generator/arancini.target.wants").stdout.split()
        check(sorted(wants) == sorted([*INGESTD, *SOCKETS]), "two shards are configured: two instances are wanted")
        check(len(self.listening()[1]) == 2, "both listen at the configured address")
        names = self.b.run("sh", "-c", f"tr '\\0' '\\n' </proc/{self.pid(INGESTD[0])}/environ").stdout
        check("LISTEN_FDNAMES=bmp\n" in names, "the listener's name is bmp")
        print(self.b.systemctl("list-units", "arancini.target", "ingestd@*", "publishd*", "curated*", "run-arancini-huge*", "--plain",
                               "--no-legend"))
        applied = self.b.run("cat", "/proc/sys/net/ipv4/tcp_rmem").stdout.split()
        check(applied == ["4096", "87380", "33554432"], f"the host profile is in force: tcp_rmem {applied}")

    def ready_and_status(self):
        for unit, pattern in ((INGESTD[0], r"^Shard 0 of 2, io_uring"), (INGESTD[1], r"^Shard 1 of 2, io_uring"),
                              ("publishd.service", r"NATS connected"),
                              ("curated.service", r"2 shards and publishd run, NATS connected")):
            wait_for(f"status of {unit}", lambda: re.search(pattern, self.b.show(unit, "StatusText")))
            check(self.b.show(unit, "Type") == "notify", f"{unit}: Type=notify, {self.b.show(unit, 'StatusText')!r}")
        got = self.b.show(INGESTD[0], "NotifyAccess", "FileDescriptorStoreMax")
        check(got == {"NotifyAccess": "main", "FileDescriptorStoreMax": "16"}, f"ingestd@0.service: {got}")
        said = self.b.run("journalctl", "-q", "--no-pager", "-o", "cat", "_PID=1").stdout
        doubts = [x for x in said.splitlines() if re.search("unknown|ignoring|invalid|obsolete|failed to parse", x, re.I) and
                  re.search("arancini|ingestd|publishd|curated", x)]
        check(not doubts, f"systemd understands every line of the units {doubts or ''}")
        said = self.b.journal("ingestd@*", 200)
        check("not pinned" not in said and "epoll" not in said, "within the sandbox shards are pinned and io_uring works")
        check("does not choose" not in said, "and the steering program is attached")

    def scores(self):
        for unit in UNITS:
            said = self.b.run("systemd-analyze", "security", "--no-pager", unit, check=False).stdout
            score = float(re.search(r"Overall exposure level for \S+: ([0-9.]+)", said).group(1))
            check(score <= 2.0, f"{unit}: systemd-analyze security {score}")

    def watchdog(self):
        self.drop_in(INGESTD[0], "[Service]\nWatchdogSec=2")
        self.b.systemctl("restart", INGESTD[0])
        before = self.up(INGESTD[0])
        self.signal(before, signal.SIGSTOP)
        self.up(INGESTD[0], before)
        check("Watchdog timeout" in self.b.journal(INGESTD[0]), "a stopped ingestd is aborted by the watchdog and started again")
        wait_for("curated saw it", lambda: "watchdog" in self.process("ingestd@0").get("detail", ""), 5)
        check(True, f"aranctl status knows why: {self.process('ingestd@0')['detail']}")
        self.no_drop_in(INGESTD[0])

    def kill(self):
        counted = self.process("ingestd@1")["restarts"]
        before = self.up(INGESTD[1])
        self.signal(before, signal.SIGKILL)
        after = self.up(INGESTD[1], before)
        wait_for("curated saw it", lambda: self.process("ingestd@1")["pid"] == after, 5)
        seen = self.process("ingestd@1")
        check(seen["restarts"] == counted + 1 and "signal 9" in seen["detail"], f"a killed ingestd is started again: {seen['detail']}")

    def held_socket(self):
        self.drop_in("ingestd@.service", "[Service]\nRestartSec=4")
        listening = self.listening()
        before = {u: self.up(u) for u in INGESTD}
        for pid in before.values():
            self.signal(pid, signal.SIGKILL)
        router = self.router(500)
        wait_for("a connection", lambda: "ESTAB" in self.b.run("ss", "-tnH", "dport = :4001").stdout)
        check(not any(self.pid(u) for u in INGESTD), "a router connects while no ingestd runs")
        for unit, pid in before.items():
            self.up(unit, pid)
        routes = wait_for("its table", lambda: [r for r in self.aranctl("routers").get("routers", []) if r["routes"] == 500])
        check(len(routes) == 1 and self.listening() == listening, "it is served later, by the same listeners")
        router.terminate()
        router.wait(10)
        self.no_drop_in("ingestd@.service")

    def as_user(self, user, *argv):
        group = "nogroup" if user == "nobody" else user
        return self.b.run("setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", *argv, check=False)

    def unit_cases(self, user, case):
        done = self.as_user(user, "env", "ARANCINI_BOOTED=1", "/opt/curated_test", f"--gtest_filter=SystemdUnits.{case}")
        check(done.returncode == 0 and "1 test from 1 test suite ran" in done.stdout and
              "SKIPPED" not in done.stdout, f"as user {user}: SystemdUnits.{case}" + (done.stdout if done.returncode else ""))

    def permissions(self):
        before = {unit: self.up(unit) for unit in ("publishd.service", *INGESTD)}
        self.unit_cases("arancini", "RestartsWhatPolkitAllows")
        for unit, pid in before.items():
            self.up(unit, pid)
        check(True, f"user arancini may restart {', '.join(before)}")
        for method, unit in (("StopUnit", INGESTD[1]), ("RestartUnit", "dbus.service"), ("RestartUnit", "curated.service")):
            done = self.as_user("arancini", "busctl", "call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1",
                                "org.freedesktop.systemd1.Manager", method, "ss", unit, "replace")
            check(done.returncode != 0 and "authenti" in done.stderr, f"and not {method} {unit}: {done.stderr.strip()}")
        self.unit_cases("nobody", "SaysWhatToDoWhenSystemdRefuses")

    def curated_away(self):
        """It sees the units again after its own restart and after the bus was away."""
        self.b.systemctl("restart", "curated.service")
        self.up("curated.service")
        counted = int(self.b.show(INGESTD[1], "NRestarts"))
        wait_for("what systemd counted", lambda: self.process("ingestd@1")["restarts"] == counted, 5)
        self.b.systemctl("restart", "dbus.service")
        before = self.up(INGESTD[1])
        self.signal(before, signal.SIGKILL)
        after = self.up(INGESTD[1], before)
        wait_for("what systemd counted", lambda: self.process("ingestd@1")["restarts"] == counted + 1 and
                 self.process("ingestd@1")["pid"] == after, 10)
        check("answers on the system bus again" in self.b.journal("curated.service"),
              "curated sees the units again after its own restart and that of the bus")

    def what_cannot_start(self):
        self.b.run("sh", "-c", f"echo 'nonsense = 1' >>{CONFIG_FILE}")
        self.b.systemctl("restart", INGESTD[1], check=False)
        got = wait_for("it failed", lambda: (g := self.b.show(INGESTD[1], "ActiveState", "ExecMainStatus", "NRestarts"))["ActiveState"] ==
                       "failed" and g)
        check(got["ExecMainStatus"] == "78" and got["NRestarts"] == "0", "a configuration that is not valid: status 78, not tried again")
        check("not started again" in wait_for("curated saw it", lambda: self.process("ingestd@1")["detail"]),
              f"aranctl status: {self.process('ingestd@1')['detail']}")
        started = self.b.journal(INGESTD[1], 2000).count("Starting ingestd@1")
        listening, before = self.listening(), self.pid(INGESTD[0])
        wants = self.b.run("ls", "/run/systemd/generator/arancini.target.wants").stdout
        self.b.systemctl("daemon-reload")
        check(self.listening() == listening and self.pid(INGESTD[0]) == before and
              self.b.run("ls", "/run/systemd/generator/arancini.target.wants").stdout == wants,
              "a daemon-reload meanwhile changes no unit and closes no listener")
        router = self.router(10)
        wait_for("the listener is closed", lambda: self.b.show(SOCKETS[1], "ActiveState") == "failed")
        tried = self.b.journal(INGESTD[1], 2000).count("Starting ingestd@1") - started
        check(1 <= tried <= 10, f"a router that waits starts it {tried} times, then its listener closes")
        router.terminate()
        router.wait(10)
        check(self.b.show(INGESTD[0], "ActiveState") == "active", "the other shard is as it was")
        self.b.run("sed", "-i", "/nonsense/d", CONFIG_FILE)
        self.b.systemctl("start", "arancini.target")
        self.all_up()
        check(self.b.show(SOCKETS[1], "ActiveState") == "active", "corrected: one start of the target brings all back")

        self.drop_in(INGESTD[1], "[Service]\nExecStart=\nExecStart=/bin/false")
        self.b.systemctl("restart", INGESTD[1], check=False)
        starts = set()
        def several():
            starts.add(int(self.b.show(INGESTD[1], "ExecMainStartTimestampMonotonic")))
            return len(starts) >= 3
        wait_for("three starts", several)
        starts = sorted(starts)
        check(all(later - sooner >= 1_000_000 for sooner, later in zip(starts, starts[1:])),
              "one that fails otherwise is tried again, not more than once a second")
        self.no_drop_in(INGESTD[1])
        self.b.systemctl("restart", INGESTD[1])
        self.all_up()

    def taken_over(self, unit, than):
        """Until it runs with another process, which has the sessions of the one before; what it says of them."""
        pid = self.up(unit, than)
        said = wait_for(f"{unit} goes on with its sessions", lambda: re.search(
            r"restart: (\d+) sessions go on, 0 could not be kept; they were not read for (\d+) ms",
            self.b.run("journalctl", "-q", "--no-pager", "-o", "cat", f"_PID={pid}").stdout))
        assert self.b.show(unit, "NFileDescriptorStore") == "0", "systemd still holds what was taken"
        return int(said.group(1)), int(said.group(2))

    def kept_sessions(self):
        """systemd's store has the sessions between two processes of a shard."""
        senders = KeptSessions(self.b, NATS, BMP, "127.0.13", silent=600)  # of a shard more than one message of descriptors holds
        number, pauses = len(senders.routers), []
        for unit in INGESTD * 2:  # the second time with what was taken over
            before = self.pid(unit)
            of_shard = senders.remotes_of(before)
            assert 0 < len(senders.of(before)) < number and len(of_shard) > 253, len(of_shard)
            self.b.systemctl("restart", unit)
            kept, pause = self.taken_over(unit, before)
            pauses.append(pause)
            assert kept == len(of_shard) and senders.remotes_of(self.pid(unit)) == of_shard, (kept, len(of_shard))
            senders.heard()
            senders.same()
        check(True, f"systemctl restart of each ingestd, twice: {number} routers under churn and {len(senders.silent)} silent ones, the same connections, "
                    f"the same sockets; not read for {pauses} ms")
        # A start that fails is tried again, a second later: systemd keeps them so long, also over a reload of itself.
        unit, before = INGESTD[0], self.pid(INGESTD[0])
        self.drop_in(unit, "[Service]\nExecStartPre=test -e /run/may-start")
        self.b.systemctl("restart", unit, check=False)
        wait_for("two starts failed", lambda: int(self.b.show(unit, "NRestarts")) >= 2)
        self.b.systemctl("daemon-reload")
        assert senders.same() and not senders.of(before)
        self.b.run("touch", "/run/may-start")
        self.taken_over(unit, before)
        self.no_drop_in(unit)
        senders.heard()
        check(senders.same(), "a successor that cannot start at once takes them over later")

        before = self.pids()
        said = self.b.run("aranctl", "restart", "--rolling").stdout
        for unit in INGESTD:
            self.taken_over(unit, before[unit])
        self.up("publishd.service", before["publishd.service"])
        senders.heard()
        check(senders.same() and said.splitlines()[-1] == "3 restarted", "aranctl restart --rolling: the same")

        before = self.pids()
        self.b.systemctl("restart", "arancini.target")
        for unit in INGESTD:
            self.taken_over(unit, before[unit])
        senders.heard()
        check(senders.same(), "restart of the target: the same")
        rules, kinds = senders.finish(), senders.stream.events()
        check(set(rules.reasons) == {"none"} and kinds.count("session_up") == number and "session_down" not in kinds and
              kinds.count("peer_up") == number * senders.PEERS and "peer_down" not in kinds,
              f"the stream knows nothing of it: {rules.updates} updates, gaps 0, duplicates 0, none needless, the fold is the routers' tables")

        def fails():
            self.b.run("sh", "-c", f"echo 'nonsense = 1' >>{CONFIG_FILE}")
            self.b.systemctl("restart", unit, check=False)
            self.b.run("sed", "-i", "/nonsense/d", CONFIG_FILE)

        for what, end in (("systemctl stop", lambda: self.b.systemctl("stop", unit)), ("a start that fails with status 78", fails)):
            ended = senders.of(self.pid(unit))
            others = [r for r in senders.routers if r not in ended]
            end()
            wait_for("their sockets are closed", lambda: all([r.lost() for r in ended]))
            check(ended and not any(r.lost() for r in others) and self.b.show(unit, "NFileDescriptorStore") == "0",
                  f"{what} closes the {len(ended)} sessions of that shard, and no other")
            self.b.systemctl("start", unit)
            senders.reconnect(ended)
            senders.whole()
        check(True, "started again, with its routers back, the stream is whole")
        senders.close()

    def reboot(self):
        self.b.reboot()
        self.all_up()
        check(len(self.listening()[1]) == 2, "after a reboot all of it runs by itself")
        self.start_nats()

    def upgrade(self, deb):
        senders = KeptSessions(self.b, NATS, BMP, "127.0.14")
        before, listening = self.pids(), self.listening()
        said = self.b.run("dpkg", "-i", "--force-confold", deb).stdout
        for unit, pid in before.items():
            self.up(unit, pid)
        check(self.b.run("dpkg-query", "-W", "-f", "${Version}", "arancini").stdout == "0.1.1" and self.listening() == listening,
              "upgraded: each process is new, the listeners are the old ones")
        check("count = 2" in self.b.run("cat", CONFIG_FILE).stdout, "and the configuration is the operator's")
        for unit in INGESTD:
            self.taken_over(unit, before[unit])
        senders.heard()
        check(senders.same() and "3 restarted" in said, "the new curated restarts the others, one at a time: sessions go on")

        def postinst(check=True):
            return self.b.run("/var/lib/dpkg/info/arancini.postinst", "configure", "0.1.0", check=check,
                              env={"DPKG_MAINTSCRIPT_PACKAGE": "arancini"})

        before = self.pids()
        self.b.write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", 0o755)
        postinst()
        check(self.pids() == before, "where policy-rc.d forbids it nothing is restarted")
        self.b.run("rm", "/usr/sbin/policy-rc.d")
        self.b.run("sh", "-c", f"echo 'nonsense = 1' >>{CONFIG_FILE}")
        refused = postinst(check=False)
        self.b.run("sed", "-i", "/nonsense/d", CONFIG_FILE)
        check(refused.returncode != 0 and self.pids() == {**before, "curated.service": 0},
              "a configuration that is refused ends the upgrade at curated")
        self.b.systemctl("start", "arancini.target")
        self.up("curated.service")
        postinst()
        for unit in INGESTD:
            self.taken_over(unit, before[unit])
        check(senders.same(), "corrected, the upgrade goes on")

        before = self.pids()
        self.b.systemctl("stop", "curated.service")
        postinst()
        for unit in INGESTD:
            self.taken_over(unit, before[unit])
        self.up("publishd.service", before["publishd.service"])
        check(self.pid("curated.service") == 0, "without curated systemctl does: sessions go on, and curated stays stopped")
        self.b.systemctl("start", "curated.service")
        senders.heard()
        senders.same()
        rules, kinds = senders.finish(), senders.stream.events()
        check(set(rules.reasons) == {"none"} and "session_down" not in kinds,
              f"the stream knows nothing of it: {rules.updates} updates of the same connections, the fold is the routers' tables")
        said = self.aranctl("audit", "--nats", NATS)
        check(said["gaps"] == 0 and said["duplicates"] == 0, f"through all that: {said['records']} records, gaps 0, duplicates 0")
        senders.close()

    def remove(self, deb, before):
        self.b.run("dpkg", "-r", "arancini")
        check(self.b.run("pgrep", "-u", "arancini", check=False).stdout == "", "removed: no process is left")
        check(self.b.systemctl("list-units", "--all", "--state=loaded", "--plain", "--no-legend", "ingestd@*", "publishd*", "curated*", "arancini*",
                               check=False).strip() == "", "no unit is left")
        check(self.b.run("sh", "-c", "ls /var/lib/arancini /run/arancini/ring-0 " + CONFIG_FILE).returncode == 0,
              "state, rings and configuration are kept")
        self.b.run("dpkg", "-i", deb)
        self.all_up()
        check("count = 2" in self.b.run("cat", CONFIG_FILE).stdout, "installed again it goes on")
        self.b.run("dpkg", "-P", "arancini")
        left = sorted(set(self.files()) - set(before))
        check(not left, f"purged: nothing is left over {left or ''}")

    def files(self):
        found = self.b.run("sh", "-c", "find /etc /usr /var /run -xdev \\( -name '*arancini*' -o -name '*ingestd*' -o -name '*publishd*' "
                           "-o -name '*curated*' -o -name 'aranctl*' -o -name 'bmpgen*' -o -name 'bmpreplay*' \\)", check=False).stdout
        mounts = self.b.run("sh", "-c", "grep arancini /proc/mounts | cut -d ' ' -f 2 | grep ^/run", check=False).stdout
        return found.splitlines() + mounts.splitlines()


def main():
    booted.require()
    tool, curated_test, fake_child = (os.path.abspath(a) for a in sys.argv[1:4])
    with tempfile.TemporaryDirectory(prefix="arancini-debs-") as debs:
        built = packages(tool, debs)
        with booted.Booted() as system:
            for deb in built:
                shutil.copy(deb, system.root + "/opt/")
            first, second = ("/opt/" + os.path.basename(deb) for deb in built)
            system.run("rm", "-f", "/usr/sbin/policy-rc.d")
            test = Test(system)
            before = test.files()
            test.managers(curated_test, fake_child)
            test.start_nats()
            test.install(first)
            test.ready_and_status()
            test.scores()
            test.watchdog()
            test.kill()
            test.held_socket()
            test.permissions()
            test.curated_away()
            test.what_cannot_start()
            test.kept_sessions()
            test.reboot()
            test.upgrade(second)
            test.remove(second, before)


if __name__ == "__main__":
    main()
