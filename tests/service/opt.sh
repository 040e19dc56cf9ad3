#!/bin/sh
# In a mount namespace of one's own: /opt/neuromodd is DIRECTORY/opt, whatever the host has there.
set -eu
mkdir -p "$1/upper/neuromodd" "$1/work"
mount -t overlay -o "lowerdir=/opt,upperdir=$1/upper,workdir=$1/work" overlay /opt
mount --bind "$1/opt" /opt/neuromodd
