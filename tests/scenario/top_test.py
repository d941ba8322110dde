#!/usr/bin/env python3
"""aranctl top and version on a pipeline under load: frames appended to a pipe, one object a frame with --json, redrawn on a terminal
until q, with the terminal as it was afterwards."""
import json
import os
import pty
import select
import signal
import subprocess
import termios
import time

from harness import REPO, Pipeline, binary, wait_for


def terminal(p, *args, end):
    """Runs aranctl on a terminal of its own until `end` was sent; what it drew."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 80))
    before = termios.tcgetattr(slave)
    child = subprocess.Popen([binary("aranctl"), "--runtime-dir", p.run_dir, *args], stdin=slave, stdout=slave, stderr=slave,
                             start_new_session=True)
    drawn, sent, deadline = b"", False, time.monotonic() + 30
    while child.poll() is None:
        assert time.monotonic() < deadline, drawn
        if select.select([master], [], [], 0.1)[0]:
            drawn += os.read(master, 65536)
        if not sent and drawn.count(b"\x1b[H") >= 2:  # two frames are drawn
            assert termios.tcgetattr(slave)[3] & termios.ICANON == 0
            end(child, master)
            sent = True
    while select.select([master], [], [], 0)[0]:
        drawn += os.read(master, 65536)
    assert child.returncode == 0, (child.returncode, drawn)
    assert termios.tcgetattr(slave) == before
    os.close(slave)
    os.close(master)
    return drawn


def main():
    with Pipeline() as p:
        capture = os.path.join(REPO, "tests", "captures", "frr8-incr-both.bmp")
        load = [subprocess.Popen([binary("bmpreplay"), "--quiet", "--to", p.bmp, "--source", f"127.0.1.{n}", "--rate", "200",
                                  "--loop", "1000000", capture]) for n in (1, 2, 3)]
        try:
            check(p)
        finally:
            for x in load:
                x.kill()
                x.wait()


def check(p):
    wait_for("three routers", lambda: len(p.routers()) == 3)
    frames = [json.loads(x) for x in p.aranctl("top", "--json", "--count", "3", "--interval", "0.3").stdout.splitlines()]
    assert len(frames) == 3
    for frame in frames:
        assert {"time_ns", "interval_s", "shards", "routers"} <= set(frame)
        assert 0.1 < frame["interval_s"] < 30
        rates = [r["updates_per_s"] for r in frame["routers"]]
        assert rates == sorted(rates, reverse=True)
    assert any(k["updates_per_s"] + k["suppressed_per_s"] > 0 for f in frames for k in f["shards"]), frames
    assert any(r["bytes_per_s"] > 0 and r["messages_per_s"] > 0 for f in frames for r in f["routers"]), frames

    text = p.aranctl("top", "--count", "2", "--interval", "0.2", "-n", "1").stdout
    assert text.count("UPD/S") == 4 and "\x1b" not in text, text
    assert text.count("and 2 more") == 2, text
    assert all(len(line) <= 80 for line in text.splitlines()), text
    r = p.aranctl("top", "--sort", "beauty", check=False)
    assert r.returncode == 64 and "updates" in r.stderr, r

    for end in (lambda child, master: os.write(master, b"q"), lambda child, master: child.send_signal(signal.SIGINT)):
        drawn = terminal(p, "top", "--interval", "0.1", end=end)
        assert drawn.startswith(b"\x1b[?1049h") and drawn.endswith(b"\x1b[?25h\x1b[?1049l"), drawn
        assert b"127.0.1.1" in drawn and b"SILENT" in drawn

    # A curated that hangs or restarts: the last frame stays, and it goes on.
    def stop_for_a_while(child, master):
        p.process.send_signal(signal.SIGSTOP)
        said = b""
        deadline = time.monotonic() + 30
        while b"no answer" not in said:
            assert time.monotonic() < deadline, said
            said += os.read(master, 65536)
        p.process.send_signal(signal.SIGCONT)
        # A frame without the note.
        while b"no answer" in said.rsplit(b"\x1b[H", 1)[-1] or not said.endswith(b"\x1b[J"):
            assert time.monotonic() < deadline, said
            said += os.read(master, 65536)
        os.write(master, b"q")

    terminal(p, "top", "--interval", "0.1", end=stop_for_a_while)

    out = json.loads(p.aranctl("version", "--json").stdout)
    names = {x["name"]: x for x in out["processes"]}
    assert {"curated", "publishd", "ingestd@0", "ingestd@1"} <= set(names), out
    assert all(not x["differs"] for x in names.values()) and names["publishd"]["version"] == out["aranctl"], out
    text = p.aranctl("version").stdout
    assert "ingestd@1" in text and "differs" not in text, text
    print("frames, keys, versions")


if __name__ == "__main__":
    main()
