# Shared by tools/up, tools/test, tools/bench, tools/demo and tools/lint: what to install, how to build. Sourced by bash.
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
BUILD=${ARANCINI_BUILD:-$ROOT/build}

PACKAGES_BUILD="g++ meson ninja-build pkg-config liburing-dev libboost-dev capnproto libcapnp-dev libnats-dev libssl-dev libsystemd-dev
  protobuf-compiler libprotobuf-dev libgrpc++-dev protobuf-compiler-grpc libcli11-dev libtomlplusplus-dev libspdlog-dev
  libfmt-dev prometheus-cpp-dev nlohmann-json3-dev"
PACKAGES_RUN="nats-server"
PACKAGES_TEST="libgtest-dev libbenchmark-dev python3 python3-grpcio python3-protobuf xz-utils iproute2 procps gobgpd frr bc openssl clang-format-14 clang-tidy-14
  systemd systemd-container polkitd dpkg-dev zsh fish chromium w3m valgrind"
# Other collectors, for tools/bench --peers.
PACKAGES_PEERS="pmacct"
# A NATS client that is not ours reads the stream in a test; whoever has node and npm from elsewhere keeps them.
command -v npm >/dev/null || PACKAGES_TEST="$PACKAGES_TEST nodejs npm"

say() { printf '%s\n' "$*" >&2; }
die() { say "$(basename "$0"): $*"; exit 1; }

# install_missing PACKAGE...: what dpkg does not have yet, as root or through sudo.
install_missing() {
  local missing=() p sudo=()
  for p in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing+=("$p")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  say "installing: ${missing[*]}"
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || die "these Debian packages are missing and there is no sudo: ${missing[*]}"
    sudo=(sudo)
  fi
  local log; log=$(mktemp)
  if ! { "${sudo[@]}" apt-get update && "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
         apt-get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
    tail -20 "$log" >&2; rm -f "$log"
    die "apt-get could not install: ${missing[*]}"
  fi
  rm -f "$log"
}

# build_tree DIR [MESON ARGS...]: configures once, builds always, for an installation in /usr as in the package. Quiet unless it fails.
build_tree() {
  local dir=$1; shift
  set -- --prefix=/usr "$@"
  local log; log=$(mktemp)
  export CC=${CC:-gcc} CXX=${CXX:-g++}
  if [ ! -f "$dir/build.ninja" ]; then
    if ! meson setup "$@" "$dir" "$ROOT" >"$log" 2>&1; then cat "$log" >&2; rm -f "$log"; die "meson setup failed"; fi
  else
    if ! meson configure "$dir" "$@" >"$log" 2>&1; then cat "$log" >&2; rm -f "$log"; die "meson configure failed"; fi
  fi
  if ! ninja -C "$dir" >"$log" 2>&1; then grep -v '^\[' "$log" | tail -40 >&2; rm -f "$log"; die "the build failed"; fi
  rm -f "$log"
}
