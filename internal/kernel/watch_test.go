package kernel_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"frond/internal/dataplane"
)

// listener is a test that hears what Watch tells.
type listener struct {
	*space
	events <-chan dataplane.Event
	links  map[string]dataplane.Link // as last told
}

// listen begins to watch and takes the first event: all links.
func (s *space) listen() *listener {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	events, err := s.kernel.Watch(ctx)
	if err != nil {
		cancel()
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		cancel()
		for range events { // until it is closed
		}
	})
	l := &listener{space: s, events: events}
	if _, ok := l.next().(dataplane.LinksChanged); !ok {
		s.t.Fatal("the first event is not about links")
	}
	return l
}

func (l *listener) next() dataplane.Event {
	l.t.Helper()
	select {
	case event, ok := <-l.events:
		if !ok {
			l.t.Fatal("the channel is closed")
		}
		if links, ok := event.(dataplane.LinksChanged); ok {
			l.links = links.Links
		}
		return event
	case <-time.After(10 * time.Second):
		l.t.Fatal("no event")
		return nil
	}
}

// until takes events until one is as wanted, and returns those before it too.
func (l *listener) until(wanted func(dataplane.Event) bool) []dataplane.Event {
	l.t.Helper()
	var events []dataplane.Event
	for {
		event := l.next()
		events = append(events, event)
		if wanted(event) {
			return events
		}
	}
}

func drifted(event dataplane.Event) bool {
	_, ok := event.(dataplane.Drifted)
	return ok
}

func (l *listener) wentDown(name string) func(dataplane.Event) bool {
	return func(event dataplane.Event) bool {
		links, ok := event.(dataplane.LinksChanged)
		return ok && slices.Contains(links.Down, name)
	}
}

func (l *listener) isReady(name string) func(dataplane.Event) bool {
	return func(dataplane.Event) bool {
		link := l.links[name]
		return link.Up && link.Carrier && link.LinkLocal.IsValid()
	}
}

func TestWatchLinks(t *testing.T) {
	t.Parallel()
	s := newSpace(t, "up1")
	l := s.listen()
	if link := l.links["up1"]; link.Up || link.Kind != "veth" || link.MTU != 1500 || link.MAC == "" || link.Index == 0 {
		t.Errorf("the first event says of up1: %+v", link)
	}
	s.ip("link set up1 up")
	l.until(l.isReady("up1"))
	if dumped := s.dump().Links["up1"]; dumped != l.links["up1"] {
		t.Errorf("Watch says %+v, Dump says %+v", l.links["up1"], dumped)
	}
	s.ipPeer("link set up1 down")
	l.until(l.wentDown("up1"))
	s.ipPeer("link set up1 up")
	l.until(l.isReady("up1"))

	// Nobody listens during a whole flap: it is told all the same.
	for range 3 {
		s.ip("link set up1 down")
		s.ip("link set up1 up")
	}
	l.until(l.wentDown("up1"))
	l.until(l.isReady("up1"))

	s.ip("link set up1 down")
	s.ip("link set up1 name new1")
	l.until(func(dataplane.Event) bool {
		_, old := l.links["up1"]
		_, renamed := l.links["new1"]
		return !old && renamed
	})
	s.ip("link del new1")
	l.until(func(dataplane.Event) bool { _, there := l.links["new1"]; return !there })
}

// TestWatchPeers names the other end of a veth for as long as it is on this side.
func TestWatchPeers(t *testing.T) {
	t.Parallel()
	s := newSpace(t, "up1")
	l := s.listen()
	s.ip("link add port type veth peer name inside")
	l.until(func(dataplane.Event) bool { return l.links["port"].Peer == "inside" && l.links["inside"].Index > 0 })
	index := l.links["inside"].Index
	s.ip("link set inside netns %s", s.peer)
	l.until(func(dataplane.Event) bool { return l.links["port"].Peer == "" })
	s.ip("link add stranger index %d type bridge", index) // an index tells nothing of another namespace
	s.ip("link set port up")
	l.until(func(dataplane.Event) bool { return l.links["port"].Up && l.links["stranger"].Index == index })
	if peer := l.links["port"].Peer; peer != "" {
		t.Errorf("the other end of port is elsewhere, and not %s", peer)
	}
}

// What frond does itself is no news, nor is what others do with their own.
func TestWatchDrift(t *testing.T) {
	t.Parallel()
	s := newSpace(t, "up1")
	s.ip("link set lo up")
	s.ip("link set up1 up")
	l := s.listen()
	l.until(func(e dataplane.Event) bool { return l.isReady("up1")(e) })

	id := dataplane.FirstID
	ours := []dataplane.Op{
		dataplane.AddAddress{Prefix: self4},
		dataplane.SetNextHop{ID: id, NextHop: leg("up1")},
		dataplane.SetGroup{ID: id + 1, Members: []uint32{id}},
		dataplane.SetRoute{Prefix: remote4, NextHopID: id + 1},
		dataplane.SetRoute{Prefix: remote6, NextHopID: id + 1},
	}
	apply := func(ops ...dataplane.Op) {
		t.Helper()
		for _, failed := range s.kernel.Apply(context.Background(), ops) {
			t.Fatal(failed)
		}
	}
	// A link that is made last shows that everything before was heard.
	quiet := func(what, marker string) {
		t.Helper()
		s.ip("link add %s type veth peer name %s-peer", marker, marker)
		for _, event := range l.until(func(dataplane.Event) bool { _, ok := l.links[marker]; return ok }) {
			if drifted(event) {
				t.Errorf("%s is told as drift", what)
			}
		}
	}
	apply(ours...)
	quiet("what frond has added", "m1")
	s.ip("route add 198.51.100.0/24 via inet6 fe80::1 dev up1 proto bgp")
	s.ip("-6 route add 2001:db8::/32 via fe80::1 dev up1 proto bgp")
	s.ip("nexthop add id 7 via fe80::1 dev up1")
	s.ip("nexthop del id 7")
	quiet("what is somebody else's", "m2")

	s.ip("route del 10.0.0.2/32 proto 102")
	l.until(drifted)
	s.ip("-6 route del fd00::2 proto 102")
	l.until(drifted)
	s.ip("nexthop del id %d", id)
	l.until(drifted)
	// What the kernel has removed along with it is told one by one.
	s.ip("link add settled type veth peer name settled-peer")
	l.until(func(dataplane.Event) bool { _, ok := l.links["settled"]; return ok })
	apply(ours[1:]...)
	quiet("what frond has added again", "m3")
	s.ip("addr del 10.0.0.1/32 dev lo")
	l.until(drifted)
}

// Whoever does not listen for long still hears the truth in the end, and not
// each step to it. What the kernel has told may be taken in in a few pieces
// where the machine is busy.
func TestWatchIsBounded(t *testing.T) {
	t.Parallel()
	s := newSpace(t, "up1")
	l := s.listen()
	const changes = 40
	for range changes / 2 {
		s.ip("link set up1 mtu 1400")
		s.ip("link set up1 mtu 1300")
	}
	events := l.until(func(dataplane.Event) bool { return l.links["up1"].MTU == 1300 })
	if len(events) > changes/4 {
		t.Errorf("%d events of %d changes for someone who did not listen, want them merged", len(events), changes)
	}
}
