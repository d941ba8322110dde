#!/usr/bin/env python3
"""--help of aranctl and of each command: 80 columns, an example that is one, all exit codes, the global flags on either side of
the command."""
import json
import re
import shlex
import subprocess

from command_line import ARANCTL, REPO, commands, help_text, options, section


def main():
    names = commands()
    assert len(names) >= 11, names
    text = help_text()
    for line in text.splitlines():
        assert len(line) <= 80, line
    codes = set(re.findall(r"kExit\w+ =\s*(\d+)", open(f"{REPO}/tools/aranctl.h").read()))
    told = {re.match(r" +(\d+)  \S", line).group(1) for line in section(text, "Exit codes")}
    assert len(codes) > 8 and codes == told, (codes, told)
    for name in names:
        text = help_text(name)
        own = {o for group in options(text) for o in group} | {"--json", "--runtime-dir"}
        examples = 0
        for line in section(text, "Example"):
            if m := re.match(r"  (aranctl .*)", line):
                examples += 1
                words = shlex.split(re.split(r"[|>&]", m.group(1))[0])
                assert words[1] == name, line
                assert {w for w in words if w.startswith("-")} <= own, line
        assert examples > 0, f"aranctl {name} --help has no example"
        assert "exit codes: aranctl --help" in text
        for line in text.splitlines():
            if not line.startswith("  aranctl "):
                assert len(line) <= 80, line
    # Global flags before and behind; who is not there is said with what to do, and by the exit code.
    for words in (["--runtime-dir", "/nowhere", "--json", "status"], ["status", "--json", "--runtime-dir", "/nowhere"]):
        r = subprocess.run([ARANCTL, *words], capture_output=True, text=True, timeout=20)
        assert r.returncode == 2 and not r.stdout, r
        assert "/nowhere/curated.sock" in r.stderr and "start it:" in r.stderr, r.stderr
    r = subprocess.run([ARANCTL, "nonsense"], capture_output=True, text=True, timeout=20)
    assert r.returncode == 64 and "--help" in r.stderr, r
    print(f"{len(names)} commands")


if __name__ == "__main__":
    main()
