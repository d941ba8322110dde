#!/usr/bin/env python3
"""Makes the manual pages (roff, man(7)) from what --help says and from docs/configuration.md.

usage: make_man.py aranctl|curated|ingestd|publishd PROGRAM VERSION
       make_man.py arancini.toml docs/configuration.md VERSION"""
import re
import subprocess
import sys

SEE_ALSO = {"aranctl": "1", "curated": "8", "ingestd": "8", "publishd": "8", "arancini.toml": "5"}

ARANCTL = """aranctl shows what a collector of BMP does and steers it. It asks
curated(8) over the unix socket in the runtime directory, and reads the published stream from NATS or from a journal itself, for
which no daemon has to run.

The global options may stand before or behind the command. With --json each command prints JSON, one object a line, whose
keys stay; what is printed without it is for people and may change."""

DAEMONS = {
    "curated": ("control plane of the Arancini BMP collector", """curated serves the operator's API for aranctl(1), metrics for
Prometheus and a health check. Data flows without it. With --supervise it also owns the listening sockets, starts the other daemons as its
children and starts them again when they end: for a laptop, a container or a test. Where systemd runs, units do this.

SIGTERM ends it, with --supervise all daemons with it, cleanly. SIGHUP has the configuration read again."""),
    "ingestd": ("one shard of the Arancini BMP collector", """ingestd takes the BMP sessions of the routers that belong to its shard, keeps
their tables, and writes what has changed to its ring in shared memory, which publishd(8) reads. There is one for each core, started by
systemd (ingestd@0.service, ...) or by curated --supervise; by hand only with --replay.

SIGTERM ends it; a successor restores its tables and continues where it ended."""),
    "publishd": ("publisher of the Arancini BMP collector", """publishd reads the rings of all shards and publishes what is there to NATS
JetStream, each update once and in order, or keeps it in a journal on disk while NATS is away. With the sink "journal" the journal is all.

SIGTERM ends it; what was not acknowledged stays in the rings and in the journal for its successor."""),
}

FILES = """.SH FILES
.TP
.I /etc/arancini/arancini.toml
Configuration, see arancini.toml(5).
.TP
.I /run/arancini
Runtime directory: rings, stats pages, sockets.
.TP
.I /var/lib/arancini
State directory: journal, snapshots.
"""


def escaped(text):
    """One line of running text."""
    for character, plain in (("\\", "\\e"), ("-", "\\-"), ("…", "..."), ("–", "\\-\\-"), ("×", "x"), ("→", "\\->"), ("'", "\\(aq"),
                             ("`", "\\(ga")):
        text = text.replace(character, plain)
    if not text.isascii():
        raise SystemExit(f"make_man: not ASCII: {text}")
    return "\\&" + text if text.startswith(".") else text


def marked(text):
    """Markdown within a line: code and bold."""
    parts = re.split(r"(`[^`]+`|\*\*[^*]+\*\*)", text)
    out = "".join("\\fB" + escaped(p.strip("`*")) + "\\fR" if re.match(r"`.+`$|\*\*.+\*\*$", p) else escaped(p) for p in parts)
    return re.sub(r"^(?=[.'])", r"\\&", out)


def paragraphs(text):
    return "\n.PP\n".join(escaped(" ".join(p.split())) for p in text.split("\n\n")) + "\n"


def header(name, version):
    return f'.TH "{name.upper()}" "{SEE_ALSO[name]}" "" "Arancini {version}" "Arancini"\n.nh\n.ad l\n'


def footer(name):
    others = [f"\\fB{escaped(n)}\\fR({s})" for n, s in SEE_ALSO.items() if n != name]
    return ".SH SEE ALSO\n" + ",\n".join(others) + "\n"


class Help:
    """What a program says with --help: description, usage, and sections of entries."""

    def __init__(self, program, *command):
        r = subprocess.run([program, *command, "--help"], capture_output=True, text=True, check=True)
        head, _, rest = r.stdout.partition("Usage:")
        self.description = " ".join(head.split())
        self.usage, _, rest = rest.partition("\n")
        self.usage = self.usage.strip().rsplit("/", 1)[-1]
        self.sections = {}
        lines = None
        for line in rest.splitlines():
            if m := re.match(r"(\S[^:]*):$", line):
                lines = self.sections.setdefault(m.group(1), [])
            elif line.startswith("  ") and lines is not None:
                lines.append(line)

    def entries(self, section):
        """[name and value, text]"""
        out = []
        for line in self.sections.get(section, []):
            if re.match(r" {2,3}\S", line):
                name, _, text = line.strip().partition("  ")
                out.append([name, text.strip()])
            else:
                out[-1][1] = (out[-1][1] + " " + line.strip()).strip()
        return out

    def roff(self, section):
        out = ""
        for name, text in self.entries(section):
            names, _, value = name.partition(" ")
            names = ", ".join(f"\\fB{escaped(n)}\\fR" for n in names.split(","))
            out += f".TP\n{names}{' ' + escaped(value) if value else ''}\n{escaped(text)}\n"
        return out


def examples(help_):
    out = ""
    for line in help_.sections.get("Example", []):
        text = escaped(line.strip())
        out += f".TP\n\\fB{text}\\fR\n" if re.match(r"  \S", line) else text + "\n"
    return out and ".PP\nExample:\n" + out


def aranctl(program, version):
    top = Help(program)
    out = header("aranctl", version)
    out += ".SH NAME\naranctl \\- " + escaped("what a BMP collector does, and what it was told") + "\n"
    out += ".SH SYNOPSIS\n.B aranctl\n[\\fIglobal options\\fR] \\fIcommand\\fR [\\fIoptions\\fR]\n"
    out += ".SH DESCRIPTION\n" + paragraphs(ARANCTL) + ".SH GLOBAL OPTIONS\n" + top.roff("Options") + ".SH COMMANDS\n"
    for name, _ in top.entries("Subcommands"):
        one = Help(program, name)
        out += f'.SS "{escaped(one.usage)}"\n{escaped(one.description)}\n'
        out += one.roff("Positionals") + one.roff("Options") + examples(one)
        for below, _ in one.entries("Subcommands"):
            sub = Help(program, name, below)
            out += f'.SS "{escaped(sub.usage)}"\n{escaped(sub.description)}\n'
            out += sub.roff("Positionals") + sub.roff("Options") + examples(sub)
    out += ".SH EXIT STATUS\n"
    for code, text in top.entries("Exit codes"):
        out += f".TP\n.B {code}\n{escaped(text)}\n"
    out += (".SH ENVIRONMENT\n.TP\n.B ARANCINI_NATS\nURL of NATS, as \\-\\-nats.\n.TP\n.B ARANCINI_NATS_PASSWORD, ARANCINI_NATS_TOKEN\n"
            "Stand for nats.password and nats.token of the configuration.\n")
    return out + FILES + footer("aranctl")


def daemon(name, program, version):
    brief, text = DAEMONS[name]
    one = Help(program)
    out = header(name, version) + f".SH NAME\n{name} \\- {escaped(brief)}\n.SH SYNOPSIS\n.B {name}\n[\\fIoptions\\fR]\n"
    out += ".SH DESCRIPTION\n" + paragraphs(text)
    out += ".SH OPTIONS\nOptions go before what the configuration file says.\n" + one.roff("Options")
    out += (".SH EXIT STATUS\n.TP\n.B 0\nIt was told to end.\n.TP\n.B 64\nWrong usage.\n.TP\n.B 78\nThe configuration has a mistake.\n.TP\n"
            ".B others\nSee\n.BR sysexits.h (3head).\n")
    return out + FILES + footer(name)


def configuration(path, version):
    out = header("arancini.toml", version) + ".SH NAME\narancini.toml \\- configuration of the Arancini BMP collector\n"
    lines = open(path, encoding="utf-8").read().splitlines()
    i, fresh = 0, True
    while i < len(lines):
        line = lines[i]
        if m := re.match(r"#+ (.*)", line):
            out += f".SH {escaped('DESCRIPTION' if line.startswith('# ') else m.group(1).upper())}\n"
        elif line.startswith("```"):
            end = next(j for j in range(i + 1, len(lines)) if lines[j].startswith("```"))
            out += ".PP\n.nf\n" + "".join((escaped(x) or "") + "\n" for x in lines[i + 1:end]) + ".fi\n"
            i = end
        elif line.startswith("|"):
            # A first row with the titles, and the rule below it.
            if i + 1 < len(lines) and re.match(r"\|[-|: ]+\|$", lines[i + 1]):
                i += 1
            else:
                keys, default, meaning = (c.strip() for c in re.split(r"(?<!\\)\|", line)[1:4])
                default = "" if default == "required" else f" Default: {marked(default)}."
                # "" for what is empty unless it is set.
                out += f".TP\n{marked(keys)}\n{marked(meaning) + '.' if meaning else ''}{default or ' Required.'}\n"
        elif line.startswith("- "):
            out += f".IP \\(bu 2\n{marked(line[2:])}\n"
        elif line.strip():
            out += (".PP\n" if fresh and not line.startswith("  ") else "") + marked(line.strip()) + "\n"
        fresh = not line.strip() or line.startswith("#")
        i += 1
    return out + footer("arancini.toml")


def main():
    page, source, version = sys.argv[1:]
    if page == "aranctl":
        text = aranctl(source, version)
    elif page == "arancini.toml":
        text = configuration(source, version)
    else:
        text = daemon(page, source, version)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
