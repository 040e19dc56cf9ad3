#!/bin/sh
# Boots a systemd that knows no unit of the host's: sh boot.sh DIRECTORY, which has the installed package in `opt`.
# To be run by `unshare --fork --mount --pid --ipc --mount-proc --kill-child`, as root.
set -eu
installed=$1
mount --make-rprivate /
sh "$(dirname "$0")/opt.sh" "$installed"
units=/run/trial

# Nothing that runs in here can write to a disk of the host.
findmnt --raw --noheadings --output TARGET,FSTYPE | while read -r target type; do
    case $type in
        ext*|xfs|btrfs|overlay|fuse*|zfs|9p|virtiofs) mount -o remount,bind,ro "$target" ;;
    esac
done
for fresh in /run /tmp /var; do
    mount -t tmpfs -o mode=755 tmpfs "$fresh"
done
chmod 1777 /tmp
mkdir -p /run/etc/upper /run/etc/work /var/lib /var/cache /var/log "$units"
mount -t overlay -o lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work overlay /etc
[ ! -d /etc/systemd ] || mount -t tmpfs -o mode=755 tmpfs /etc/systemd
rm -rf /etc/neuromodd
mkdir -p /etc/systemd/system

# What a service depends on without saying so, with nothing behind it: the host's own targets would clean /tmp,
# load modules and set kernel variables.
for target in sysinit basic shutdown network-online multi-user; do
    printf '[Unit]\nDescription=%s\nDefaultDependencies=no\n' "$target" > "$units/$target.target"
done
printf '[Unit]\nDescription=Nothing yet\nDefaultDependencies=no\nAllowIsolate=yes\n' > "$units/trial.target"

# As systemd does where it knows itself to be the host's: it mounts a service's credentials from a namespace of
# their own. Nothing comes through to the host.
mount --make-rshared /

export container=trial
export SYSTEMD_UNIT_PATH="/etc/systemd/system:/run/systemd/transient:$units"
export SYSTEMD_GENERATOR_PATH="$units/none" SYSTEMD_ENVIRONMENT_GENERATOR_PATH="$units/none"
exec /lib/systemd/systemd --system --unit=trial.target --log-target=console --show-status=no
