#!/usr/bin/env python3
"""Prints /etc/arancini/arancini.toml with every key of docs/configuration.md (first argument), its meaning and its default, commented
out. The second argument is the folder of curated."""
import re
import sys
import textwrap

HEAD = """\
# Arancini. Every key is optional: what is commented out is the default. Settings of routers ([[router]]) and more about the keys:
# docs/configuration.md. Check a change: {libexec}/curated --check-config. In force after: systemctl daemon-reload
# && systemctl restart arancini.target
"""


def cells(line):
    return [c.strip() for c in line.strip().strip("|").split("|")]


def main():
    sections = {}
    for line in open(sys.argv[1]):
        if not re.match(r"\| `[a-z]+\.[a-z_]+`", line):
            continue
        names, defaults, meaning = cells(line)
        names = re.findall(r"`(\w+)\.(\w+)`", names)
        if names[0][0] == "router":
            continue
        values = [v.strip().strip("`") for v in defaults.split(", ")]
        if len(values) != len(names):
            values = [defaults.strip("`")] * len(names)
        rows = sections.setdefault(names[0][0], [])
        rows.append((meaning.replace("`", "").replace("**", ""), [f"#{key} = {v}" for (_, key), v in zip(names, values)]))
    print(HEAD.format(libexec=sys.argv[2]), end="")
    for section, rows in sections.items():
        print(f"\n[{section}]")
        for meaning, settings in rows:
            for text in textwrap.wrap(meaning, 110):
                print("#", text)
            print("\n".join(settings))


main()
