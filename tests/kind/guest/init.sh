#!/bin/sh
# The guest's first program: says what its NICs are, on the console and by HTTP, and pings an address.
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
while read -r module; do insmod "/modules/$module"; done </modules/order
os=debian ping=
for word in $(cat /proc/cmdline); do
  case $word in
    os=*) os=${word#os=} ;;
    ping=*) ping=${word#ping=} ;;
  esac
done
printf 'ID=%s\nNAME="%s"\nPRETTY_NAME="%s"\nVERSION_ID=1\n' "$os" "$os" "$os" >/etc/os-release
# The driver of a NIC may take a moment after its module is loaded.
for _ in 1 2 3 4 5 6 7 8 9 10; do ls -d /sys/class/net/*/device >/dev/null 2>&1 && break; sleep 0.1; done
ip link set lo up
for path in /sys/class/net/*/device; do
  nic=$(basename "${path%/device}")
  ip link set "$nic" up
done
echo "GUEST kernel=$(uname -r) cpus=$(nproc) system=$os"
for path in /sys/class/net/*/device; do
  nic=$(basename "${path%/device}")
  udhcpc -q -n -t 10 -T 1 -i "$nic" -s /etc/dhcp >/dev/null 2>&1
  # The kernel reports a link up to a second later than the link carries packets.
  for _ in 1 2 3 4 5 6 7 8 9 10; do [ "$(cat "/sys/class/net/$nic/operstate")" = up ] && break; sleep 0.2; done
done
report
for path in /sys/class/virtio-ports/*; do
  if [ "$(cat "$path/name" 2>/dev/null)" = org.qemu.guest_agent.0 ]; then
    qemu-ga -d -m virtio-serial -p "/dev/$(basename "$path")" -t /tmp -f /tmp/agent.pid -l /tmp/agent.log
  fi
done
if [ -n "$ping" ]; then ping -i 0.2 "$ping" >/tmp/pings 2>&1 & fi
httpd -p 80 -h /www
echo "GUEST ready"
while :; do
  report
  sleep 10
done
