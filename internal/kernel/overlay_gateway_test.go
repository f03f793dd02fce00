package kernel_test

import (
	"context"
	"maps"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"frond/internal/dataplane"
)

// TestGateway has both nodes hold the segment's gateway: each answers its own
// guests, and nothing of it crosses the fabric.
func TestGateway(t *testing.T) {
	t.Parallel()
	a, b := newVTEPs(t, 1)
	join(a, b)
	for _, v := range []*vtep{a, b} {
		segment := v.segment()
		segment.Gateway = dataplane.Gateway{
			MAC:     dataplane.MAC{2, 0x68, 0, 0, 0, 100},
			Address: netip.MustParsePrefix("172.16.0.254/24"), Address6: netip.MustParsePrefix("fd00::ff/64"),
		}
		v.take([]dataplane.Segment{segment})
		v.settle()
		v.noProblems()
	}
	g1, g2 := a.guest(1), b.guest(2)
	g1.ping("172.16.0.2") // the segment works, so that silence means something
	g2.ping("fd00::1")

	ctx, cancel := context.WithCancel(t.Context())
	var heard strings.Builder
	capture := exec.CommandContext(ctx, "ip", "netns", "exec", g2.name, "tcpdump", "-lnni", "eth0",
		"(arp and host 172.16.0.254) or (icmp6 and (ip6[40] == 135 or ip6[40] == 136) and host fd00::1)")
	capture.Stdout = &heard
	listening, err := capture.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := capture.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := listening.Read(make([]byte, 1)); err != nil { // it listens
		t.Fatal(err)
	}
	command(t, "ip -n %s neigh flush dev eth0", g1.name)
	g1.ping("172.16.0.254")
	g1.ping("fd00::ff")
	if got := command(t, "ip -n %s neigh show 172.16.0.254", g1.name); !strings.Contains(got, "02:68:00:00:00:64") {
		t.Errorf("the gateway is taken to be %s", got)
	}
	cancel()
	_ = capture.Wait()
	if heard.Len() > 0 {
		t.Errorf("the other node's guest heard:\n%s", heard.String())
	}
	a.heard.mu.Lock()
	local := maps.Clone(a.heard.macs)
	a.heard.mu.Unlock()
	if len(local) != 1 {
		t.Errorf("stations of this node: %v, want the guest alone", local)
	}

	a.ip("addr del 172.16.0.254/24 dev br-blue")
	a.Resync()
	a.settle()
	g1.ping("172.16.0.254")
	a.ip("addr add 172.16.0.200/32 dev br-blue") // of the operator's
	a.take([]dataplane.Segment{a.segment()})
	a.settle()
	if got := a.ip("addr show dev br-blue"); strings.Contains(got, "172.16.0.254") || strings.Contains(got, "fd00::ff") || !strings.Contains(got, "172.16.0.200") {
		t.Errorf("without the gateway: %s", got)
	}
}
