package kernel_test

import (
	"bytes"
	"encoding/binary"
	"os/exec"
	"strings"
	"testing"
	"time"

	"frond/internal/dataplane"
)

// discover has a guest ask for an address once, in vain.
func (g *guest) discover() {
	g.t.Helper()
	out, err := exec.Command("ip", "netns", "exec", g.name, "udhcpc", "-i", "eth0", "-f", "-n", "-t", "1", "-T", "1", "-s", "/bin/true").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "no lease") {
		g.t.Fatalf("%s has asked and got: %v %s", g.name, err, out)
	}
}

func isRequest(frame []byte) bool {
	return len(frame) > 42 && binary.BigEndian.Uint16(frame[12:]) == 0x0800 && binary.BigEndian.Uint16(frame[36:]) == 67
}

func (v *vtep) frame(t *testing.T, is func([]byte) bool) dataplane.GuestFrame {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		select {
		case f := <-v.watch.Frames():
			if is(f.Data) {
				return f
			}
		case <-deadline:
			t.Fatal("nothing is heard")
		}
	}
}

func (v *vtep) nothing(t *testing.T, what string) {
	t.Helper()
	select {
	case f := <-v.watch.Frames():
		t.Errorf("%s: heard from %+v: %x", what, f.Port, f.Data)
	default:
	}
}

// TestGuestFrames has guests of two nodes ask for addresses: each is heard by
// its own node alone, and nothing crosses the fabric.
func TestGuestFrames(t *testing.T) {
	t.Parallel()
	a, b := newVTEPs(t, 1)
	join(a, b)
	g1, g2 := a.guest(1), b.guest(2)
	g1.ping("172.16.0.2") // the segment works, so that silence means something

	g1.discover()
	a.nothing(t, "without DHCP")
	count := func() string { return command(t, "ip netns exec %s nft list ruleset", a.name) }
	for _, v := range []*vtep{a, b} {
		s := v.segment()
		s.DHCP = true
		v.watch.SetSegments([]dataplane.Segment{s})
		if _, err := v.kernel.SetRequests([]dataplane.Segment{s}); err != nil {
			t.Fatal(err)
		}
	}
	g1.discover()
	if f := a.frame(t, isRequest); f.Port != (dataplane.LocalPort{VNI: 100, Port: g1.port}) || !bytes.Equal(f.Data[6:12], g1.mac[:]) {
		t.Errorf("heard from %+v: %x", f.Port, f.Data)
	}
	b.nothing(t, "on the other node")
	if rules := count(); !strings.Contains(rules, "packets 1 ") && !strings.Contains(rules, "packets 2 ") {
		t.Errorf("no request was kept from the fabric:\n%s", rules)
	}

	// A probe leaves by all ports of its segment, and its answer is heard.
	probe := make([]byte, 60)
	copy(probe, []byte{255, 255, 255, 255, 255, 255, 2, 0x68, 0, 0, 0, 100, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0x68, 0, 0, 0, 100})
	copy(probe[38:], g1.ip4.AsSlice())
	a.watch.Send(dataplane.LocalPort{VNI: 100}, probe)
	f := a.frame(t, func(frame []byte) bool { return frame[12] == 8 && frame[13] == 6 })
	if !bytes.Equal(f.Data[22:28], g1.mac[:]) || !bytes.Equal(f.Data[28:32], g1.ip4.AsSlice()) {
		t.Errorf("the answer to the probe is %x", f.Data)
	}
	a.watch.Send(dataplane.LocalPort{VNI: 100, Port: "gone"}, probe)

	g2.discover()
	if f := b.frame(t, isRequest); f.Port.Port != g2.port {
		t.Errorf("the other node hears %+v", f.Port)
	}
	a.nothing(t, "of the other node's guest")

	// Even where requests cross, those of other nodes are not heard.
	if _, err := a.kernel.SetRequests(nil); err != nil {
		t.Fatal(err)
	}
	if rules := count(); strings.Contains(rules, "frond-dhcp") {
		t.Errorf("what is left of the filter:\n%s", rules)
	}
	g1.discover()
	b.nothing(t, "by VXLAN")
}
