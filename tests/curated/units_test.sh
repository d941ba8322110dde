#!/bin/sh
# systemd-analyze verify over the unit files, as they are installed, with the built programs in their place. It exits 0 even
# on unknown keys: anything on stderr is a failure.
# The configuration file of the package is valid, also with every default written out.
# usage: units_test.sh LIBEXEC_FOLDER UNIT_FOLDER CURATED INGESTD PUBLISHD
set -eu
command -v systemd-analyze >/dev/null || { echo "skipped: systemd-analyze is not installed"; exit 77; }
libexec=$1 units=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/libexec" "$work/units"
for program in "$3" "$4" "$5"; do
  ln -s "$(realpath "$program")" "$work/libexec/"
done
for unit in ingestd@.service ingestd@.socket publishd.service curated.service arancini.target; do
  sed "s|$libexec|$work/libexec|" "$units/$unit" >"$work/units/$unit"
done
cp "$work/units/ingestd@.service" "$work/units/ingestd@0.service"
cp "$work/units/ingestd@.socket" "$work/units/ingestd@0.socket"
grep -q "ExecStart=$work/libexec/ingestd --shard %i" "$work/units/ingestd@.service"
SYSTEMD_UNIT_PATH="$work/units:" systemd-analyze verify --man=no "$work"/units/ingestd@0.service "$work"/units/ingestd@0.socket \
  "$work"/units/publishd.service "$work"/units/curated.service "$work"/units/arancini.target 2>"$work/said" || true
if [ -s "$work/said" ]; then
  cat "$work/said"
  exit 1
fi
"$3" --check-config --config "$units/arancini.toml"
sed 's/^#\([a-z_]* = \)/\1/' "$units/arancini.toml" >"$work/arancini.toml"
[ "$(grep -c '^[a-z_]* = ' "$work/arancini.toml")" -gt 50 ]
"$3" --check-config --config "$work/arancini.toml"
echo "units are clean"
