#!/bin/bash
# The first program of the guest: loads drivers, serves this host over the virtio port, and restarts the machine at the end.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
mount -t tmpfs tmpfs /run
ip link set lo up
for word in $(cat /proc/cmdline); do
  case $word in
    vmnic.python=*) python=${word#vmnic.python=} ;;
    vmnic.root=*) root=${word#vmnic.root=} ;;
  esac
done
modprobe -a igb igbvf vfio-pci vfio_iommu_type1 vhost_net
cd "$root" && PYTHONDONTWRITEBYTECODE=1 "$python" -m tests.kernel.guest
echo "vmnic-lab: the guest's program ended with $?"
echo b > /proc/sysrq-trigger
sleep 30
