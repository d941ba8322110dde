#!/usr/bin/env python3
"""ingestd records a run with back-pressure, several sessions, a lost router and a restart; each recording replays, twice, to the
very bytes that the journal holds of that ring, and its .bmp files say what the routers said."""
import fcntl
import glob
import os
import re
import signal
import socket
import struct
import subprocess
import tempfile
import termios
import threading

from bmp_router import Router
from harness import BUILD, binary, wait_for

FRAME = struct.Struct("<IIIIQQQQQQ")
RECORD = struct.Struct("<IBBHQII")
CONFIG = """[curation]
session_grace_s = 1.0
resync_settle_s = 0.2
resync_timeout_s = 3.0
[ring]
size_bytes = 16777216
[nats]
password = "a-secret"
user = "u"
"""


def journal_records(folder):
    """Headers and payloads of all ring records in the journal, in order."""
    frames = {}
    for path in glob.glob(os.path.join(folder, "*", "*.seg")):
        data = open(path, "rb").read()
        at = 4096
        while at + FRAME.size <= len(data):
            magic, _, _, size, _, _, _, number, _, _ = FRAME.unpack_from(data, at)
            if magic != 0x4D524641:
                break
            frames[number] = data[at + FRAME.size:at + FRAME.size + size]
            at += (FRAME.size + size + 63) // 64 * 64
    out = []
    for number in sorted(frames):
        payload, at = frames[number], 0
        while at < len(payload):
            size, kind, _, _, _, _, used = RECORD.unpack_from(payload, at)
            if kind != 0:
                out.append(payload[at:at + 64 + used])
            at += size
    return b"".join(out)


class Daemon:
    def __init__(self, folder, name, *args):
        self.log_path = os.path.join(folder, name + ".log")
        self.log = open(self.log_path, "ab")
        self.start = os.path.getsize(self.log_path)
        base = ["--config", os.path.join(folder, "arancini.toml"), "--runtime-dir", os.path.join(folder, "run"),
                "--state-dir", os.path.join(folder, "state"), "--shards", "1"]
        self.process = subprocess.Popen([binary(name), *base, *args], stdout=self.log, stderr=self.log)

    def text(self):
        with open(self.log_path, errors="replace") as f:
            f.seek(self.start)
            return f.read()

    def said(self, pattern):
        assert self.process.poll() is None, self.text()
        return re.search(pattern, self.text())

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0, self.text()
        self.log.close()


def replayed(folder, recording):
    outs = []
    for number in range(2):
        out = os.path.join(folder, f"replayed-{number}")
        r = subprocess.run([binary("ingestd"), "--replay", recording, "--out", out], capture_output=True, text=True, timeout=120)
        assert r.returncode == 0, r.stderr
        assert "it is complete" in r.stdout, r.stdout
        outs.append(open(out, "rb").read())
    assert outs[0] == outs[1]
    print(r.stdout.strip())
    return outs[0], int(re.search(r"(\d+) times no room", r.stdout)[1])


def life(folder, number, recording):
    """One ingestd from start to end. Returns what the routers have said, by address."""
    ingestd = Daemon(folder, "ingestd", "--shard", "0", "--bmp-listen", "127.0.0.1:0", "--record", recording)
    publishd = Daemon(folder, "publishd", "--sink", "journal")
    port = int(wait_for("ingestd listens", lambda: ingestd.said(r"listens on 127\.0\.0\.1:(\d+)"), 60)[1])
    assert "everything is recorded in" in ingestd.text()
    routers = [Router(f"127.0.10.{i + 1}", peers=2, prefixes=1000, seed=number, versions=2000) for i in range(4)]
    for r in routers:
        r.connect(("127.0.0.1", port))
    # Without its reader the ring is full at once.
    wait_for("publishd has the ring", lambda: publishd.said("ring-0 attached"), 30)
    wait_for("what was told is restored", lambda: ingestd.said(r"restored \d+ routes"), 30)
    publishd.process.send_signal(signal.SIGSTOP)
    load = os.path.join(folder, f"load-{number}.bmp")
    subprocess.run([binary("bmpgen"), "--out", load, "--source", "127.0.10.9", "--peers", "2", "--prefixes", "20000", "--churn",
                    "200000", "--seed", str(number)], check=True, stdout=subprocess.DEVNULL)
    heavy = socket.create_connection(("127.0.0.1", port), source_address=("127.0.10.9", 0))
    sender = threading.Thread(target=heavy.sendall, args=(open(load, "rb").read(),), daemon=True)
    sender.start()
    # The kernel's buffers are full: ingestd does not read, since there is no room.
    wait_for("the router waits", lambda: waits(heavy, sender), 60, 0.2)
    publishd.process.send_signal(signal.SIGCONT)
    sender.join(60)
    assert not sender.is_alive(), "ingestd does not read"
    for r in routers[1:]:
        for _ in range(20):
            r.change(50)
    routers[1].disconnect("cut")
    routers[2].connect(("127.0.0.1", port))  # beside its old session
    routers[2].close_half_open()
    wait_for("the tables of the lost router are withdrawn", lambda: journal_quiet(folder), 60, 0.5)
    ingestd.stop()
    wait_for("the journal has all", lambda: journal_quiet(folder), 60, 0.5)
    publishd.stop()
    heavy.close()
    for r in routers:
        r.close()


def waits(s, sender, last={}):  # noqa: B006: remembers the last look
    """Nothing more was sent since the last look, though there is more."""
    now = fcntl.ioctl(s, termios.TIOCOUTQ, b"\0\0\0\0")
    before, last[s] = last.get(s), now
    return sender.is_alive() and now == before and now != b"\0\0\0\0"


def journal_quiet(folder, last={}):  # noqa: B006: remembers the last look
    now = len(journal_records(os.path.join(folder, "state", "journal")))
    before, last[folder] = last.get(folder), now
    return now > 0 and now == before


def main():
    with tempfile.TemporaryDirectory(prefix="arancini-recording-") as folder:
        os.mkdir(os.path.join(folder, "run"))
        with open(os.path.join(folder, "arancini.toml"), "w") as f:
            f.write(CONFIG)
        journal = os.path.join(folder, "state", "journal")
        recording = os.path.join(folder, "recording")
        life(folder, 1, recording)
        first, refused = replayed(folder, recording)
        assert refused > 0, "no message found the ring full"
        assert first == journal_records(journal), "the replay is not what the journal has"
        assert b"a-secret" not in open(recording, "rb").read()
        # What a session said: whole BMP messages of one router.
        out = os.path.join(folder, "bmp-")
        r = subprocess.run([binary("bmpreplay"), "--from-recording", recording, "--write", out], capture_output=True, text=True)
        assert r.returncode == 0, r.stderr
        sessions = sorted(glob.glob(out + "*.bmp"))
        assert len(sessions) == 6, sessions
        for path in sessions:
            data, at = open(path, "rb").read(), 0
            while at < len(data):
                assert data[at] == 3
                at += struct.unpack_from(">I", data, at + 1)[0]
            assert at == len(data) > 0, path
        # The next life goes on in the same ring, and leaves the first recording alone.
        size = os.path.getsize(recording)
        life(folder, 2, recording)
        assert os.path.getsize(recording) == size
        second, _ = replayed(folder, recording + ".1")
        assert first + second == journal_records(journal), "the second replay is not what the journal has"
        print(f"ok: {len(first)} and {len(second)} bytes of records in two lives, replayed twice each: the same bytes as in the "
              "journal")


if __name__ == "__main__":
    assert os.path.isdir(BUILD)
    main()
