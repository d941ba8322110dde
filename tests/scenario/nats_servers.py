"""Real nats-servers for the scenarios: one, or a cluster whose nodes can be cut off; and a NATS client that is just big
enough to ask them and to read from them."""
import itertools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

from harness import skip, wait_for


def free_port(taken=set()):  # noqa: B006: remembers what it gave
    """Below the range of outgoing connections, so that it is free again when the server is restarted."""
    while True:
        port = random.randrange(12000, 20000)
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in taken:
            taken.add(port)
            return port


class NatsClient:
    """Blocking; every read has a deadline. Raises OSError (also TimeoutError) when the server is away."""

    def __init__(self, host, port, timeout=5):
        self.socket = socket.create_connection((host, port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray()
        self.ids = itertools.count(1)
        self.inbox = f"_INBOX.{os.getpid()}.{random.getrandbits(64):x}"
        deadline = time.monotonic() + timeout
        line = self._line(deadline)
        if not line.startswith(b"INFO "):
            raise OSError(f"no NATS server on {host}:{port}: {line!r}")
        self.info = json.loads(line[5:])
        options = {"verbose": False, "pedantic": False, "headers": True, "no_responders": True, "lang": "python",
                   "name": "scenario"}
        self.socket.sendall(b"CONNECT " + json.dumps(options).encode() + b"\r\nPING\r\n")
        while self._line(deadline) != b"PONG":
            pass

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _fill(self, deadline):
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("no answer from nats-server")
        self.socket.settimeout(left)
        data = self.socket.recv(1 << 20)
        if not data:
            raise OSError("nats-server closed the connection")
        self.buffer += data

    def _line(self, deadline):
        while (end := self.buffer.find(b"\r\n")) < 0:
            self._fill(deadline)
        line = bytes(self.buffer[:end])
        del self.buffer[:end + 2]
        return line

    def subscribe(self, subject):
        sid = next(self.ids)
        self.socket.sendall(f"SUB {subject} {sid}\r\n".encode())
        return sid

    def publish(self, subject, payload=b"", reply="", headers=b""):
        sizes = f"{len(headers)} {len(headers) + len(payload)}" if headers else f"{len(payload)}"
        verb = "HPUB" if headers else "PUB"
        self.socket.sendall(f"{verb} {subject} {reply} {sizes}\r\n".encode() + headers + payload + b"\r\n")

    def next(self, timeout=5):
        """(subject, reply, headers as text, payload) of the next message."""
        deadline = time.monotonic() + timeout
        while True:
            words = self._line(deadline).split()
            if words and words[0] == b"PING":
                self.socket.sendall(b"PONG\r\n")
            if not words or words[0] not in (b"MSG", b"HMSG"):
                if words and words[0] == b"-ERR":
                    raise OSError(b" ".join(words).decode())
                continue
            head, total = (int(words[-2]), int(words[-1])) if words[0] == b"HMSG" else (0, int(words[-1]))
            while len(self.buffer) < total + 2:
                self._fill(deadline)
            body = bytes(self.buffer[:total])
            del self.buffer[:total + 2]
            reply = words[3].decode() if len(words) == (6 if head else 5) else ""
            return words[1].decode(), reply, body[:head].decode(), body[head:]

    def request(self, subject, payload=b"", timeout=5, headers=b""):
        """For a client that has no other subscription."""
        reply = f"{self.inbox}.{next(self.ids)}"
        sid = self.subscribe(reply)
        self.publish(subject, payload, reply, headers)
        deadline = time.monotonic() + timeout
        while True:
            got, _, head, body = self.next(deadline - time.monotonic())
            if got == reply:
                self.socket.sendall(f"UNSUB {sid}\r\n".encode())
                if " 503" in head.split("\r\n")[0]:
                    raise OSError(f"no responders on {subject}")
                return body

    def js(self, call, body=None, timeout=5):
        """One call of the JetStream API; raises OSError with the server's words."""
        answer = json.loads(self.request("$JS.API." + call, json.dumps(body).encode() if body else b"", timeout))
        if "error" in answer:
            raise OSError(f"{call}: {answer['error']}")
        return answer

    def follow(self, stream, subject):
        """Subscribes to what comes into the stream from now on."""
        deliver = f"{self.inbox}.deliver"
        self.js(f"CONSUMER.CREATE.{stream}",
                {"stream_name": stream, "config": {"deliver_subject": deliver, "deliver_policy": "new", "ack_policy": "none",
                                                   "filter_subject": subject, "mem_storage": True}})
        self.subscribe(deliver)


class NatsServer:
    """One nats-server with a store of its own. `config`: more lines of its configuration; `jetstream`: of that block."""

    def __init__(self, folder, name="nats", host="127.0.0.1", store=None, config="", jetstream="", prefix=()):
        self.name, self.host, self.port = name, host, free_port()
        self.monitor = free_port()
        self.url = f"nats://{host}:{self.port}"
        self.store = store or os.path.join(folder, name)
        self.log_path = os.path.join(folder, name + ".log")
        self.conf = os.path.join(folder, name + ".conf")
        self.prefix = list(prefix)
        self.process = None
        self.configure(config, jetstream)

    def configure(self, config="", jetstream=""):
        """For the next start()."""
        with open(self.conf, "w") as f:
            f.write(f'listen: "{self.host}:{self.port}"\nhttp: "{self.host}:{self.monitor}"\nserver_name: {self.name}\n'
                    f'log_file: "{self.log_path}"\njetstream {{ store_dir: "{self.store}"\n{jetstream} }}\n{config}\n')

    def start(self, wait=True):
        """Also after kill(). Returns self."""
        program = shutil.which("nats-server", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
        if not program:
            skip("nats-server is not installed")
        self.process = subprocess.Popen(self.prefix + [program, "-c", self.conf], stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self):
        wait_for(f"{self.name} answers", self.answers, 30)

    def answers(self):
        assert self.process.poll() is None, f"{self.name} ended:\n{self.log_text()}"
        try:
            self.client(1).close()
            return True
        except OSError:
            return False

    def client(self, timeout=5):
        return NatsClient(self.host, self.port, timeout)

    def js(self, call, body=None, timeout=5):
        with self.client(timeout) as c:
            return c.js(call, body, timeout)

    def stored(self, stream="ARANCINI_UPDATES"):
        """Last sequence of the stream in this server's own store, whoever leads it; None when it does not say."""
        try:
            with urllib.request.urlopen(f"http://{self.host}:{self.monitor}/jsz?streams=1", timeout=2) as answer:
                accounts = json.load(answer).get("account_details", [])
        except (OSError, ValueError):
            return None
        return next((s["state"]["last_seq"] for a in accounts for s in a.get("stream_detail", []) if s["name"] == stream), None)

    def signal(self, number):
        self.process.send_signal(number)

    def freeze(self):
        self.signal(signal.SIGSTOP)

    def thaw(self):
        self.signal(signal.SIGCONT)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def log_text(self):
        try:
            with open(self.log_path, errors="replace") as f:
                return f.read()[-3000:]
        except OSError:
            return ""

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if self.process and self.process.poll() is None:
            self.kill()
        if kind and not issubclass(kind, SystemExit):
            print(f"---- log of {self.name} ----\n" + self.log_text(), file=sys.stderr)


def enter_own_network():
    """True: this process (started anew) is in a network namespace of its own, gone with it, and may make others."""
    if os.environ.get("ARANCINI_OWN_NETWORK"):
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        return True
    able = os.geteuid() == 0 and shutil.which("ip") and shutil.which("nsenter") and subprocess.run(
        ["unshare", "-n", "sh", "-c",
         "ip link add name hub type bridge && ip link add name node0 type veth peer name eth0 && "
         "ip link set node0 master hub"],
        capture_output=True).returncode == 0
    if not able:
        return False
    os.environ["ARANCINI_OWN_NETWORK"] = "1"
    sys.stdout.flush()
    os.execvp("unshare", ["unshare", "-n", sys.executable, *sys.argv])


class NatsCluster:
    """Three (or more) nodes. With `own_network` (see enter_own_network) each has a network namespace on a bridge, and cut()
    pulls its cable: nobody is told. Otherwise all are on loopback and cut() freezes the process, which is weaker: its
    kernel goes on acknowledging."""

    def __init__(self, nodes=3, own_network=False):
        self.dir = tempfile.mkdtemp(prefix="arancini-cluster-")
        self.own_network = own_network
        self.holders = []
        self.nodes = []
        hosts = ["127.0.0.1"] * nodes
        prefixes = [[]] * nodes
        if own_network:
            self._ip("link", "add", "name", "hub", "type", "bridge")
            self._ip("addr", "add", "10.123.0.1/24", "dev", "hub")
            self._ip("link", "set", "hub", "up")
            hosts = [f"10.123.0.{10 + i}" for i in range(nodes)]
            prefixes = [self._namespace(i, hosts[i]) for i in range(nodes)]
        ports = [free_port() for _ in range(nodes)]
        routes = ", ".join(f'"nats-route://{h}:{p}"' for h, p in zip(hosts, ports))
        for i in range(nodes):
            config = f'cluster {{ name: scenario, listen: "{hosts[i]}:{ports[i]}", routes: [{routes}] }}'
            self.nodes.append(NatsServer(self.dir, f"n{i}", hosts[i], config=config, prefix=prefixes[i]))
        self.url = ",".join(n.url for n in self.nodes)

    @staticmethod
    def _ip(*args):
        subprocess.run(["ip", *args], check=True)

    def _namespace(self, i, address):
        # `cat` holds the namespace until its stdin is closed, also by our death.
        holder = subprocess.Popen(["unshare", "-n", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.holders.append(holder)
        holder.stdin.write(b"\n")
        holder.stdin.flush()
        holder.stdout.read(1)  # cat runs, so the namespace is there
        inside = ["nsenter", "-t", str(holder.pid), "-n"]
        self._ip("link", "add", "name", f"node{i}", "type", "veth", "peer", "name", "eth0", "netns", str(holder.pid))
        self._ip("link", "set", f"node{i}", "master", "hub", "up")
        for command in (["link", "set", "lo", "up"], ["addr", "add", f"{address}/24", "dev", "eth0"],
                        ["link", "set", "eth0", "up"]):
            subprocess.run([*inside, "ip", *command], check=True)
        return inside

    def start(self):
        for n in self.nodes:
            n.start(wait=False)
        for n in self.nodes:
            n.wait_ready()
        wait_for("the cluster has a leader for its streams", self._has_meta_leader, 60)
        return self

    def _has_meta_leader(self):
        try:
            self.nodes[0].js("INFO", timeout=2)
            return True
        except OSError:
            return False

    def info(self, stream="ARANCINI_UPDATES", ask=None):
        """STREAM.INFO from the first of `ask` (all nodes) that gives it, else None."""
        for n in ask or self.nodes:
            if n.process.poll() is None:
                try:
                    return n.js(f"STREAM.INFO.{stream}", timeout=2)
                except OSError:
                    pass
        return None

    def leader(self, ask=None):
        """The node that leads the stream of updates as `ask` sees it, else None."""
        info = self.info(ask=ask)
        name = (info or {}).get("cluster", {}).get("leader")
        return next((n for n in self.nodes if n.name == name), None)

    def whole(self):
        """The stream has a leader, and all nodes have stored what it has. The server's own "current" is no proof: a replica
        that catches up has it, too, and one that loses its leader then (2.9.10) stays behind for ever while it votes."""
        info = self.info()
        replicas = (info or {}).get("cluster", {}).get("replicas", [])
        if not info or len(replicas) != len(self.nodes) - 1 or not all(r["current"] and not r.get("offline") for r in replicas):
            return False
        return all((n.stored() or 0) >= info["state"]["last_seq"] for n in self.nodes)

    def cut(self, node):
        if self.own_network:
            self._ip("link", "set", f"node{self.nodes.index(node)}", "nomaster")
        else:
            node.freeze()

    def mend(self, node):
        if self.own_network:
            self._ip("link", "set", f"node{self.nodes.index(node)}", "master", "hub")
        else:
            node.thaw()

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        for n in self.nodes:
            n.__exit__(kind, value, trace)
        for h in self.holders:
            h.stdin.close()
            h.wait()
        shutil.rmtree(self.dir, ignore_errors=True)
