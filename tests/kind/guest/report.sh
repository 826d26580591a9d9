#!/bin/sh
# Prints one line for each NIC, and one for the pings.
export PATH=/bin
for path in /sys/class/net/*/device; do
  nic=$(basename "${path%/device}")
  link=/sys/class/net/$nic
  # The PCI function of a virtio NIC is one level above its device.
  function=$(readlink -f "$path")
  [ -e "$function/class" ] || function=${function%/*}
  channels=$(ethtool -l "$nic" 2>/dev/null | awk '/^Combined:/ {print $2}')
  set -- "$link"/queues/rx-*
  now=$(echo "$channels" | tail -1) most=$(echo "$channels" | head -1)
  address=$(ip -4 -o addr show dev "$nic" | awk '{print $4}')
  echo "NIC name=$nic driver=$(basename "$(readlink "$path/driver")")" \
    "model=$(cut -c3- "$function/vendor"):$(cut -c3- "$function/device") mac=$(cat "$link/address") mtu=$(cat "$link/mtu")" \
    "queues=${now:-$#} most=${most:-$#} link=$(cat "$link/operstate") address=${address:-none}"
done
[ ! -e /tmp/pings ] || awk -F'seq=' '/seq=/ {got++; last = $2 + 0} END {printf "PINGS sent=%d lost=%d\n", last + 1, last + 1 - got}' /tmp/pings
