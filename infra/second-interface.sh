#!/bin/bash
# Makes Debian and Ubuntu answer at a network interface that is attached while they run (endpoint.kind: network_interface).
# Amazon Linux 2023 does that by itself (amazon-ec2-net-utils) and must not have this too.
#
#   second-interface.sh install      once, from user data: keeps itself for every interface that comes, at every boot
#   second-interface.sh up DEVICE    by systemd, when a device appears: its addresses, and a routing table of its own
#
# Why a table of its own: where both interfaces are in one subnet, replies to the fixed address would leave through the
# primary interface, and the VPC drops what has not its interface's address.
#
# Both may be repeated. Fails: when the metadata service does not tell about the device within a minute; systemd shows it
# (systemctl status 'perennial-interface@*'), and Perennial, which sees only that the interface is attached, does not.
# What an interface leaves behind when it goes is a rule for an empty table, which changes nothing.
set -euo pipefail

readonly DESTDIR=${DESTDIR:-} # a folder to install into, instead of /
readonly HOME_OF_THIS=/usr/local/sbin/second-interface.sh
readonly METADATA=http://169.254.169.254/latest
readonly FIRST_TABLE=10000

install_it() {
  [ "$(readlink -f "$0")" = "$DESTDIR$HOME_OF_THIS" ] || install -m 755 "$0" "$DESTDIR$HOME_OF_THIS"
  printf '%s\n' \
    '[Unit]' 'Description=Perennial: addresses and routes of %I' \
    '[Service]' 'Type=oneshot' "ExecStart=$HOME_OF_THIS up %I" >"$DESTDIR/etc/systemd/system/perennial-interface@.service"
  printf '%s\n' \
    'ACTION=="add", SUBSYSTEM=="net", KERNEL=="e*", TAG+="systemd", ENV{SYSTEMD_WANTS}+="perennial-interface@%k.service"' \
    >"$DESTDIR/etc/udev/rules.d/75-perennial-interface.rules"
  systemctl daemon-reload
  udevadm control --reload
  udevadm trigger --subsystem-match=net --action=add
}

# metadata PATH: what the metadata service says about this instance; nothing where it does not know yet.
metadata() {
  local token
  token=$(curl --silent --fail --max-time 5 --request PUT --header 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$METADATA/api/token") || return 0
  curl --silent --fail --max-time 5 --header "X-aws-ec2-metadata-token: $token" "$METADATA/meta-data/$1" || true
}

# first_of BLOCK: the subnet's router, which is its first address.
first_of() {
  local a b c d
  IFS=. read -r a b c d <<<"${1%/*}"
  echo "$a.$b.$c.$((d + 1))"
}

up() {
  local device=$1 mac about number block table address
  mac=$(cat "${SYS:-/sys}/class/net/$device/address")
  about=network/interfaces/macs/$mac
  for _ in $(seq 30); do # the metadata follow the device by a few seconds
    number=$(metadata "$about/device-number")
    block=$(metadata "$about/subnet-ipv4-cidr-block")
    if [ -n "$number" ] && [ -n "$block" ]; then break; fi
    sleep 2
  done
  if [ -z "$number" ] || [ -z "$block" ]; then
    echo "the metadata service knows nothing about $device ($mac)" >&2
    return 1
  fi
  if [ "$number" = 0 ]; then return 0; fi # its own interface is the distribution's business
  table=$((FIRST_TABLE + number))
  ip link set dev "$device" up
  sysctl --quiet --write "net.ipv4.conf.$device.rp_filter=2"
  for address in $(metadata "$about/local-ipv4s"); do
    # Without a route of its own in the main table, which would compete with the primary interface's.
    ip address replace "$address/${block#*/}" dev "$device" noprefixroute
    [ -n "$(ip rule show from "$address" table "$table")" ] || ip rule add from "$address" table "$table" priority "$table"
  done
  ip route replace "$block" dev "$device" scope link table "$table"
  ip route replace default via "$(first_of "$block")" dev "$device" table "$table"
}

case "${1:-}" in
  install) install_it ;;
  up) up "${2:?the name of a device}" ;;
  *)
    echo "usage: $0 install | up DEVICE" >&2
    exit 2
    ;;
esac
