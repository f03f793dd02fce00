package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"

	"frond/internal/fabric"
	"frond/internal/netns"
)

// leaseTime is how long a guest may take to get an address.
const leaseTime = 15 * time.Second

// clientScript has a guest be as its DHCP client says (busybox's udhcpc runs
// it with the event as argument and what it knows as variables). Of resolvers
// it takes no note: guests share the machine's files.
const clientScript = `#!/bin/sh
case $1 in
deconfig)
	ip -4 addr flush dev $interface
	;;
bound | renew)
	ip -4 addr replace $ip/$mask dev $interface valid_lft $lease preferred_lft $lease
	[ -z "$mtu" ] || ip link set $interface mtu $mtu
	[ -z "$router" ] || ip route replace default via ${router%% *} dev $interface
	;;
esac
`

// withoutDHCP is what a guest is told by hand although it asks by DHCP.
func withoutDHCP(s fabric.Segment) fabric.Segment {
	if s.Gateway != nil {
		gateway := *s.Gateway
		gateway.Address = netip.Addr{}
		if s.DHCP6 != nil {
			gateway.Address6, s.Prefix6 = netip.Addr{}, netip.Prefix{}
		}
		s.Gateway = &gateway
	}
	return s
}

// lease starts the client of a guest and waits for the address that it gets.
func (l *Lab) lease(ctx context.Context, inside *netns.NS, g *Guest) error {
	program, err := exec.LookPath("udhcpc")
	if err != nil {
		return fmt.Errorf("guest %s asks for its address by udhcpc, which is not installed (Debian: apt-get install udhcpc): %w", g.Name, err)
	}
	script := filepath.Join(l.Dir(), "udhcpc.script")
	if err := os.WriteFile(script, []byte(clientScript), 0o755); err != nil {
		return fmt.Errorf("write the script of DHCP clients: %w", err)
	}
	cmd := exec.Command(program, "-i", "eth0", "-f", "-t", "5", "-T", "1", "-A", "1", "-s", script, "-x", "hostname:"+g.Name)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := inside.Start(cmd); err != nil {
		return fmt.Errorf("start the DHCP client of %s: %w", g.Name, err)
	}
	// Reaps the client if it ends before this process does; init does after.
	go func() { _ = cmd.Wait() }()
	ctx, cancel := context.WithTimeout(ctx, leaseTime)
	defer cancel()
	return poll(ctx, func() bool {
		address, err := addressOf(inside)
		g.Address = address
		return err == nil
	}, g.Name+" gets no address by DHCP")
}

// addressOf is the IPv4 address that a guest has now.
func addressOf(inside *netns.NS) (address netip.Prefix, err error) {
	err = inside.Do(func() error {
		eth0, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		list, err := netlink.AddrList(eth0, netlink.FAMILY_V4)
		if err != nil {
			return err
		}
		if len(list) == 0 {
			return errors.New("it has no address")
		}
		ip, _ := netip.AddrFromSlice(list[0].IP.To4())
		length, _ := list[0].Mask.Size()
		address = netip.PrefixFrom(ip, length)
		return nil
	})
	return address, err
}
