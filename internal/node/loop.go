package node

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"frond/internal/bfd"
	"frond/internal/bgp"
	"frond/internal/dataplane"
	"frond/internal/dns"
	"frond/internal/plan"
	"frond/internal/ra"
	"frond/internal/status"
)

// parts are what the loop hears and tells.
type parts struct {
	plane      dataPlane
	discovery  discovery
	liveness   liveness
	speaker    speaker
	overlay    overlay
	watch      guestWatch
	store      storeService
	elected    electedGateways
	quorum     quorumGateways
	held       heldGateways
	lease      interface{ SetAlone(bool) } // where leases are; what is used of addressStore
	advertiser advertiser
	addresses  guestAddresses
	requests   requestKeeper
	network    networkAPI
	way        uplinkWatch
	nat        sourceNAT
	guard      guardKeeper
	nameServer nameServer
	hypervisor hypervisor
}

// dataPlane is what is used of dataplane.Reconciler.
type dataPlane interface {
	Adopted() <-chan struct{}
	AdoptedNextHops() []dataplane.NextHop
	Observe(dataplane.Event)
	Set(dataplane.Desired)
	SetFailed([]dataplane.NextHop)
	UpdateRoutes([]dataplane.RouteUpdate)
	Then(func())
	Complete()
	Report() dataplane.Report
	Installed(netip.Prefix) ([]dataplane.NextHop, bool)
	Withdraw(context.Context) error
}

// discovery is what is used of ra.Discovery.
type discovery interface {
	SetPorts([]ra.Port)
	Events() <-chan ra.Neighbors
}

// liveness is what is used of bfd.Client.
type liveness interface {
	Set([]bfd.Session)
	Events() <-chan bfd.State
	Stop(context.Context) error
}

// speaker is what is used of bgp.Speaker.
type speaker interface {
	Set(bgp.Desired) error
	Events() <-chan bgp.Event
	Applied()
}

// loop owns all that is known of the node. Only the goroutine of run touches it.
type loop struct {
	parts
	log      *slog.Logger
	pki      string // directory of certificates
	plan     *plan.Plan
	document status.Document
	board    status.Board

	links     map[string]dataplane.Link // nil before the kernel has told
	ports     map[string]*port
	portNames []string            // sorted
	legs      []dataplane.NextHop // to the neighbours on all ports, in that order
	unsettled unsettled
	// What follows from ports and legs is made when these change, and compared
	// with what was told by identity mostly.
	planned     planned
	discovering []ra.Port
	watched     []bfd.Session
	meant       peersOfNeighbors

	own        map[netip.Addr]string        // which port has a link-local address
	cable      map[dataplane.NextHop]*cable // what BFD says, by leg
	peers      map[netip.Addr]bgp.PeerStatus
	table      *table
	segments   segments
	gateways   gateways
	advertised advertised
	exit       exit
	guarded    guarded
	answering  answering
	leases     leases
	guests     guests

	adopted   bool      // the kernel was looked at
	began     bool      // desired sets are being handed down
	adoptedAt time.Time // when that began
	speaks    bool      // BGP was told what to do
	converged bool
	expected  map[dataplane.NextHop]struct{} // legs of the run before, until converged
	leaving   time.Time                      // when draining ends; zero: not leaving
	handing   chan struct{}                  // closed when gateways are handed over; nil: they are not to be
	misfit    time.Time                      // since when kernel and BGP disagree; zero: they agree
	judged    time.Time                      // when it was last found out what is wrong
	judgeDue  time.Time                      // when it is to be found out again; zero: it is known

	told told
}

// planned is the kernel's small state that a plan gives for the ports, but for the uplink.
type planned struct {
	plan    *plan.Plan
	desired dataplane.Desired
}

// peersOfNeighbors are the sessions that a plan means for neighbours.
type peersOfNeighbors struct {
	plan      *plan.Plan
	neighbors []dataplane.NextHop
	peers     []bgp.Peer
}

// told is what each part was given last: parts take equal values in good
// part, but comparing here is cheaper than a look at a large table there.
type told struct {
	plane     dataplane.Desired
	segments  bool // whether any were told
	discovery []ra.Port
	liveness  []bfd.Session
	speaker   bgp.Desired // but for the segments' routes
	routes    bool        // whether these were told as they are now
	next      time.Time   // when they may be told again, at the earliest
	names     dns.Desired
}

func newLoop(p parts, d document, pki string, log *slog.Logger) *loop {
	l := &loop{
		parts:    p,
		log:      log,
		pki:      pki,
		plan:     d.plan,
		document: d.status,
		ports:    make(map[string]*port),
		own:      make(map[netip.Addr]string),
		cable:    make(map[dataplane.NextHop]*cable),
		peers:    make(map[netip.Addr]bgp.PeerStatus),
		table:    newTable(),
		segments: newSegments(d.plan),
		expected: make(map[dataplane.NextHop]struct{}),
	}
	l.segments.stations.SetReachable(l.reachable)
	return l
}

// run takes events until ctx ends or Down was asked for, and after that, if
// all is to be withdrawn, until peers had time to move their traffic away. It
// tells whether all is to be withdrawn. It ends at once when a part failed,
// which work tells.
func (l *loop) run(ctx, work context.Context, withdraw bool, links <-chan dataplane.Event, requests <-chan func(*loop)) (bool, error) {
	adopted, stop := l.plane.Adopted(), ctx.Done()
	handed := false
	pulse := newPulse()
	defer pulse.Stop()
	due := time.NewTimer(time.Hour)
	defer due.Stop()
	for {
		setDue(due, sooner(l.nextDue(), l.judgeDue))
		select {
		case <-work.Done():
			return false, nil
		case <-stop:
			stop = nil
			l.handOver()
			if withdraw {
				l.beginLeaving()
			}
		case <-l.handing:
			if l.leaving.IsZero() {
				return false, nil
			}
			handed, l.handing = true, nil
		case <-l.held.Changed():
		case kept := <-l.addresses.Kept():
			l.kept(kept)
		case bound := <-l.addresses.Bound():
			l.leased(bound)
			l.guarded.changed = true
		case named := <-l.addresses.Named():
			l.named(named)
		case <-adopted:
			l.adopted, adopted = true, nil
		case event, ok := <-links:
			if !ok {
				return false, deaf(work)
			}
			l.linksChanged(event)
		case event, ok := <-l.watch.Events():
			if !ok {
				return false, deaf(work)
			}
			l.overlayChanged(event)
		case n := <-l.discovery.Events():
			l.neighborsChanged(n)
		case s := <-l.liveness.Events():
			l.cableChanged(s, time.Now())
		case s := <-l.way.Events():
			l.uplinkChanged(s)
		case s := <-l.hypervisor.Events():
			l.hypervisorChanged(s)
		case e := <-l.speaker.Events():
			l.heard(e)
		case request := <-requests:
			request(l)
		case <-due.C:
		case <-pulse.C:
			notifyAlive()
		}
		now := time.Now()
		l.apply(now)
		if handed && !l.leaving.IsZero() && !now.Before(l.leaving) {
			return true, nil
		}
	}
}

// deaf is the error of no longer hearing the kernel, unless all is over anyway.
func deaf(work context.Context) error {
	if work.Err() != nil {
		return nil
	}
	return errors.New("the kernel no longer tells of its links")
}

// nextDue is when something is to be done though nothing happens; zero: never.
func (l *loop) nextDue() time.Time {
	next := sooner(l.guarded.due, l.guarded.settles)
	if l.handing == nil { // else that is waited for, see run
		next = sooner(next, l.leaving)
	}
	if former := l.gateways.former; len(former) > 0 {
		next = sooner(next, former[0].until)
	}
	next = sooner(next, l.segments.stations.Deadline())
	if l.began && !l.speaks {
		next = sooner(next, l.adoptedAt.Add(readTime))
	}
	for _, c := range l.cable {
		next = sooner(next, c.retry())
	}
	if l.speaks && !l.told.routes {
		next = sooner(next, l.told.next)
	}
	return next
}

func setDue(timer *time.Timer, at time.Time) {
	if at.IsZero() {
		timer.Stop()
		return
	}
	timer.Reset(max(time.Until(at), 0))
}

// linksChanged takes what the kernel says of its interfaces.
func (l *loop) linksChanged(event dataplane.Event) {
	l.plane.Observe(event)
	if changed, ok := event.(dataplane.LinksChanged); ok {
		l.links, l.unsettled.all = changed.Links, true
		l.guarded.changed, l.answering.links, l.guests.changed = true, true, true
	}
}

// neighborsChanged takes who is heard on a port.
func (l *loop) neighborsChanged(n ra.Neighbors) {
	if p, ok := l.ports[n.Port]; ok {
		p.heard, p.looped = n.Neighbors, n.Looped
		l.unsettled.port(n.Port)
	}
}

// heard takes what the speaker tells.
func (l *loop) heard(event bgp.Event) {
	switch event := event.(type) {
	case bgp.PeerChanged:
		l.peerChanged(event)
	case bgp.PathsChanged:
		if len(event.Unicast) > 0 {
			l.pathsChanged(event.Unicast)
		}
		l.learnSegments(event)
	case bgp.Converged:
		l.complete()
	}
}

func (l *loop) peerChanged(event bgp.PeerChanged) {
	peer := event.Peer
	l.unsettled.port(peer.Addr.Zone())
	p, hasPort := l.ports[peer.Addr.Zone()]
	if event.Gone {
		delete(l.peers, peer.Addr)
		l.segments.stations.ForgetPeer(peer.Addr)
		if hasPort {
			p.lost(peer)
		}
		return
	}
	l.peers[peer.Addr] = peer
	if hasPort && peer.State == bgp.Established {
		p.wasPeered, p.met = true, peer
	}
}

// apply computes what every part should do from all that is known, and tells
// those for whom that changed. What has failed comes first: it is losing packets.
func (l *loop) apply(now time.Time) {
	if !l.begin(now) {
		return
	}
	l.settle(now)
	l.applyUplink(now)
	failed := l.failedLegs(now)
	if len(failed) > 0 {
		// Others should leave this way while the kernel is still busy with it:
		// it takes the legs of a lost carrier away by itself, and to ask it for
		// that means to wait until it has.
		l.tellSpeaker(now)
	}
	l.plane.SetFailed(failed)
	if d := l.desiredPlane(); !reflect.DeepEqual(d, l.told.plane) {
		l.plane.Set(d)
		l.told.plane = d
	}
	if !slices.EqualFunc(l.discovering, l.told.discovery, ra.Port.Equal) {
		l.discovery.SetPorts(l.discovering)
		l.told.discovery = l.discovering
	}
	l.store.Set(DesiredStore(l.plan, l.pki))
	l.lease.SetAlone(l.plan.Store == nil)
	l.network.Set(l.reach())
	if l.told.liveness == nil || !slices.Equal(l.watched, l.told.liveness) {
		l.liveness.Set(l.watched)
		l.told.liveness = l.watched
	}
	l.applyGateways(now)
	l.applySegments()
	l.tellSpeaker(now) // other nodes wait for it, and for nothing of what follows
	l.applyAdvertisements()
	l.applyGuard(now)
	l.applyDHCP()
	l.applyNames()
	l.judgeInTurn(now)
}

// peersTo are the sessions with neighbours, the same slice as long as they are the same.
func (l *loop) peersTo(neighbors []dataplane.NextHop) []bgp.Peer {
	if m := &l.meant; m.plan != l.plan || !slices.Equal(neighbors, m.neighbors) {
		m.plan, m.neighbors, m.peers = l.plan, neighbors, l.plan.Peers(neighbors)
	}
	return l.meant.peers
}

func (l *loop) tellSpeaker(now time.Time) {
	l.speaks = l.speaks || !l.speechDue(now).After(now)
	if !l.speaks {
		return
	}
	d := l.plan.BGP(l.peersTo(l.neighbors(now)), l.restart())
	d.Routes = append(d.Routes, l.uplinkRoutes()...)
	d.Filter = l.filter()
	d.Shutdown, d.Leave = !l.leaving.IsZero(), !l.leaving.IsZero()
	if reflect.DeepEqual(d, l.told.speaker) && (l.told.routes || now.Before(l.told.next)) {
		return
	}
	begin := time.Now()
	l.told.speaker, l.told.routes = d, true
	d.Routes = slices.Concat(d.Routes, l.segments.stations.Originated(), l.gateways.announced())
	if err := l.speaker.Set(d); err != nil {
		l.log.Error("BGP does not take what the document asks for", "error", err)
	}
	l.told.next = afterPause(now, time.Since(begin))
}
