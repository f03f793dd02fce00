package node

import (
	"net/netip"
	"slices"
	"testing"

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

// TestGuestsAreToldOnce has a MAC that an instance's port had be heard on
// another one: that counts, as for every guest.
func TestGuestsAreToldOnce(t *testing.T) {
	r := hypervisorRig(t)
	port := dataplane.Link{Name: "veth1", Index: 20, Up: true, Carrier: true, Kind: "veth", Master: "br-blue"}
	r.say(guest.Connected, instance("veth1"))
	r.setLinks(blueBridge, port)
	r.overlayChanged(dataplane.LocalMACs{{VNI: 100, MAC: c1MAC, Port: "veth9"}})
	r.step()
	r.say(guest.Connected, instance("veth1"))
	port.MTU = 1400
	r.setLinks(blueBridge, port)
	if macs := r.segments.stations.MACs(100); len(macs) != 1 || macs[0].Port != "veth9" {
		t.Errorf("stations are %+v", macs)
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
