#!/bin/sh
# libvirtd in the place of virtqemud, which differs in the name of its socket.
run=${XDG_RUNTIME_DIR:-/run}/libvirt
mkdir -p "$run"
ln -sfn libvirt-sock "$run/virtqemud-sock"
exec /usr/libexec/virtqemud "$@"
