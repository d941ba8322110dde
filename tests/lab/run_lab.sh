#!/bin/bash
# run_lab.sh -- two real BGP routers that send BMP to ADDR:PORT (Debian 12 packages only: gobgpd + frr, or gobgpd + bird2)
#   run_lab.sh up ADDR:PORT [frr|bird] [NROUTES]   start (default second router: frr, 5 routes each side)
#   run_lab.sh prep            only create the namespaces (start your collector with `exec` first, then `up`)
#   run_lab.sh exec CMD...     run CMD inside the collector's namespace (host mode: plain exec)
#   run_lab.sh gobgp ARGS...   gobgp CLI of router 1          run_lab.sh vtysh 'CMD'...   CLI of the FRR / birdc of BIRD
#   run_lab.sh restart gobgp|second [SIGNAL]   end one router's daemon and start it again
#   run_lab.sh down            stop everything that `up` started (by PID) and remove the namespaces
#   run_lab.sh selftest [frr|bird]   up + tiny capture + change + down, prints timings; exit 0 = worked
# Modes: LAB_MODE=netns (default as root): own namespaces $LAB_PFX-{c,g,f}, collector's address 10.99.7.200, routers .1 (GoBGP) .2 (FRR/BIRD)
#        LAB_MODE=host  (default otherwise; no privileges): routers on 127.0.0.{11,12}, ports 11790+; use ADDR = 127.0.0.1
set -u
LAB_PFX=${LAB_PFX:-alab-ci}; LAB_DIR=${LAB_DIR:-${TMPDIR:-/tmp}/$LAB_PFX}; API=${LAB_API_PORT:-50961}
MODE=${LAB_MODE:-$([ "$(id -u)" = 0 ] && echo netns || echo host)}
GOBGPD=${GOBGPD:-gobgpd}; GOBGP=${GOBGP:-gobgp}; BGPD=${BGPD:-/usr/lib/frr/bgpd}; BIRD=${BIRD:-bird}; BIRDC=${BIRDC:-birdc}
[ -x /usr/sbin/bird ] && PATH=$PATH:/usr/sbin
if [ $MODE = netns ]; then G=10.99.7.1 F=10.99.7.2 GP=179 FP=179; else G=127.0.0.11 F=127.0.0.12 GP=${LAB_PORT:-11790} FP=$((${LAB_PORT:-11790}+1)); fi
ns() { local n=$1; shift; if [ $MODE = netns ]; then ip netns exec $LAB_PFX-$n "$@"; else command "$@"; fi; }
die() { echo "run_lab: $*" >&2; exit 1; }
now() { date +%s.%N; }
spawn() { # spawn NAME NS CMD...   -> pid file (exec'd, so the pid is the daemon's own)
  local name=$1 n=$2; shift 2; { echo $n; printf '%q ' "$@"; } >"$LAB_DIR/$name.cmd"
  if [ $MODE = netns ]; then setsid ip netns exec $LAB_PFX-$n "$@" >"$LAB_DIR/$name.log" 2>&1 </dev/null & else setsid "$@" >"$LAB_DIR/$name.log" 2>&1 </dev/null & fi
  echo $! >"$LAB_DIR/$name.pid"; }
prep() { # namespaces only, so that a collector can be started (exec) before `up`
  local i; mkdir -p "$LAB_DIR"; [ $MODE = netns ] || return 0; ip netns list | grep -q "^$LAB_PFX-f\b" && return 0
    for i in c g f; do ip netns add $LAB_PFX-$i || die netns; ip -n $LAB_PFX-$i link set lo up; done
    ip -n $LAB_PFX-c link add br0 type bridge; ip -n $LAB_PFX-c addr add 10.99.7.200/24 dev br0; ip -n $LAB_PFX-c link set br0 up
    for i in g:1 f:2; do ip link add lv${i%:*} netns $LAB_PFX-c type veth peer name eth0 netns $LAB_PFX-${i%:*}; ip -n $LAB_PFX-c link set lv${i%:*} master br0 up
      ip -n $LAB_PFX-${i%:*} link set eth0 up; ip -n $LAB_PFX-${i%:*} addr add 10.99.7.${i#*:}/24 dev eth0; ip netns exec $LAB_PFX-${i%:*} sysctl -qw net.ipv6.conf.eth0.accept_dad=0; ip -n $LAB_PFX-${i%:*} -6 addr add fd99:7::${i#*:}/64 dev eth0 nodad; done
}
up() {
  local dst=$1 second=${2:-frr} n=${3:-5}; local A=${dst%:*} P=${dst##*:} i t0=$(now)
  [ -e "$LAB_DIR/up" ] && die "already up (run: $0 down)"; mkdir -p "$LAB_DIR"; rm -f "$LAB_DIR"/{gobgp,second}.pid; chmod 755 "$LAB_DIR"; echo "$second" >"$LAB_DIR/up"
  prep
  cat >"$LAB_DIR/gobgpd.toml" <<X
[global.config]
  as = 65001
  router-id = "10.99.7.1"
  port = $GP
  local-address-list = ["$G"]
[[neighbors]]
  [neighbors.config]
    neighbor-address = "$F"
    peer-as = 65002
  [neighbors.transport.config]
    local-address = "$G"
    passive-mode = true
  [neighbors.timers.config]
    connect-retry = 1
    hold-time = 9
    keepalive-interval = 3
  [[neighbors.afi-safis]]
    [neighbors.afi-safis.config]
      afi-safi-name = "ipv4-unicast"
  [[neighbors.afi-safis]]
    [neighbors.afi-safis.config]
      afi-safi-name = "ipv6-unicast"
[[bmp-servers]]
  [bmp-servers.config]
    address = "$A"
    port = $P
    route-monitoring-policy = "all"
    statistics-timeout = 15
    sys-name = "lab-gobgp"
    sys-descr = "run_lab GoBGP"
X
  # host mode: FRR refuses 127/8 next hops ("Martian nexthop"), so rewrite them on export
  [ $MODE = host ] && cat >>"$LAB_DIR/gobgpd.toml" <<'X'
[global.apply-policy.config]
  export-policy-list = ["NH"]
  default-export-policy = "accept-route"
[[defined-sets.prefix-sets]]
  prefix-set-name = "V4"
  [[defined-sets.prefix-sets.prefix-list]]
    ip-prefix = "0.0.0.0/0"
    masklength-range = "0..32"
[[policy-definitions]]
  name = "NH"
  [[policy-definitions.statements]]
    name = "s"
    [policy-definitions.statements.conditions.match-prefix-set]
      prefix-set = "V4"
    [policy-definitions.statements.actions]
      route-disposition = "accept-route"
    [policy-definitions.statements.actions.bgp-actions]
      set-next-hop = "192.0.2.11"
X
  if [ $second = frr ]; then
    { cat <<X
frr defaults traditional
hostname lab-frr
bgp route-map delay-timer 0
ip prefix-list DENY seq 5 permit 203.0.113.0/24 le 32
route-map IN deny 10
 match ip address prefix-list DENY
route-map IN permit 20
 set community 65002:999 additive
router bgp 65002
 bgp router-id 10.99.7.2
 no bgp ebgp-requires-policy
 no bgp network import-check
 timers bgp 3 9
 neighbor $G remote-as 65001
 neighbor $G port $GP
 neighbor $G update-source $F
 neighbor $G timers connect 1
 neighbor $G advertisement-interval 0
$([ $MODE = host ] && echo " neighbor $G ebgp-multihop 2")
X
    for a in ipv4 ipv6; do echo " address-family $a unicast"; echo "  neighbor $G activate"; echo "  neighbor $G soft-reconfiguration inbound"; [ $a = ipv4 ] && echo "  neighbor $G route-map IN in"
      for ((i=0;i<n;i++)); do [ $a = ipv4 ] && echo "  network 10.$((128+i/65536)).$((i/256%256)).$((i%256))/32" || echo "  network 2001:db8:f::$(printf %x $i)/128"; done; echo " exit-address-family"; done
    cat <<X
 bmp targets COL
  bmp stats interval 5000
  bmp monitor ipv4 unicast pre-policy
  bmp monitor ipv4 unicast post-policy
  bmp monitor ipv6 unicast pre-policy
  bmp monitor ipv6 unicast post-policy
  bmp connect $A port $P min-retry 100 max-retry 1000
 exit
X
    } >"$LAB_DIR/bgpd.conf"
    # -S: keep our user; -Z: no zebra; -l: listen address (implies no kernel routes)
    spawn second f "$BGPD" -M bmp -f "$LAB_DIR/bgpd.conf" -i "$LAB_DIR/bgpd.frrpid" -z "$LAB_DIR/none.api" --vty_socket "$LAB_DIR" -P 0 -S -Z -l $F -p $FP --log stdout
  else
    { cat <<X
log stderr all;
router id 10.99.7.2;
protocol device {}
protocol static s4 { ipv4; $(for ((i=0;i<n;i++)); do echo "route 10.$((128+i/65536)).$((i/256%256)).$((i%256))/32 blackhole;"; done) }
protocol static s6 { ipv6; $(for ((i=0;i<n;i++)); do printf 'route 2001:db8:f::%x/128 blackhole; ' $i; done) }
protocol bgp pG { local $F port $FP as 65002; neighbor $G port $GP as 65001; strict bind on; hold time 9; keepalive time 3; connect delay time 1; connect retry time 1; error wait time 1,2; multihop 2;
 ipv4 { import all; export all; next hop self; }; ipv6 { import all; export all; next hop self; }; }
$("$BIRD" --version >/dev/null 2>&1; [ -n "${BIRD_BMP:-}" ] && echo "protocol bmp B { station address ip $A port $P; monitoring rib in pre_policy; monitoring rib in post_policy; system name \"lab-bird\"; system description \"run_lab BIRD\"; }")
X
    } >"$LAB_DIR/bird.conf"
    [ -n "${BIRD_BMP:-}" ] && sed -i 's/ipv4 { import all;/ipv4 { import all; import table on;/; s/ipv6 { import all;/ipv6 { import all; import table on;/' "$LAB_DIR/bird.conf"
    spawn second f "$BIRD" -f -c "$LAB_DIR/bird.conf" -s "$LAB_DIR/bird.ctl" -P "$LAB_DIR/bird.pidf"
  fi
  spawn gobgp g "$GOBGPD" -f "$LAB_DIR/gobgpd.toml" -p --api-hosts 127.0.0.1:$API --pprof-disable
  for ((i=0;i<100;i++)); do gobgp global >/dev/null 2>&1 && break; sleep .05; done
  gobgp global >/dev/null 2>&1 || { cat "$LAB_DIR/gobgp.log" >&2; down; die "gobgpd did not start"; }
  for ((i=0;i<n && i<200;i++)); do gobgp global rib add 198.51.100.$i/32 nexthop $G med $i community 65001:$i >/dev/null; done
  gobgp global rib add 203.0.113.0/24 nexthop $G >/dev/null   # FRR's inbound policy rejects this one
  gobgp global rib add -a ipv6 2001:db8:1::/48 nexthop fd99:7::1 large-community 65001:1:2 >/dev/null
  for ((i=0;i<300;i++)); do gobgp neighbor $F 2>/dev/null | grep -q 'BGP state = ESTABLISHED\|BGP state = established' && break; sleep .05; done
  gobgp neighbor | tail -1 | grep -q Establ || { cat "$LAB_DIR"/second.log | tail -5 >&2; down; die "no BGP session"; }
  printf 'up in %.2f s (mode %s, second %s)\n' "$(echo "$(now) - $t0" | bc -l 2>/dev/null || awk "BEGIN{print $(now)-$t0}")" $MODE $second
}
restart() { # restart gobgp|second [SIGNAL]: end the daemon and start it again as it was started first
  local name=$1 p i n; p=$(cat "$LAB_DIR/$name.pid"); kill -${2:-TERM} $p; for i in $(seq 100); do kill -0 $p 2>/dev/null || break; sleep .05; done; kill -0 $p 2>/dev/null && die "$name does not end"
  n=$(head -1 "$LAB_DIR/$name.cmd"); eval "spawn $name $n $(tail -1 "$LAB_DIR/$name.cmd")"; }
gobgp() { ns g "$GOBGP" -p $API "$@"; }
down() {
  local p f
  for f in gobgp second ${LAB_KEEPNS:+} $([ -z "${LAB_KEEPNS:-}" ] && echo col); do [ -s "$LAB_DIR/$f.pid" ] || continue; p=$(cat "$LAB_DIR/$f.pid")
    kill -TERM $p 2>/dev/null; for i in $(seq 40); do kill -0 $p 2>/dev/null || break; sleep .05; done; kill -KILL $p 2>/dev/null; rm -f "$LAB_DIR/$f.pid"; done
  if [ $MODE = netns ] && [ -z "${LAB_KEEPNS:-}" ]; then for i in g f c; do ip netns del $LAB_PFX-$i 2>/dev/null; done; fi
  rm -f "$LAB_DIR/up"; return 0
}
case ${1:-} in
 up) shift; [ $# -ge 1 ] || die "up ADDR:PORT [frr|bird] [N]"; up "$@";;
 exec) shift; if [ $MODE = netns ]; then exec ip netns exec $LAB_PFX-c "$@"; else exec "$@"; fi;;
 gobgp) shift; gobgp "$@";;
 vtysh) shift; if [ "$(cat "$LAB_DIR/up")" = frr ]; then a=(); for x in "$@"; do a+=(-c "$x"); done; ns f vtysh --vty_socket "$LAB_DIR" -d bgpd "${a[@]}"; else ns f "$BIRDC" -s "$LAB_DIR/bird.ctl" "$@"; fi;;
 restart) shift; restart "$@";;
 prep) prep;;
 down) down;;
 selftest) second=${2:-frr}; t0=$(now)
   A=$([ $MODE = netns ] && echo 10.99.7.200 || echo 127.0.0.1); P=${LAB_BMP_PORT:-11965}
   trap down EXIT; prep; rm -f "$LAB_DIR"/st-s*; spawn col c python3 "$(dirname "$0")/bin/bmpcap.py" --listen $A --port $P --out "$LAB_DIR/st"; sleep .2
   up $A:$P $second || exit 1
   sleep 3; gobgp global rib add 198.51.100.250/32 nexthop $G >/dev/null; gobgp global rib del 198.51.100.0/32 >/dev/null; sleep 1
   LAB_KEEPNS=1 down; sleep .3; kill $(cat "$LAB_DIR/col.pid"); sleep .3; python3 "$(dirname "$0")/bin/bmpstat.py" "$LAB_DIR"/st-s*.bmp; down; trap - EXIT
   want=1; [ $second = frr ] && want=2; got=$(ls "$LAB_DIR"/st-s*.bmp | wc -l); echo "BMP sessions: $got (want $want) total $(awk "BEGIN{print $(now)-$t0}") s"; [ "$got" -ge $want ];;
 *) sed -n 2,12p "$0"; exit 2;;
esac
