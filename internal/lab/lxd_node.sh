#!/bin/sh
# A node of a lab as LXD wants it: a machine of its own. This is the first
# process of new pid, mount and uts namespaces, in the node's network namespace;
# when it ends, so do LXD and its instances there.
# $1: the node, $2: LXD's directory, $3: the node's cgroup
set -e

hostname "$1"
read -r pid rest </proc/self/stat # the machine's /proc yet, and its number there

# LXC makes the cgroups of instances beside init.scope of the first process.
for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/*; do
	[ -e "$hierarchy/cgroup.procs" ] || continue
	for group in "$hierarchy/$3" "$hierarchy/$3/init.scope"; do
		mkdir -p "$group"
		for file in cpuset.cpus cpuset.mems; do # without these, nothing may run there (cgroup v1)
			[ ! -e "$hierarchy/$file" ] || cat "$hierarchy/$file" >"$group/$file"
		done
	done
	echo 0 >"$hierarchy/$3/init.scope/cgroup.procs"
done

mount -t proc proc /proc
mkdir -p "$2/cgroup"
mount --rbind /sys/fs/cgroup "$2/cgroup"
mount -t sysfs sysfs /sys # LXD looks for interfaces in /sys/class/net
mount --rbind "$2/cgroup" /sys/fs/cgroup
umount -l "$2/cgroup"
mkdir -p /run/lxc
mount -t tmpfs tmpfs /run/lxc

echo "$pid" >"$2/pid.new"
mv "$2/pid.new" "$2/pid"
trap : TERM HUP INT
while :; do # reaps what is left to it
	sleep 86400 &
	wait
done
