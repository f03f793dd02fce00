package lab

import (
	"archive/tar"
	"compress/gzip"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
)

// ImageAlias is the name of the image that instances of a lab's LXD are made of.
const ImageAlias = "busybox"

// applets are the commands of busybox that the image has by their own names.
var applets = []string{"arping", "cat", "cut", "hostname", "ifconfig", "ip", "ls", "nc", "nslookup", "ping", "ps", "rm", "route", "sh", "sleep", "udhcpc", "wget"}

// What has an instance ask for its address for as long as it runs. In /run/up it
// notes the machine's uptime, in seconds, just before it first has one.
const (
	instanceInittab = `::sysinit:/bin/rm -f /run/up
::sysinit:/bin/ip link set lo up
::sysinit:/bin/ip link set eth0 up
::respawn:/etc/dhcp
`
	instanceClient = `#!/bin/sh
exec udhcpc -i eth0 -f -t 5 -T 1 -A 1 -s /etc/dhcp.script -x "hostname:$(hostname)"
`
	instanceScript = `#!/bin/sh
case $1 in
deconfig)
	ifconfig $interface 0.0.0.0
	;;
bound | renew)
	[ -e /run/up ] || cut -d " " -f 1 /proc/uptime >/run/up
	ifconfig $interface $ip netmask $subnet
	[ -z "$mtu" ] || ip link set $interface mtu $mtu
	[ -z "$router" ] || ip route replace default via ${router%% *} dev $interface
	: >/etc/resolv.conf
	[ -z "$search$domain" ] || echo "search ${search:-$domain}" >>/etc/resolv.conf
	for server in $dns; do echo "nameserver $server" >>/etc/resolv.conf; done
	;;
esac
`
)

// architectures are LXD's names of them.
var architectures = map[string]string{"amd64": "x86_64", "arm64": "aarch64"}

// WriteImage writes an image for LXD: busybox, which asks for its address.
func WriteImage(w io.Writer) error {
	program, err := staticBusybox()
	if err != nil {
		return err
	}
	architecture := architectures[runtime.GOARCH]
	zipped := gzip.NewWriter(w)
	image := imageWriter{tar: tar.NewWriter(zipped)}
	image.file("metadata.yaml", 0o644, fmt.Appendf(nil, "architecture: %s\ncreation_date: 1\nproperties: {description: frond lab, os: busybox}\n", architecture))
	for _, dir := range []string{"", "bin", "sbin", "dev", "proc", "sys", "etc", "tmp", "root", "run", "var"} {
		image.dir("rootfs/" + dir)
	}
	image.file("rootfs/bin/busybox", 0o755, program)
	for _, name := range applets {
		image.link("rootfs/bin/"+name, "busybox")
	}
	image.link("rootfs/sbin/init", "../bin/busybox")
	image.file("rootfs/etc/inittab", 0o644, []byte(instanceInittab))
	image.file("rootfs/etc/dhcp", 0o755, []byte(instanceClient))
	image.file("rootfs/etc/dhcp.script", 0o755, []byte(instanceScript))
	image.file("rootfs/etc/passwd", 0o644, []byte("root:x:0:0:root:/root:/bin/sh\n"))
	if err := errors.Join(image.err, image.tar.Close(), zipped.Close()); err != nil {
		return fmt.Errorf("write the image of instances: %w", err)
	}
	return nil
}

// staticBusybox is a busybox that needs nothing else.
func staticBusybox() ([]byte, error) {
	const hint = "instances are made of a static busybox (Debian: apt-get install busybox-static)"
	path, err := exec.LookPath("busybox")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", hint, err)
	}
	program, err := elf.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", hint, path, err)
	}
	defer func() { _ = program.Close() }()
	if slices.ContainsFunc(program.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		return nil, fmt.Errorf("%s: %s is not static", hint, path)
	}
	return os.ReadFile(path)
}

// imageWriter keeps the first error.
type imageWriter struct {
	tar *tar.Writer
	err error
}

func (w *imageWriter) add(h tar.Header, content []byte) {
	if w.err == nil {
		w.err = w.tar.WriteHeader(&h)
	}
	if w.err == nil {
		_, w.err = w.tar.Write(content)
	}
}

func (w *imageWriter) dir(name string) {
	w.add(tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}, nil)
}

func (w *imageWriter) link(name, to string) {
	w.add(tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to, Mode: 0o777}, nil)
}

func (w *imageWriter) file(name string, mode int64, content []byte) {
	w.add(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(content))}, content)
}
