package kernel_test

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"testing"

	"frond/internal/dataplane"
)

// hearsLoop waits until a port is told of as looping, or no more.
func (v *vtep) hearsLoop(want dataplane.LocalLoop) {
	v.t.Helper()
	v.hears(func(h *heard) error {
		if got := h.loops[want.Port]; got != want {
			return fmt.Errorf("heard %+v, want %+v", got, want)
		}
		return nil
	})
}

// Whatever leads from a port back to its bridge, one port is taken out of
// forwarding for as long as it does.
func TestLoops(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		make    func(v *vtep, inside string)
		loop    dataplane.LocalLoop
		unmake  func(v *vtep, inside string)
		working string // a port that must not be blocked
	}{
		"a cable between two ports": {
			make: func(v *vtep, _ string) {
				v.ip("link add loop0 index 501 type veth peer name loop1 index 502")
				v.ip("link set loop0 master br-blue up")
				v.ip("link set loop1 master br-blue up")
			},
			loop:    dataplane.LocalLoop{VNI: 100, Port: "loop1", Other: "loop0", Looped: true},
			unmake:  func(v *vtep, _ string) { v.ip("link set loop0 nomaster") },
			working: "loop0",
		},
		"a guest that bridges two ports": {
			make: func(v *vtep, inside string) {
				command(v.t, "ip -n %s link add name sw type bridge", inside)
				for i := range 2 {
					v.ip("link add loop%d index %d type veth peer name eth%d netns %s", i, 501+i, i, inside)
					v.ip("link set loop%d master br-blue up", i)
					command(v.t, "ip -n %s link set eth%d master sw up", inside, i)
				}
				command(v.t, "ip -n %s link set sw up", inside)
			},
			loop:    dataplane.LocalLoop{VNI: 100, Port: "loop1", Other: "loop0", Looped: true},
			unmake:  func(v *vtep, inside string) { command(v.t, "ip -n %s link set eth0 down", inside) },
			working: "loop0",
		},
		"a port that is a mirror": {
			make: func(v *vtep, inside string) {
				command(v.t, "ip -n %s link add name sw type bridge", inside)
				v.ip("link add loop0 index 501 type veth peer name eth0 netns %s", inside)
				command(v.t, "ip -n %s link set eth0 master sw up", inside)
				command(v.t, "ip -n %s link set sw up", inside)
				command(v.t, "bridge -n %s link set dev eth0 hairpin on", inside)
				v.ip("link set loop0 master br-blue up")
			},
			loop:    dataplane.LocalLoop{VNI: 100, Port: "loop0", Other: "loop0", Looped: true},
			unmake:  func(v *vtep, inside string) { command(v.t, "bridge -n %s link set dev eth0 hairpin off", inside) },
			working: "tap1",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := newVTEPs(t, 1)
			join(a, b)
			g1, g2 := a.guest(1), b.guest(2)
			g1.ping(g2.ip4.String())
			inside := namespace(t, "inside")
			test.make(a, inside)
			// A mirror gives nothing away before somebody speaks twice.
			eventually(t, func() error {
				g1.announce(g1.ip4)
				a.heard.mu.Lock()
				defer a.heard.mu.Unlock()
				if len(a.heard.loops) == 0 {
					return fmt.Errorf("no loop is told of")
				}
				return nil
			})
			a.hearsLoop(test.loop)
			if state := a.portState(test.loop.Port); state != "disabled" {
				t.Errorf("the looping port is %s", state)
			}
			if state := a.portState(test.working); state != "forwarding" {
				t.Errorf("%s is %s", test.working, state)
			}
			eventually(t, func() error { // what the loop has left behind is forgotten soon
				return exec.Command("ip", "netns", "exec", g1.name, "ping", "-c", "1", "-W", "1", g2.ip4.String()).Run()
			})
			a.hearsMAC(dataplane.LocalMAC{VNI: 100, MAC: g1.mac, Port: g1.port})

			test.unmake(a, inside)
			a.hearsLoop(dataplane.LocalLoop{VNI: 100, Port: test.loop.Port})
			if state := a.portState(test.loop.Port); state != "forwarding" {
				t.Errorf("with the loop gone the port is %s", state)
			}
			g1.ping(g2.ip4.String())
		})
	}
}

// Two guests with one MAC look like a loop, and are none.
func TestTwinsAreNoLoop(t *testing.T) {
	t.Parallel()
	a, b := newVTEPs(t, 1)
	join(a, b)
	g1, g2 := a.guest(1), a.guest(2)
	command(t, "ip -n %s link set eth0 address %s", g2.name, g1.mac)
	for range 20 {
		g1.announce(g1.ip4)
		a.hearsMAC(dataplane.LocalMAC{VNI: 100, MAC: g1.mac, Port: g1.port})
		g2.announce(g2.ip4)
		a.hearsMAC(dataplane.LocalMAC{VNI: 100, MAC: g1.mac, Port: g2.port})
	}
	a.hears(func(h *heard) error {
		if len(h.loops) > 0 {
			t.Errorf("told of loops: %+v", h.loops)
		}
		return nil
	})
	for _, g := range []*guest{g1, g2} {
		if state := a.portState(g.port); state != "forwarding" {
			t.Errorf("%s is %s", g.port, state)
		}
	}
}

// portState is what a port's bridge does with it.
func (v *vtep) portState(port string) string {
	v.t.Helper()
	var link []struct{ State string }
	if err := json.Unmarshal([]byte(command(v.t, "bridge -n %s -j link show dev %s", v.name, port)), &link); err != nil {
		v.t.Fatal(err)
	}
	return link[0].State
}
