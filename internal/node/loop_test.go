package node

import (
	"context"
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"frond/internal/bgp"
	"frond/internal/dataplane"
	"frond/internal/plan"
	"frond/internal/ra"
)

const (
	spine1 = "fe80::1%eth0"
	spine2 = "fe80::2%eth0"
	spine3 = "fe80::3%eth1"
)

func TestNothingIsToldBeforeTheKernelIsKnown(t *testing.T) {
	r := newRig(t)
	r.setLinks(link("eth0", 1))
	if r.bgp.sets+r.bfd.sets+r.plane.sets > 0 {
		t.Error("parts were told though nobody knows what a run before left in the kernel")
	}
	r.loop.adopted = true
	r.step()
	if r.bgp.sets != 1 || r.bfd.sets != 1 || r.plane.sets != 1 {
		t.Errorf("BGP, BFD, data plane were told %d, %d, %d times, want once each", r.bgp.sets, r.bfd.sets, r.plane.sets)
	}
}

func TestPortToSession(t *testing.T) {
	r := began(t, dataplane.Link{Name: "eth0", Index: 1}, dataplane.Link{Name: "wlan0", Index: 2, Up: true, Carrier: true})
	if !r.plane.complete {
		t.Error("without a run before, what is not desired stays in the kernel for ever")
	}
	if want := []dataplane.Port{{Name: "eth0"}}; !slices.Equal(r.plane.desired.Ports, want) {
		t.Errorf("ports %v, want %v", r.plane.desired.Ports, want)
	}
	r.wantPeer("link is down", "eth0", "down", "the port is not up yet")
	r.setLinks(dataplane.Link{Name: "eth0", Index: 1, Up: true})
	r.wantPeer("no carrier", "eth0", "down", "no carrier")
	r.setLinks(dataplane.Link{Name: "eth0", Index: 1, Up: true, Carrier: true})
	r.wantPeer("no address", "eth0", "down", "the port has no IPv6 link-local address yet")
	if len(r.ra.ports) > 0 {
		t.Errorf("discovery on %v, which cannot send yet", r.ra.ports)
	}
	r.setLinks(link("eth0", 1))
	r.wantPeer("carrier", "eth0", "down", "nobody answers on this cable")
	if len(r.ra.ports) != 1 || r.ra.ports[0].Addr != link("eth0", 1).LinkLocal {
		t.Errorf("discovery on %v, want eth0 with its own address", r.ra.ports)
	}
	r.hear("eth0", "fe80::1")
	r.wantPeers("heard", spine1)
	r.wantLive("heard", spine1)
	r.wantPeer("heard", "eth0", "down", "the session is about to begin")
	r.session(spine1, bgp.Established)
	r.wantPeer("established", "eth0", "established", "")
	r.paths("10.0.200.2/32", spine1)
	r.heard(bgp.PathsChanged{EVPN: []bgp.EVPNPath{{Key: "gone", Gone: true}}})
	if r.bgp.applied != 1 {
		t.Errorf("BGP was told %d times that a route is in force, want once", r.bgp.applied)
	}
	if got := r.plane.routes[r.prefix("10.0.200.2/32")]; len(got.NextHops) != 1 || got.Source != r.plan.Node.Loopback {
		t.Errorf("route is %+v, want one next hop and the loopback as source", got)
	}
	r.setLinks()
	r.wantPeers("port is gone")
	r.wantLive("port is gone")
}

// TestBGPBeforeTheGuard has other nodes hear of a guest before the guard's rules
// are made, which takes time.
func TestBGPBeforeTheGuard(t *testing.T) {
	r := began(t, link("eth0", 1))
	r.adopt(parse(t, leasingDocument, "leaf1"), nil)
	r.step()
	r.order, r.guarded.next = nil, time.Time{}
	r.overlayChanged(dataplane.LocalMACs{{VNI: 7, MAC: dataplane.MAC{2, 0, 0, 0, 0, 9}, Port: "tap1"}})
	r.leased([]dataplane.LocalAddress{{VNI: 7, MAC: dataplane.MAC{2, 0, 0, 0, 0, 9}, IP: netip.MustParseAddr("172.16.0.12"), Port: "tap1"}})
	r.told.next = time.Time{}
	r.step()
	if want := []string{"bgp", "guard"}; !slices.Equal(r.order, want) {
		t.Errorf("told in the order %v, want %v", r.order, want)
	}
}

func TestCarrierLoss(t *testing.T) {
	r := began(t, link("eth0", 1), link("eth1", 2))
	r.hear("eth0", "fe80::1")
	r.hear("eth1", "fe80::3")
	r.session(spine1, bgp.Established)
	r.session(spine3, bgp.Established)
	r.paths("10.0.200.2/32", spine1, spine3)
	r.wantFailed("all is well")
	r.order = nil

	r.setLinks(noCarrierOn(link("eth0", 1)), link("eth1", 2))
	r.wantFailed("carrier lost", spine1)
	r.wantPeers("carrier lost", spine3)
	r.wantLive("carrier lost", spine3)
	if want := []string{"bgp", "failed"}; !slices.Equal(r.order[:min(2, len(r.order))], want) {
		t.Errorf("told in the order %v, want %v: others send packets here that are lost", r.order, want)
	}
	if len(r.ra.ports) != 1 {
		t.Errorf("discovery goes on at %v, so a new cable would not be discovered anew", r.ra.ports)
	}
	r.wantConditions("carrier lost", "failure port-no-carrier eth0")

	r.paths("10.0.200.2/32", spine3)
	r.gone(spine1)
	r.wantFailed("nothing uses the leg")

	r.setLinks(link("eth0", 1), link("eth1", 2))
	r.wantPeers("carrier is back, nobody heard yet", spine3)
	r.hear("eth0", "fe80::1")
	r.wantPeers("heard again", spine1, spine3)
}

func TestBFDLoss(t *testing.T) {
	r := began(t, link("eth0", 1))
	r.hear("eth0", "fe80::1")
	r.session(spine1, bgp.Established)
	r.paths("10.0.200.2/32", spine1)

	r.live(spine1, "down", false)
	r.wantPeers("BFD that never was up", spine1)
	r.live(spine1, "up", true)
	r.live(spine1, "admin-down", true)
	r.wantFailed("BFD switched off over there")
	r.wantPeers("BFD switched off over there", spine1)
	r.live(spine1, "up", true)

	r.live(spine1, "down", true)
	r.wantFailed("lost", spine1)
	r.wantPeers("lost")
	r.wantLive("lost", spine1)
	r.wantPeer("lost", "eth0", "down", "BFD down: detection time expired")
	if name := r.peerOn("eth0", r.now).Name; name != "spine1" {
		t.Errorf("the name of the lost peer is %q, want spine1", name)
	}
	if got, want := r.nextDue(), r.now.Add(holdDown); got != want {
		t.Errorf("next look at %v, want %v: the session is to be tried again then", got, want)
	}
	r.paths("10.0.200.2/32")
	r.heard(bgp.PeerChanged{Peer: r.peers[r.addr(spine1)], Gone: true})

	r.now = r.now.Add(holdDown)
	r.step()
	r.wantPeers("hold-down is over", spine1)
	if due := r.nextDue(); !due.IsZero() {
		t.Errorf("next look at %v though nothing is due", due)
	}
	r.wantPeer("hold-down is over", "eth0", "down", "BFD down: detection time expired")
	if flaps := r.peerOn("eth0", r.now).Flaps; flaps != 1 {
		t.Errorf("%d flaps, want 1", flaps)
	}
	r.session(spine1, bgp.Established)
	r.paths("10.0.200.2/32", spine1)
	r.wantFailed("BGP proves the path")
	if p := r.peerOn("eth0", r.now); p.State != "established" || p.BFD != "unanswered" {
		t.Errorf("%s, BFD %s; want established, BFD unanswered", p.State, p.BFD)
	}
	r.live(spine1, "init", true)
	r.wantFailed("BFD begins again")
	r.live(spine1, "up", true)
	r.live(spine1, "down", true)
	r.wantFailed("lost a second time", spine1)
	r.live(spine1, "up", true)
	r.wantPeers("up within hold-down", spine1)
	r.wantFailed("up within hold-down")
}

func TestBFDOff(t *testing.T) {
	r := began(t, link("eth0", 1))
	r.plan.BFD.Enabled = false
	r.hear("eth0", "fe80::1")
	r.wantPeers("heard", spine1)
	r.wantLive("heard")
	if got := r.peerOn("eth0", r.now).BFD; got != "off" {
		t.Errorf("BFD is %q, want off", got)
	}
}

func TestChoose(t *testing.T) {
	tests := []struct {
		name     string
		now      string
		heard    []string
		works    string
		expected string
		want     string
	}{
		{name: "nobody"},
		{name: "one", heard: []string{"fe80::1"}, want: "fe80::1"},
		{name: "stays", now: "fe80::1", heard: []string{"fe80::1"}, want: "fe80::1"},
		{name: "silent", now: "fe80::1"},
		{name: "silent but works", now: "fe80::1", works: "fe80::1", want: "fe80::1"},
		{name: "two, one works", now: "fe80::1", heard: []string{"fe80::1", "fe80::2"}, works: "fe80::1", want: "fe80::1"},
		{name: "two, the newer works", now: "fe80::2", heard: []string{"fe80::1", "fe80::2"}, works: "fe80::2", want: "fe80::2"},
		{name: "re-cabled", now: "fe80::1", heard: []string{"fe80::1", "fe80::2"}, want: "fe80::2"},
		{name: "re-cabled, the old one is forgotten", now: "fe80::1", heard: []string{"fe80::2"}, want: "fe80::2"},
		{name: "silent but works, another one heard", now: "fe80::1", heard: []string{"fe80::2"}, works: "fe80::1", want: "fe80::1"},
		{name: "of the run before", expected: "fe80::1", want: "fe80::1"},
		{name: "of the run before, another one heard", now: "fe80::1", heard: []string{"fe80::2"}, expected: "fe80::1", want: "fe80::2"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			works := func(a netip.Addr) bool { return a == addr(test.works) }
			got := choose(addr(test.now), addrs(test.heard), works, addr(test.expected))
			if got != addr(test.want) {
				t.Errorf("choose = %v, want %v", got, test.want)
			}
		})
	}
}

func TestTwoNeighbours(t *testing.T) {
	r := began(t, link("eth0", 1))
	r.hear("eth0", "fe80::1")
	r.session(spine1, bgp.Established)
	r.hear("eth0", "fe80::1", "fe80::2")
	r.wantPeers("the first works", spine1)
	r.wantConditions("the first works", "failure two-neighbours eth0")
	r.session(spine1, bgp.Connect)
	r.wantPeers("the first is lost", spine2)
	r.wantFailed("no route used it")
}

func TestRecabledUnderRoutes(t *testing.T) {
	r := began(t, link("eth0", 1))
	r.hear("eth0", "fe80::1")
	r.session(spine1, bgp.Established)
	r.paths("10.0.200.2/32", spine1)
	r.session(spine1, bgp.Connect)
	r.hear("eth0", "fe80::2")
	r.wantPeers("another one is there", spine2)
	r.wantFailed("another one is there", spine1)
}

func TestPortReplacedUnderItsName(t *testing.T) {
	r := began(t, link("eth0", 1))
	r.hear("eth0", "fe80::1")
	r.session(spine1, bgp.Established)
	r.setLinks(link("eth0", 9))
	r.wantPeers("another interface of that name")
	if len(r.ra.ports) != 1 || r.ra.ports[0].Index != 9 {
		t.Errorf("discovery on %v, want the new interface", r.ra.ports)
	}
}

func TestPeerRestarts(t *testing.T) {
	r := began(t, link("eth0", 1))
	r.hear("eth0", "fe80::1")
	r.session(spine1, bgp.Established)
	r.paths("10.0.200.2/32", spine1)
	r.heard(bgp.PeerChanged{Peer: bgp.PeerStatus{Addr: r.addr(spine1), State: bgp.Connect, Restarting: true, Reason: "the peer closed the connection"}})
	r.hear("eth0")
	r.wantPeers("silent while it restarts", spine1)
	r.wantFailed("silent while it restarts")
	r.wantConditions("silent while it restarts", "warning session-down eth0")
}

func TestCableLoops(t *testing.T) {
	r := began(t, link("eth0", 1), link("eth1", 2))
	r.hear("eth0", link("eth1", 2).LinkLocal.String())
	r.hear("eth1", link("eth0", 1).LinkLocal.String())
	r.wantPeers("looped")
	r.wantPeer("looped", "eth0", "down", "the cable loops back to port eth1 of this node")
	r.wantConditions("looped", "failure cable-loops eth0", "failure cable-loops eth1")
}

func TestCableReflects(t *testing.T) {
	r := began(t, link("eth0", 1))
	r.neighborsChanged(ra.Neighbors{Port: "eth0", Looped: true})
	r.step()
	r.wantPeers("reflected")
	r.wantPeer("reflected", "eth0", "down", "the cable loops back to port eth0 of this node")
	r.setLinks(noCarrierOn(link("eth0", 1)))
	r.setLinks(link("eth0", 1))
	r.wantPeer("another cable", "eth0", "down", "nobody answers on this cable")
}

func TestRestart(t *testing.T) {
	r := newRig(t)
	r.plane.before = []dataplane.NextHop{r.leg(spine1), r.leg(spine3), r.leg("fe80::4%eth2"), r.leg("fe80::5%gone")}
	r.loop.adopted = true
	r.setLinks(link("eth0", 1), link("eth1", 2), noCarrierOn(link("eth2", 3)))

	want := bgp.GracefulRestart{Restarting: true, Expect: addrs([]string{spine1, spine3}), Deferral: deferral, Time: r.bgp.desired.Restart.Time}
	if got := r.bgp.desired.Restart; !slices.Equal(got.Expect, want.Expect) || got.Restarting != want.Restarting || got.Deferral != want.Deferral {
		t.Errorf("Restart is %+v, want %+v", got, want)
	}
	r.wantPeers("before discovery", spine1, spine3)
	r.wantLive("before discovery", spine1, spine3)
	r.wantFailed("no carrier any more", "fe80::4%eth2", "fe80::5%gone")
	if r.plane.complete || r.snapshot(r.now).Ready {
		t.Error("complete before the peers have told what they have")
	}

	r.hear("eth0", "fe80::1")
	r.live(spine3, "down", true)
	r.wantFailed("a peer died meanwhile", spine3, "fe80::4%eth2", "fe80::5%gone")

	r.heard(bgp.Converged{})
	r.step()
	if !r.plane.complete || !r.snapshot(r.now).Ready {
		t.Error("not complete though all has converged")
	}
	if r.bgp.desired.Restart.Restarting {
		t.Error("the restart never ends")
	}
	r.wantPeers("converged", spine1)
	r.wantLive("converged", spine1)
	r.wantFailed("converged")
}

func TestRestartWithoutCarrierIsNone(t *testing.T) {
	r := newRig(t)
	r.plane.before = []dataplane.NextHop{r.leg(spine1)}
	r.loop.adopted = true
	r.setLinks(noCarrierOn(link("eth0", 1)))
	if r.bgp.desired.Restart.Restarting {
		t.Error("waits for a peer behind a port without carrier")
	}
}

func TestAdopt(t *testing.T) {
	r := began(t, link("eth0", 1))
	r.hear("eth0", "fe80::1")
	r.session(spine1, bgp.Established)
	r.paths("10.0.200.2/32", spine1)
	sets, updates, before := r.bfd.sets+r.plane.sets, r.plane.updates, r.bgp.desired

	r.adopt(parse(t, testDocument+"  leaf3: {loopback: 10.0.200.3}\n", "leaf1"), nil)
	r.step()
	if got := r.bfd.sets + r.plane.sets; got != sets || r.plane.updates != updates {
		t.Errorf("a new line for another node touched this one: %d sets, %d routes", got-sets, r.plane.updates-updates)
	}
	after := r.bgp.desired
	if after.Filter == before.Filter {
		t.Error("what the new node announces is still refused")
	}
	if after.Filter = before.Filter; !reflect.DeepEqual(after, before) {
		t.Errorf("a new line for another node changed more than the filter: %+v", after)
	}
	sets = r.bgp.sets
	r.adopt(parse(t, testDocument+"  leaf3: {loopback: 10.0.200.3}\n", "leaf1"), nil)
	r.step()
	if r.bgp.sets != sets {
		t.Error("the same document again gave BGP another filter")
	}

	r.adopt(document{}, errors.New("fabric.yaml:1:1: no"))
	r.step()
	r.wantPeers("refused document", spine1)
	r.wantConditions("refused document", "failure document-refused fabric.yaml")

	r.adopt(parse(t, testDocument, "leaf2"), nil)
	r.step()
	if r.bgp.desired.RouterID != r.plan.Node.Loopback || r.plane.routes[r.prefix("10.0.200.2/32")].Source != addr("10.0.200.2") {
		t.Error("a new loopback reached neither BGP nor the routes")
	}
	if len(r.plane.routes[r.prefix("10.0.200.2/32")].NextHops) > 0 {
		t.Error("the node's own new address is still routed to a peer")
	}
	r.wantConditions("repaired document")
}

func TestLeaving(t *testing.T) {
	for _, test := range []struct {
		name  string
		peers bool
		drain time.Duration
	}{{"nobody to wait for", false, 0}, {"a peer", true, drainTime}} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := began(t, link("eth0", 1))
				if test.peers {
					r.hear("eth0", "fe80::1")
					r.session(spine1, bgp.Established)
				}
				ctx, stop := context.WithCancel(t.Context())
				stop()
				start := time.Now()
				withdraw, err := r.run(ctx, t.Context(), true, nil, nil)
				if !withdraw || err != nil {
					t.Errorf("run = %v, %v; want true and no error", withdraw, err)
				}
				if took := time.Since(start); took != test.drain {
					t.Errorf("drained for %v, want %v", took, test.drain)
				}
				if !r.bgp.desired.Shutdown || !r.bgp.desired.Leave {
					t.Error("peers are not told to move traffic away and forget this node")
				}
			})
		})
	}
}

func TestRunEnds(t *testing.T) {
	ended, end := context.WithCancel(context.Background())
	end()
	closed := make(chan dataplane.Event)
	close(closed)
	tests := []struct {
		name      string
		ctx, work context.Context
		links     chan dataplane.Event
		wantError bool
	}{
		{"told to stop", ended, context.Background(), nil, false},
		{"a part failed", context.Background(), ended, nil, false},
		{"the kernel is silent", context.Background(), context.Background(), closed, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := began(t, link("eth0", 1))
			withdraw, err := r.run(test.ctx, test.work, false, test.links, nil)
			if withdraw || (err != nil) != test.wantError {
				t.Errorf("run = %v, %v; want false, and an error: %v", withdraw, err, test.wantError)
			}
			if r.bgp.desired.Leave {
				t.Error("peers are told to forget this node, though its routes stay for a restart")
			}
		})
	}
}

// TestRestartTellsOfGuests has BGP begin only when it can tell of the guests
// here, or after a second: peers forget what they are not told again.
func TestRestartTellsOfGuests(t *testing.T) {
	for _, read := range []bool{true, false} {
		r := newRig(t)
		d := parse(t, electedDocument, "leaf1")
		r.loop.plan = d.plan
		r.plane.before = []dataplane.NextHop{plan.Leg(netip.MustParseAddr("fe80::1%eth1"))}
		r.loop.adopted = true
		r.setLinks(link("eth1", 1))
		if r.bgp.sets > 0 {
			t.Fatal("BGP has begun before the kernel has told of guests")
		}
		if read {
			r.overlayChanged(dataplane.LocalRead{})
		} else {
			if due := r.nextDue(); !due.Equal(r.now.Add(readTime)) {
				t.Errorf("looks again at %v", due)
			}
			r.now = r.now.Add(readTime)
		}
		r.step()
		if r.bgp.sets != 1 {
			t.Errorf("read %t: BGP was told %d times", read, r.bgp.sets)
		}
	}
}
