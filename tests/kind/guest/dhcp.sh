#!/bin/sh
# The script of udhcpc: takes the address, the MTU and the router that are offered.
# shellcheck disable=SC2154 # udhcpc sets the variables.
case $1 in
  bound | renew)
    ip addr flush dev "$interface"
    ip addr add "$ip/${mask:-24}" dev "$interface"
    [ -z "$mtu" ] || ip link set "$interface" mtu "$mtu"
    [ -z "$router" ] || ip route replace default via "${router%% *}"
    ;;
esac
