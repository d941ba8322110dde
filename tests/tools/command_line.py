"""What aranctl says of its own command line, read from --help."""
import os
import re
import subprocess

BUILD = os.environ["ARANCINI_BUILD"]
REPO = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
ARANCTL = os.path.join(BUILD, "tools", "aranctl")


def help_text(*command, program=ARANCTL):
    r = subprocess.run([program, *command, "--help"], capture_output=True, text=True, timeout=20)
    assert r.returncode == 0 and r.stdout, (command, r.stdout, r.stderr)
    return r.stdout


def section(text, name):
    """The lines of a section of a help text."""
    m = re.search(rf"^{name}:\n((?: .*\n|\n(?= ))*)", text, re.M)
    return m.group(1).splitlines() if m else []


def commands():
    return [m.group(1) for line in section(help_text(), "Subcommands") if (m := re.match(r"  (\S+)", line))]


def options(text):
    """Names of the options: [["-h", "--help"], ["--json"], ...]."""
    return [re.match(r"  (-\S+)", line).group(1).split(",")
            for line in section(text, "Options") if re.match(r"  -", line)]
