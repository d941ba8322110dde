#!/usr/bin/env python3
"""docs/configuration.md lists exactly the keys that the parser takes."""
import os
import re
import sys

REPO = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))


def main():
    source = open(os.path.join(REPO, "common/base/config.cpp")).read()
    body = source[source.index("Config parse_config("):source.index("void ConfigFlags::add_to")]
    taken, table = set(), None
    for section, key in re.findall(r'Section s\(root, "(\w+)"|s\.\w+\(\s*"(\w+)"', body):
        table = section or table
        if key:
            taken.add(f"{table}.{key}")
    text = open(os.path.join(REPO, "docs/configuration.md")).read()
    documented = set(re.findall(r"`([a-z]+\.[a-z_]+)`", "\n".join(x.split("|")[1] for x in text.splitlines()
                                                                     if x.startswith("| `"))))
    print(f"{len(taken)} keys")
    for key in sorted(taken - documented):
        print("FAILED: not documented:", key)
    for key in sorted(documented - taken):
        print("FAILED: documented but unknown:", key)
    return 1 if taken != documented or not taken else 0


if __name__ == "__main__":
    sys.exit(main())
