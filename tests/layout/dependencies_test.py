#!/usr/bin/env python3
"""Who may include whom (docs/architecture.md): shm-layout only std; common only shm-layout; daemons these two, never each
other; tools only common (and themselves). Of common only the folder nats sees nats.h; one file of each program does, and
one sees liburing.h; gRPC headers stay in service and client files, and in callers.cpp,
which knows who calls."""
import os
import re
import sys

REPO = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
ALLOWED = {
    "shm-layout": {"shm-layout"},
    "common": {"shm-layout", "common"},
    "ingestd": {"shm-layout", "common", "ingestd"},
    "publishd": {"shm-layout", "common", "publishd"},
    "curated": {"shm-layout", "common", "curated"},
    "tools": {"common", "tools"},
}
INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]', re.M)


def sources(folder):
    for path, _, names in os.walk(os.path.join(REPO, folder)):
        for name in sorted(names):
            if name.endswith((".h", ".cpp")):
                yield os.path.join(path, name)


def main():
    faults, files = [], 0
    sees = {"nats.h": {}, "liburing.h": {}}
    for folder, allowed in ALLOWED.items():
        for path in sources(folder):
            files += 1
            name = os.path.relpath(path, REPO)
            for mark, target in INCLUDE.findall(open(path).read()):
                top = target.split("/")[0]
                if mark == '"' and top in ALLOWED and top not in allowed:
                    faults.append(f"{name} includes {target}")
                if mark == '"' and top not in ALLOWED and not target.endswith((".capnp.h", ".pb.h")):
                    faults.append(f'{name}: "{target}" is not a path from the top folder')
                if folder == "shm-layout" and mark == "<" and ("/" in target or target.endswith(".h")):
                    faults.append(f"{name} includes <{target}>: only the standard library")
                for header, by in sees.items():
                    if name.startswith("common/nats/") and header == "nats.h":
                        continue
                    if target == header or target.endswith("/" + header):
                        by.setdefault(folder, set()).add(name)
                if target.startswith("grpc") and not re.search(r"(service|client|control|probe|main|callers)[^/]*\.(cpp|h)$", name):
                    faults.append(f"{name} includes {target}: gRPC stays in service and client files")
                if target.startswith("grpc") and name.endswith(".h"):
                    faults.append(f"{name} includes {target}: not in headers")
    for header, by in sees.items():
        for folder, names in by.items():
            if len(names) > 1:
                faults.append(f"{header} is seen by several files of {folder}: {sorted(names)}")
    for f in faults:
        print("FAILED:", f)
    print(f"{files} files")
    assert files > 20
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
