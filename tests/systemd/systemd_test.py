#!/usr/bin/env python3
"""The package on a real systemd (booted.py): installed, run with a real nats-server, hurt, upgraded, removed and purged.
usage: systemd_test.py tools/package"""
import os
import re
import socket
import subprocess
import sys
import tempfile

import booted
from booted import wait_for

LIBEXEC = "/usr/libexec/arancini"
UNITS = ("publishd.service", "curated.service", "ingestd@0.service", "ingestd@1.service")
CONFIG = "[shards]\ncount = 2\n[bmp]\nlisten = \"127.0.0.1:4000\"\n[ring]\nsize_bytes = 16777216\n"


def package(tool, out, version):
    done = subprocess.run([tool, "--no-build", "--no-install", "--out", out, "--version", version], capture_output=True, text=True)
    if done.returncode != 0:
        raise AssertionError(f"tools/package: {done.stderr}")
    return done.stdout.splitlines()[-1]


class Test:
    def __init__(self, system):
        self.b = system

    def check(self, true, text):
        assert true, text
        print("ok:", text, flush=True)

    def pid(self, unit):
        return int(self.b.show(unit, "MainPID"))

    def up(self, unit, than=0):
        """Until the unit runs with another process than `than`; its pid."""
        def look():
            got = self.b.show(unit, "ActiveState", "MainPID")
            pid = int(got["MainPID"])
            return pid if got["ActiveState"] == "active" and pid not in (0, than) else None
        try:
            return wait_for(f"{unit} runs", look)
        except AssertionError as e:
            raise AssertionError(f"{e}\n{self.b.systemctl('status', unit, check=False)}\n{self.b.journal(unit)}") from None

    def processes(self):
        out = self.b.run("aranctl", "status", "--json").stdout
        import json
        return {p["name"]: p for p in json.loads(out)["processes"]}

    # --- what is shown

    def install(self, deb):
        self.b.run("dpkg", "-i", deb)
        self.check(self.b.systemctl("is-enabled", "arancini.target").strip() == "enabled", "installed: the target is enabled")
        self.b.write("/etc/arancini/arancini.toml", CONFIG, 0o640)
        self.b.systemctl("daemon-reload")
        self.b.systemctl("restart", "arancini.target")
        for unit in UNITS:
            self.up(unit)
        cores = os.cpu_count()
        wants = self.b.run("ls", "/run/systemd/generator/arancini.target.wants").stdout.split()
        self.check(sorted(wants) == sorted(f"ingestd@{k}.{kind}" for k in range(2) for kind in ("service", "socket")),
                   f"two shards are configured (of {cores} cores): two instances are wanted")
        print(self.b.systemctl("list-units", "arancini.target", "ingestd@*", "publishd*", "curated*", "--plain", "--no-legend"))

    def ready_and_status(self):
        for unit, pattern in (("ingestd@0.service", r"Shard 0 of 2, (io_uring|epoll)"), ("ingestd@1.service", r"Shard 1 of 2, "),
                              ("publishd.service", r"NATS connected"),
                              ("curated.service", r"2 shards and publishd run, NATS connected")):
            got = wait_for(f"status of {unit}", lambda: re.search(pattern, self.b.show(unit, "StatusText")))
            self.check(got and self.b.show(unit, "Type") == "notify", f"{unit}: Type=notify, {self.b.show(unit, 'StatusText')!r}")

    def scores(self):
        for unit in UNITS[:3]:
            said = self.b.run("systemd-analyze", "security", "--no-pager", unit, check=False).stdout
            score = float(re.search(r"Overall exposure level for \S+: ([0-9.]+)", said).group(1))
            self.check(score <= 2.0, f"{unit}: systemd-analyze security {score}")


def main():
    booted.require()
    tool = os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory(prefix="arancini-debs-") as debs:
        first, second = package(tool, debs, "0.1.0"), package(tool, debs, "0.1.1")
        with booted.Booted() as system:
            for deb in (first, second):
                subprocess.run(["cp", deb, system.root + "/opt/"], check=True)
            system.run("rm", "-f", "/usr/sbin/policy-rc.d")
            test = Test(system)
            system.run("systemd-run", "-q", "--unit=test-nats", "nats-server", "-js", "-sd", "/var/tmp/test-nats", "-a", "127.0.0.1")
            test.install("/opt/" + os.path.basename(first))
            test.ready_and_status()
            test.scores()


if __name__ == "__main__":
    main()
