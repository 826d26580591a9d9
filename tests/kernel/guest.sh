#!/bin/bash
# The first program of the guest: mounts, loads drivers, serves this host over the virtio port, and restarts the machine at
# the end. What must outlast a restart lies in /keep: module options and the agent's state.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
mount -t tmpfs tmpfs /run
mkdir -p /dev/pts && mount -t devpts devpts /dev/pts
mount -t securityfs securityfs /sys/kernel/security
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
for word in $(cat /proc/cmdline); do
  case $word in
    vmnic.python=*) python=${word#vmnic.python=} ;;
    vmnic.root=*) root=${word#vmnic.root=} ;;
  esac
done
# A checkout below /tmp is to be seen.
case $root in /tmp/*) ;; *) mount -t tmpfs tmpfs /tmp ;; esac
if [ -d /keep/modprobe.d ]; then mount --bind /keep/modprobe.d /etc/modprobe.d; fi
if [ -d /keep/rules.d ]; then
  mount --bind /keep/rules.d /etc/udev/rules.d
  /usr/lib/systemd/systemd-udevd --daemon
fi
modprobe -a igb igbvf vfio-pci vfio_iommu_type1 virtio_net e1000e e1000
[ -d /keep/rules.d ] && udevadm settle
[ -e /keep/bare ] || modprobe -a vhost_net tun macvtap
for link in /sys/class/net/*; do
  if [ "$(cat "$link/address")" = 52:54:00:00:ff:01 ]; then
    ip link set "${link##*/}" name out0
    ip link set out0 up
    ip address add 10.0.2.15/24 dev out0
  fi
done
cd "$root" && PYTHONDONTWRITEBYTECODE=1 "$python" -m tests.kernel.guest
echo "vmnic-lab: the guest's program ended with $?"
echo b > /proc/sysrq-trigger
sleep 30
