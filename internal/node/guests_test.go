package node

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"frond/internal/bgp"
	"frond/internal/dataplane"
	"frond/internal/evpn"
	"frond/internal/guest"
)

// fakeHypervisor notes where it is looked for.
type fakeHypervisor struct{ desired guest.Desired }

func (f *fakeHypervisor) Set(d guest.Desired)        { f.desired = d }
func (f *fakeHypervisor) Events() <-chan guest.State { return nil }

const guestDocument = testDocument + `
segments:
  blue: {vni: 100, nodes: ["*"], prefix: 172.16.0.0/24, gateway: {address: 172.16.0.1}}
`

var (
	blueBridge = dataplane.Link{Name: "br-blue", Index: 10, Up: true, Kind: "bridge"}
	c1MAC      = dataplane.MAC{0, 0x16, 0x3e, 0, 0, 1}
	c1IP       = netip.MustParseAddr("172.16.0.11")
)

// instance is one with a port of that name, or none.
func instance(port string) guest.Instance {
	return guest.Instance{Key: guest.Key{Project: "default", Name: "c1"}, State: "Running", NICs: []guest.NIC{
		{Device: "eth0", MAC: c1MAC, Port: port, Parent: "br-blue", Addresses: []netip.Addr{c1IP, netip.MustParseAddr("172.16.0.1")}},
	}}
}

// instancePort is the node's end of an instance's interface.
func instancePort(name string, index int) dataplane.Link {
	return dataplane.Link{Name: name, Index: index, Up: true, Carrier: true, Kind: "veth", Master: "br-blue"}
}

// hypervisorRig is a node of a segment whose hypervisor says something.
func hypervisorRig(t *testing.T) *rig {
	r := newRig(t)
	d := parse(t, guestDocument, "leaf1")
	r.loop.plan, r.loop.segments = d.plan, newSegments(d.plan)
	r.loop.segments.stations.SetReachable(r.reachable)
	r.loop.adopted = true
	r.setLinks(blueBridge)
	r.heard(bgp.Converged{})
	r.step()
	return r
}

func (r *rig) say(c guest.Contact, instances ...guest.Instance) {
	r.hypervisorChanged(guest.State{Contact: c, Socket: "/s", Trouble: "it hangs", Since: r.now, Instances: instances})
	r.step()
}

// stationsTold are the MACIP routes of the node, as text.
func (r *rig) stationsTold() []string {
	var all []string
	for _, route := range r.segments.stations.Originated() {
		if route.EVPN == nil {
			continue
		}
		if decoded, err := evpn.Decode(*route.EVPN); err == nil {
			if m, ok := decoded.(evpn.MACIP); ok {
				ip := "alone"
				if m.IP.IsValid() {
					ip = m.IP.String()
				}
				all = append(all, m.MAC.String()+" "+ip)
			}
		}
	}
	slices.Sort(all)
	return all
}

func (r *rig) wantTold(when string, want ...string) {
	r.t.Helper()
	if got := r.stationsTold(); !slices.Equal(got, want) {
		r.t.Errorf("%s: EVPN tells of %v, want %v", when, got, want)
	}
}

const (
	c1Alone = "00:16:3e:00:00:01 alone"
	c1Named = "00:16:3e:00:00:01 172.16.0.11" // and never the gateway's address
)

// TestGuestsBeforeTheirFirstFrame has an instance start and end, and be told of
// as soon and as long as it is plugged in.
func TestGuestsBeforeTheirFirstFrame(t *testing.T) {
	r := hypervisorRig(t)
	starting := dataplane.Link{Name: "veth1", Index: 20, Up: true, Kind: "veth", Master: "br-blue", Peer: "veth2"}
	inside := dataplane.Link{Name: "veth2", Index: 21, Kind: "veth", Peer: "veth1", MAC: c1MAC.String()}
	started := starting
	started.Peer, started.Carrier = "", true

	r.say(guest.Connected, instance(""))
	r.wantTold("not started")
	r.setLinks(blueBridge, starting, inside)
	r.wantTold("plugged in, and nothing more", c1Named, c1Alone)
	r.setLinks(blueBridge, started)
	r.say(guest.Connected, instance("veth1"))
	r.wantTold("started", c1Named, c1Alone)

	r.say(guest.Away, instance("veth1"))
	r.wantTold("the hypervisor hangs", c1Named, c1Alone)
	r.wantConditions("the hypervisor hangs", "failure no-ports leaf1", "warning hypervisor-away /s")
	r.hypervisorChanged(guest.State{Contact: guest.Connected, Socket: "/s", ClusterTrouble: "it hangs", Instances: []guest.Instance{instance("veth1")}})
	r.wantConditions("its cluster hangs", "failure no-ports leaf1", "warning hypervisor-cluster /s")
	r.say(guest.Connected)
	r.wantTold("the hypervisor knows nothing of it", c1Named, c1Alone)
	r.say(guest.Connected, instance("veth1"))

	again := started
	again.Index = 30
	r.overlayChanged(dataplane.LocalPortsGone{{VNI: 100, Port: "veth1"}})
	r.setLinks(blueBridge, again)
	r.wantTold("another port of that name", c1Named, c1Alone)
	r.setLinks(blueBridge)
	r.wantTold("stopped")
}

// TestGuestsKeepToTheGuard has an instance be given the address of another guest.
func TestGuestsKeepToTheGuard(t *testing.T) {
	r := hypervisorRig(t)
	other := dataplane.MAC{2, 0, 0, 0, 0, 9}
	r.overlayChanged(dataplane.LocalMACs{{VNI: 100, MAC: other, Port: "tap0"}})
	r.overlayChanged(dataplane.LocalAddresses{{VNI: 100, MAC: other, IP: c1IP, Port: "tap0"}})
	r.say(guest.Connected, instance("veth1"))
	r.setLinks(blueBridge, dataplane.Link{Name: "veth1", Index: 20, Up: true, Carrier: true, Kind: "veth", Master: "br-blue"})
	r.wantTold("one address, two guests", c1Alone, "02:00:00:00:00:09 172.16.0.11", "02:00:00:00:00:09 alone")
}

// TestGuestsAreHeld has a MAC that an instance's port had be heard on another
// one: that counts only where the guard is off.
func TestGuestsAreHeld(t *testing.T) {
	r := hypervisorRig(t)
	port := instancePort("veth1", 20)
	want := func(when, at string, held bool) {
		t.Helper()
		macs := r.segments.stations.MACs(100)
		if len(macs) != 1 || macs[0].Port != at || macs[0].Held != held {
			t.Errorf("%s: stations are %+v", when, macs)
		}
		place := []dataplane.GuestPlace{{Port: at, MAC: c1MAC}}
		if held != slices.Equal(r.guard.rules.Places, place) {
			t.Errorf("%s: places are %v", when, r.guard.rules.Places)
		}
	}
	heardOn := func(port string) {
		r.overlayChanged(dataplane.LocalMACs{{VNI: 100, MAC: c1MAC, Port: port}})
		r.now = r.now.Add(100 * time.Millisecond)
		r.step()
	}
	heardOn("veth9")
	want("before it is plugged in", "veth9", false)
	r.say(guest.Connected, instance("veth1"))
	r.setLinks(blueBridge, port)
	want("plugged in", "veth1", true)
	heardOn("veth9")
	want("heard on another port", "veth1", true)
	r.say(guest.Away)
	port.MTU = 1400
	r.setLinks(blueBridge, port)
	heardOn("veth9")
	want("the hypervisor knows nothing of it", "veth1", true)
	r.say(guest.Connected, instance("veth1"))
	r.overlayChanged(dataplane.LocalMACs{{VNI: 100, MAC: c1MAC, Port: "veth1", Aged: true}})
	r.step()
	want("silent", "veth1", true)
	r.adopt(parse(t, guestDocument+"guard: {guests: off}\n", "leaf1"), nil)
	r.step()
	heardOn("veth9")
	want("without a guard", "veth9", false)
	r.say(guest.Connected, instance("veth1"))
	want("told once", "veth9", false)
	r.adopt(parse(t, guestDocument, "leaf1"), nil)
	r.step()
	want("with a guard again", "veth1", true)
}

// TestGuestsPortsAreReplaced has an instance's port be made anew with its MAC,
// in each order that the kernel and the hypervisor can tell it in.
func TestGuestsPortsAreReplaced(t *testing.T) {
	former, inside := instancePort("veth1", 20), dataplane.Link{Name: "veth6", Index: 31, Kind: "veth", Peer: "veth5", MAC: c1MAC.String()}
	starting, started := instancePort("veth5", 30), instancePort("veth5", 30)
	starting.Peer = "veth6"
	formerGone := func(r *rig) { r.overlayChanged(dataplane.LocalPortsGone{{VNI: 100, Port: "veth1"}}); r.step() }
	for name, steps := range map[string][]func(*rig){
		"the former one is gone first": {
			formerGone, func(r *rig) { r.setLinks(blueBridge) }, func(r *rig) { r.setLinks(blueBridge, starting, inside) },
			func(r *rig) { r.setLinks(blueBridge, started) }, func(r *rig) { r.say(guest.Connected, instance("veth5")) },
		},
		"both are there for a while": {
			func(r *rig) { r.setLinks(blueBridge, former, starting, inside) }, func(r *rig) { r.setLinks(blueBridge, former, started) },
			func(r *rig) { r.say(guest.Connected, instance("veth5")) }, func(r *rig) { r.setLinks(blueBridge, started) }, formerGone,
		},
		"all at once": {func(r *rig) { r.setLinks(blueBridge, starting, inside) }, formerGone, func(r *rig) { r.setLinks(blueBridge, started) }},
		"the hypervisor tells it first": {
			func(r *rig) { r.say(guest.Connected, instance("veth5")) }, func(r *rig) { r.setLinks(blueBridge, former, started) },
			formerGone, func(r *rig) { r.setLinks(blueBridge, started) },
		},
		"the hypervisor ends meanwhile": {
			func(r *rig) { r.setLinks(blueBridge, starting, inside) }, func(r *rig) { r.say(guest.Away) }, func(r *rig) { r.setLinks(blueBridge, started) },
		},
	} {
		r := hypervisorRig(t)
		r.say(guest.Connected, instance("veth1"))
		r.setLinks(blueBridge, former)
		for range 2 * 6 { // more than what is taken for a duplicate
			for _, step := range steps {
				step(r)
			}
			if macs := r.segments.stations.MACs(100); len(macs) != 1 || macs[0].Port != "veth5" || !macs[0].Held || !macs[0].Frozen.IsZero() {
				t.Fatalf("%s: stations are %+v", name, macs)
			}
			r.wantTold(name, c1Named, c1Alone)
			r.say(guest.Connected, instance("veth1"))
			r.setLinks(blueBridge, former)
			r.overlayChanged(dataplane.LocalPortsGone{{VNI: 100, Port: "veth5"}})
			former.Index += 100 // it is another one each time
			r.setLinks(blueBridge, former)
		}
	}
}

// TestGuestsPortsOfOneInstance has the agent begin while the former port of an
// instance is there yet.
func TestGuestsPortsOfOneInstance(t *testing.T) {
	for _, name := range []string{"veth0", "veth5"} {
		r := hypervisorRig(t)
		newest, inside := instancePort(name, 30), dataplane.Link{Name: "veth6", Index: 31, Kind: "veth", Peer: name, MAC: c1MAC.String()}
		newest.Peer = "veth6"
		r.setLinks(blueBridge, instancePort("veth1", 20), newest, inside)
		r.say(guest.Connected, instance("veth1"))
		if macs := r.segments.stations.MACs(100); len(macs) != 1 || macs[0].Port != name {
			t.Errorf("stations are %+v", macs)
		}
	}
}

// TestGuestsWithOneMAC has two instances with the same MAC: it is whose it was first.
func TestGuestsWithOneMAC(t *testing.T) {
	r := hypervisorRig(t)
	other := instance("veth2")
	other.Name = "c2"
	first, second := instancePort("veth1", 30), instancePort("veth2", 20)
	wantAt := func(when, at string) {
		t.Helper()
		if macs := r.segments.stations.MACs(100); len(macs) != 1 || macs[0].Port != at {
			t.Errorf("%s: stations are %+v", when, macs)
		}
	}
	r.say(guest.Connected, instance("veth1"))
	r.setLinks(blueBridge, first)
	r.say(guest.Connected, instance("veth1"), other)
	r.setLinks(blueBridge, first, second)
	wantAt("both", "veth1")
	r.overlayChanged(dataplane.LocalPortsGone{{VNI: 100, Port: "veth1"}})
	r.setLinks(blueBridge, second)
	wantAt("the first has ended", "veth2")
}

// TestGuestsKeepWhatTheyAreGiven has instances be silent: an address by their
// configuration stays theirs, one that they have said to be theirs does not.
func TestGuestsKeepWhatTheyAreGiven(t *testing.T) {
	said, other := netip.MustParseAddr("172.16.0.12"), dataplane.MAC{2, 0, 0, 0, 0, 9}
	for _, strict := range []string{"", "guard: {strict: on}\n"} {
		r := hypervisorRig(t)
		r.adopt(parse(t, guestDocument+strict, "leaf1"), nil)
		r.say(guest.Connected, instance("veth1"))
		r.setLinks(blueBridge, instancePort("veth1", 20))
		r.overlayChanged(dataplane.LocalAddresses{{VNI: 100, MAC: c1MAC, IP: said, Port: "veth1"}})
		r.overlayChanged(dataplane.LocalMACs{{VNI: 100, MAC: c1MAC, Port: "veth1", Aged: true}})
		r.now = r.now.Add(time.Minute)
		r.step()
		if want := []dataplane.GuestAddress{{MAC: c1MAC, IP: c1IP}}; !slices.Equal(r.guard.rules.Holders, want) || r.guard.rules.Strict != (strict != "") {
			t.Errorf("%q: the guard has %v", strict, r.guard.rules.Holders)
		}
		r.overlayChanged(dataplane.LocalMACs{{VNI: 100, MAC: other, Port: "tap0"}})
		for _, ip := range []netip.Addr{c1IP, said} {
			r.overlayChanged(dataplane.LocalAddresses{{VNI: 100, MAC: other, IP: ip, Port: "tap0"}})
			r.leased([]dataplane.LocalAddress{{VNI: 100, MAC: other, IP: ip, Port: "tap0"}})
		}
		if holder, _ := r.segments.stations.Holder(100, c1IP); holder.MAC != c1MAC {
			t.Errorf("%q: what is given to c1 is held by %s", strict, holder.MAC)
		}
		if holder, _ := r.segments.stations.Holder(100, said); holder.MAC != other {
			t.Errorf("%q: what c1 has said to be its own is held by %s", strict, holder.MAC)
		}
	}
}

func TestInstancesHaveNames(t *testing.T) {
	r := hypervisorRig(t)
	r.setLinks(blueBridge, dataplane.Link{Name: "veth1", Index: 20, Up: true, Carrier: true, Kind: "veth", Master: "br-blue"})
	r.say(guest.Connected, instance("veth1"))
	macs := r.segments.stations.MACs(100)
	if len(macs) != 1 || r.describeMAC("blue", macs[0]).Name != "c1" {
		t.Errorf("MACs are %+v", macs)
	}
	h := r.describeHypervisor()
	if len(h.Instances) != 1 || len(h.Instances[0].NICs) != 1 {
		t.Fatalf("the hypervisor is %+v", h)
	}
	nic := h.Instances[0].NICs[0]
	if nic.Port != "veth1" || nic.Segment != "blue" || !slices.Equal(nic.IPs, []string{"172.16.0.11"}) {
		t.Errorf("the interface is %+v", nic)
	}
}

func TestDesiredHypervisor(t *testing.T) {
	usual := []string{"/var/lib/lxd/unix.socket"}
	for text, want := range map[string]guest.Desired{
		"":                     {Sockets: usual},
		"guests: {lxd: auto}":  {Sockets: usual},
		"guests: {lxd: off}":   {},
		"guests: {lxd: /my/s}": {Sockets: []string{"/my/s"}, Expected: true},
	} {
		d := parse(t, testDocument+text+"\n", "leaf1")
		if diff := cmp.Diff(want, desiredHypervisor(d.plan.Hypervisor, usual)); diff != "" {
			t.Errorf("%q: %s", text, diff)
		}
	}
}
