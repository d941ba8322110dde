#!/usr/bin/env python3
"""publishd killed while messages are under way that nobody will tell it about, and held down until the server has forgotten
their ids (duplicate window of 2 s): still nothing twice, nothing missing."""
import os
import signal
import sys
import tempfile
import time

from harness import Load, Pipeline, check_stream, wait_for
from nats_servers import NatsServer

WINDOW_S = 2
ROUNDS = 20 if os.environ.get("ARANCINI_LONG") else 4
STREAM = "ARANCINI_UPDATES"


def make_stream(nats, name, subjects):
    nats.js(f"STREAM.CREATE.{name}", {"name": name, "subjects": subjects, "storage": "file", "num_replicas": 1, "retention": "limits",
                                      "discard": "old", "duplicate_window": WINDOW_S * 10**9})


class Window:
    """Whether the server still knows an id that it got when this was made: asked of another stream with the same window."""

    def __init__(self, nats, round_):
        self.client, self.id = nats.client(), f"probe-{round_}"
        assert not self._duplicate()

    def _duplicate(self):
        header = f"NATS/1.0\r\nNats-Msg-Id: {self.id}\r\n\r\n".encode()
        return b'"duplicate"' in self.client.request("probe", b"", headers=header)

    def over(self):
        return not self._duplicate()


def last_sequence(nats):
    return nats.js(f"STREAM.INFO.{STREAM}")["state"]["last_seq"]


def settled(nats, last={}):  # noqa: B006: remembers the last look
    """Nobody publishes any more."""
    now = last_sequence(nats)
    before, last["seen"] = last.get("seen"), now
    return now == before


def held_down(pipeline, nats, load, round_):
    first = last_sequence(nats)
    wait_for("it publishes", lambda: last_sequence(nats) > first + 50, 30)
    nats.freeze()
    wait_for("messages are under way, all sent since the broker froze", lambda:
             pipeline.metric("arancini_publish_ack_lag_seconds") > 0.4 and
             pipeline.metric("arancini_publish_messages_in_flight") >= 8, 30)
    pid = pipeline.pid("publishd")
    pipeline.process.send_signal(signal.SIGSTOP)  # nobody starts it again
    os.kill(pid, signal.SIGSTOP)  # it never reads the acks of what is stored now
    nats.thaw()
    before = last_sequence(nats)
    wait_for("what was under way is stored", lambda: settled(nats), 30, 0.1)
    os.kill(pid, signal.SIGKILL)
    if round_ % 2:
        nats.kill()
        nats.start()
    last = last_sequence(nats)
    wait_for("the server has forgotten the ids", Window(nats, round_).over, 30, 0.1)
    assert last_sequence(nats) == last, "someone else publishes"
    pipeline.process.send_signal(signal.SIGCONT)
    wait_for("a new publishd", lambda: pipeline.pid("publishd") not in (0, pid), 30)
    load.alive()
    stored = wait_for("it found what was stored", lambda: pipeline.metric("arancini_publish_updates_already_stored_total"), 10)
    print(f"ok: {'broker killed, too' if round_ % 2 else 'broker goes on'}: {last - before} messages stored without ack, "
          f"{stored:.0f} updates found stored after more than {WINDOW_S} s", flush=True)


def main():
    with tempfile.TemporaryDirectory(prefix="arancini-nats-") as folder, NatsServer(folder).start() as nats:
        make_stream(nats, STREAM, ["arancini.updates.>"])
        make_stream(nats, "PROBE", ["probe"])
        with Pipeline(shards=2, nats=nats.url, settings={"supervise": {"backoff_max_s": 0.1}}) as pipeline:
            with Load(pipeline, routers=2, peers=2, prefixes=10000, churn=20000, rate=2_000_000) as load:
                for i in range(ROUNDS):
                    held_down(pipeline, nats, load, i)
                load.finish()
                records = check_stream(pipeline, load)
                config = nats.js(f"STREAM.INFO.{STREAM}")["config"]
                assert config["duplicate_window"] == WINDOW_S * 10**9, config
                print(f"{records} updates, gaps 0, duplicates 0, fold equals the source")


if __name__ == "__main__":
    start = time.monotonic()
    main()
    print(f"{time.monotonic() - start:.1f} s", file=sys.stderr)
