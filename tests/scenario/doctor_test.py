#!/usr/bin/env python3
"""aranctl doctor against real servers: an instance that runs has no problem; a NATS that is away, without JetStream, or with a
stream that loses data, a configuration with a mistake or with a password for all: each is a problem, with exit code 1."""
import json
import os
import subprocess
import tempfile

from harness import Pipeline, binary, wait_for
from nats_servers import NatsClient, free_port


def doctor(*args, expect, text=False):
    r = subprocess.run([binary("aranctl"), "doctor", *args, *([] if text else ["--json"])], capture_output=True, text=True, timeout=60)
    assert r.returncode == expect and not r.stderr, (args, r.returncode, r.stdout, r.stderr)
    if text:
        return r.stdout
    out = json.loads(r.stdout)
    for f in out["findings"]:
        assert f["check"] and f["what"] and f["level"] in ("ok", "warning", "problem"), f
        assert f["level"] == "ok" or (f["why"] and f["mend"]), f
    assert out["problems"] == sum(f["level"] == "problem" for f in out["findings"])
    assert out["warnings"] == sum(f["level"] == "warning" for f in out["findings"])
    return out["findings"]


def problems(findings):
    return {f["check"]: f for f in findings if f["level"] == "problem"}


class Server:
    def __init__(self, folder, *args):
        self.port = free_port()
        self.process = subprocess.Popen(["nats-server", "-a", "127.0.0.1", "-p", str(self.port), "-sd", folder, *args],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.url = f"nats://127.0.0.1:{self.port}"
        wait_for("nats-server", self.answers)

    def answers(self):
        try:
            NatsClient("127.0.0.1", self.port).close()
            return True
        except OSError:
            return False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def running():
    with Pipeline() as p:
        wait_for("streams", lambda: p.status()["nats"]["state"] == "connected")
        findings = doctor("--runtime-dir", p.run_dir, expect=0)
        said = {f["check"]: f for f in findings}
        assert said["curated"]["what"].startswith("runs"), said
        assert said["stream ARANCINI_UPDATES"]["level"] == "ok" and "replica" in said["stream ARANCINI_UPDATES"]["what"], said
        assert p.dir in said["state directory"]["what"], said
        assert {f["what"].split(":")[0] for f in findings if f["check"] == "descriptors"} == {"ingestd@0", "ingestd@1", "publishd"}
        text = doctor("--runtime-dir", p.run_dir, expect=0, text=True)
        assert all(len(line) <= 80 for line in text.splitlines()), text
        assert text.splitlines()[-1].startswith("problems: 0, warnings: "), text


def faults(folder):
    where = ["--runtime-dir", os.path.join(folder, "run")]
    found = problems(doctor(*where, "--nats", f"nats://127.0.0.1:{free_port()}", expect=1))
    assert list(found) == ["NATS"] and "refused" in found["NATS"]["what"], found

    with Server(folder) as server:
        found = problems(doctor(*where, "--nats", server.url, expect=1))
        assert list(found) == ["JetStream"] and "not enabled" in found["JetStream"]["what"], found

    with Server(os.path.join(folder, "js"), "-js") as server:
        assert not problems(doctor(*where, "--nats", server.url, expect=0))
        request = {"name": "ARANCINI_UPDATES", "subjects": ["arancini.updates.>"], "storage": "memory", "retention": "limits"}
        with NatsClient("127.0.0.1", server.port) as client:
            answer = client.js("STREAM.CREATE.ARANCINI_UPDATES", request)
            assert "error" not in answer, answer
        found = problems(doctor(*where, "--nats", server.url, expect=1))
        assert "memory" in found["stream ARANCINI_UPDATES"]["what"], found

        config = os.path.join(folder, "arancini.toml")
        with open(config, "w") as f:
            f.write(f'[paths]\nruntime_dir = "{folder}/run"\nstate_dir = "{folder}/state"\n[nats]\nurl = "{server.url}"\n'
                    'updates_stream = "OTHER"\nuser = "a"\npassword = "b"\n')
        os.chmod(config, 0o644)
        found = problems(doctor("--config", config, expect=1))
        assert found["configuration"]["mend"] == f"chmod o-r {config}", found
        os.chmod(config, 0o640)
        assert "configuration" not in problems(doctor("--config", config, expect=0))

        with open(config, "a") as f:
            f.write("nonsense = 1\n")
        found = problems(doctor("--config", config, "--nats", server.url, expect=1))
        assert f"{config}:9" in found["configuration"]["what"] and "nonsense" in found["configuration"]["what"], found

    nonsense = os.path.join(folder, "not.pem")
    with open(nonsense, "w") as f:
        f.write("no certificate\n")
    with open(config, "w") as f:
        f.write(f'[sink]\nkind = "journal"\n[paths]\nruntime_dir = "{folder}/run"\nstate_dir = "{folder}/state"\n'
                f'[nats]\ntls_ca = "{nonsense}"\n[control]\ntls_cert = "{nonsense}"\n')
    findings = doctor("--config", config, expect=1)
    assert list(problems(findings)) == ["nats.tls_ca", "control.tls_cert"], findings


def main():
    running()
    with tempfile.TemporaryDirectory() as folder:
        faults(folder)
    print("well and faulty instances")


if __name__ == "__main__":
    main()
