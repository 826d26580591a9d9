#!/bin/bash
# preload.sh ROOT: import the archives in ROOT/kind/preload with the node's own containerd, in a mount namespace of its own
set -euo pipefail
root=$1
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
for name in run tmp; do mount -t tmpfs tmpfs "$root/$name"; done
chroot "$root" /usr/local/bin/containerd --log-level warn >"$root.containerd.log" 2>&1 &
containerd=$!
trap 'kill $containerd; wait $containerd || true' EXIT
ctr() { chroot "$root" /usr/local/bin/ctr -n k8s.io "$@"; }
for _ in {1..50}; do ctr version >/dev/null 2>&1 && break; sleep 0.2; done
for archive in "$root"/kind/preload/*.tar; do ctr images import "${archive#"$root"}" >/dev/null; done
for image in $(ctr images ls -q); do ctr images label "$image" io.cri-containerd.pinned=pinned >/dev/null; done
# The layers are unpacked: their archives need not stay.
ctr content prune references >/dev/null
