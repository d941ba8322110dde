#!/usr/bin/env python3
"""A JetStream cluster of three real nats-servers, streams with three replicas, updates flowing all the time: nodes are killed
and started again in turn, the stream's leader among them; the leader, and another node, are cut off from everyone; two of
three are down for a while. In the end fold equals the source, nothing is missing, twice or out of order.

ARANCINI_LONG=1 does it five times."""
import os
import sys
import time

from harness import Load, Pipeline, check_stream, wait_for
from nats_servers import NatsCluster, enter_own_network

ROUNDS = int(os.environ.get("ARANCINI_ROUNDS", "5" if os.environ.get("ARANCINI_LONG") else "1"))
ACKED = "arancini_publish_updates_acked_total"
TIMEOUTS = "arancini_publish_ack_timeouts_total"
SETTINGS = {"nats": {"replicas": 3, "ack_timeout_s": 5.0}, "supervise": {"backoff_max_s": 0.3}}


class Scenario:
    def __init__(self, cluster, pipeline, load):
        self.cluster, self.pipeline, self.load = cluster, pipeline, load

    def flows(self, what, gone=None, seconds=60):
        """Updates are acked, by the nodes that are left; says after how long."""
        start = time.monotonic()
        if gone:
            others = self.others(gone)
            wait_for("the others have a leader", lambda: self.cluster.leader(others) not in (None, gone), seconds)
        elected = time.monotonic() - start
        before = self.pipeline.metric(ACKED)
        wait_for(f"{what}: updates are acked", lambda: self.pipeline.metric(ACKED) > before + 1000, seconds)
        self.load.alive()
        print(f"ok: {what}: a leader after {elected:.1f} s, acks after {time.monotonic() - start:.1f} s", flush=True)

    def whole(self):
        wait_for("all replicas are current", self.cluster.whole, 90, 0.3)

    def leader(self, ask=None):
        return wait_for("the stream has a leader", lambda: self.cluster.leader(ask), 60)

    def others(self, node):
        return [n for n in self.cluster.nodes if n is not node]

    def kill(self, node, role):
        node.kill()
        self.flows(f"{role} {node.name} killed", node)
        node.start()
        self.whole()

    def cut(self, node, role):
        self.cluster.cut(node)
        self.flows(f"{role} {node.name} cut off", node)
        self.cluster.mend(node)
        self.whole()
        self.flows(f"{node.name} back")

    def no_quorum(self):
        leader = self.leader()
        down = [leader, self.others(leader)[0]]
        for n in down:
            n.kill()
        timeouts, stored, sent = self.pipeline.metric(TIMEOUTS), self.others(leader)[1].stored(), sum(self.load.sent)
        wait_for("publishd notices", lambda: self.pipeline.metric("arancini_publish_nats_connected") == 0 or
                 self.pipeline.metric(TIMEOUTS) > timeouts, 60)
        wait_for("the routers go on", lambda: sum(self.load.sent) > sent + 1_000_000, 60)
        self.load.alive()
        assert self.others(leader)[1].stored() < stored + 1000, "stored without a quorum"
        for n in down:
            n.start()
        self.flows("two of three were down", seconds=90)
        self.whole()


def main(own_network):
    with NatsCluster(3, own_network) as cluster:
        cluster.start()
        with Pipeline(shards=2, nats=cluster.url, read_from=cluster.nodes[2].url, settings=SETTINGS) as pipeline:
            with Load(pipeline, routers=2, peers=2, prefixes=5000, churn=10000, rate=400_000) as load:
                s = Scenario(cluster, pipeline, load)
                s.flows("start")
                s.whole()
                assert cluster.info()["config"]["num_replicas"] == 3
                for _ in range(ROUNDS):
                    s.kill(s.leader(), "leader")
                    for node in cluster.nodes:
                        s.kill(node, "leader" if node is s.leader() else "follower")
                    leader = s.leader()
                    s.cut(leader, "leader")
                    s.cut(s.others(s.leader())[0], "follower")
                    s.no_quorum()
                load.finish()
                records = check_stream(pipeline, load)
                reconnects = pipeline.metric("arancini_publish_nats_reconnects_total")
                recoveries = pipeline.metric("arancini_publish_recoveries_total")
                how = "network namespaces" if own_network else "SIGSTOP, the weaker form: needs root for namespaces"
                print(f"{records} updates, gaps 0, duplicates 0, fold equals the source; {recoveries:.0f} recoveries, "
                      f"{reconnects:.0f} reconnects; cut off by {how}")


if __name__ == "__main__":
    own = enter_own_network()
    start = time.monotonic()
    main(own)
    print(f"{time.monotonic() - start:.1f} s", file=sys.stderr)
