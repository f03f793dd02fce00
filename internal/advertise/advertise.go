// Package advertise tells guests of a segment's gateway, prefix and name
// servers by router advertisements (RFC 4861, RFC 4862, RFC 8106), and of the
// latter by DHCPv6 without addresses (RFC 8415), to who asks for it.
//
// A gateway that is on every node is advertised by each to its own guests
// only: frames leave by the guests' ports and never pass the bridge, which
// would flood them to all nodes. One that is on one node at a time is
// advertised by that node on the bridge itself, to all guests of the segment.
package advertise

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"sync"
)

// Router is a segment's gateway as its guests hear of it.
type Router struct {
	Segment   string
	MAC       [6]byte
	LinkLocal netip.Addr   // that advertisements come from
	Prefix    netip.Prefix // on link; of a /64, guests make addresses of their own (RFC 4862 §5.5.3)
	MTU       int          // octets
	DNS       []netip.Addr // recursive name servers
	Search    []string     // domains, without the final dot
	// Shared tells that another node may have the gateway next, under the
	// same address: it is not taken back when this node leaves.
	Shared bool
	// Links are where it is advertised: ports that are up, or one bridge.
	Links []Link
}

// Link is an interface of this network namespace.
type Link struct {
	Name  string
	Index int
}

// Advertiser advertises on a set of links.
type Advertiser struct {
	log  *slog.Logger
	open func(Link) (*socket, error)

	mu      sync.Mutex
	routers []Router
	leaving chan struct{} // closed when Withdraw is done; nil: it was not asked for
	wake    chan struct{} // there is something new in the above
}

// New makes an Advertiser that does nothing until Run.
func New(log *slog.Logger) *Advertiser {
	return &Advertiser{log: log, open: openSocket, wake: make(chan struct{}, 1)}
}

// Set hands over all routers. On links that are new it begins as RFC 4861
// §6.2.4 says; what has changed is told at once; a router that is named no
// more is taken back (§6.2.5), but for a link that is gone alone nothing is
// said there. Set never blocks.
func (a *Advertiser) Set(routers []Router) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.leaving != nil {
		return
	}
	a.routers = slices.Clone(routers)
	a.signal()
}

// Withdraw takes all routers back but for those that other nodes have next,
// and returns when that is said. Later calls of Set change nothing.
func (a *Advertiser) Withdraw(ctx context.Context) error {
	a.mu.Lock()
	if a.leaving == nil {
		a.leaving = make(chan struct{})
		a.routers = nil
		a.signal()
	}
	left := a.leaving
	a.mu.Unlock()
	select {
	case <-left:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("take back router advertisements: %w", ctx.Err())
	}
}

func (a *Advertiser) signal() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// Run advertises until ctx ends, and may be called once. It takes nothing
// back: guests go on with what they know while the agent restarts.
func (a *Advertiser) Run(ctx context.Context) error {
	running := make(map[key]*running)
	defer func() {
		for _, r := range running {
			r.stop()
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.wake:
			if left := a.apply(ctx, running); left != nil {
				close(left)
				<-ctx.Done()
				return nil
			}
		}
	}
}

// key tells one router on one link from all others.
type key struct {
	segment string
	link    Link
}

// apply brings what runs into line with what is wanted. If that is to be the
// end, it returns the channel that waits for it.
func (a *Advertiser) apply(ctx context.Context, all map[key]*running) chan struct{} {
	a.mu.Lock()
	routers, leaving := a.routers, a.leaving
	a.mu.Unlock()
	wanted := make(map[key]Router)
	named := make(map[string]bool)
	for _, r := range routers {
		named[r.Segment] = true
		for _, link := range r.Links {
			wanted[key{r.Segment, link}] = r
		}
	}
	for k, r := range all {
		if want, ok := wanted[k]; ok {
			r.set(want)
			continue
		}
		if !named[k.segment] && (leaving == nil || !r.router.Shared) {
			r.final()
		}
		r.stop()
		delete(all, k)
	}
	for k, router := range wanted {
		if _, ok := all[k]; !ok {
			all[k] = a.start(ctx, k.link, router)
		}
	}
	return leaving
}

// running is a speaker's goroutine.
type running struct {
	router  Router // that it was given last, without links
	speaker *speaker
	cancel  context.CancelFunc
	done    chan struct{}
}

func (a *Advertiser) start(ctx context.Context, link Link, router Router) *running {
	ctx, cancel := context.WithCancel(ctx)
	router.Links = nil
	r := &running{
		router:  router,
		speaker: newSpeaker(link, router, a.log.With("segment", router.Segment, "link", link.Name), a.open),
		cancel:  cancel,
		done:    make(chan struct{}),
	}
	go func() {
		defer close(r.done)
		r.speaker.run(ctx)
	}()
	return r
}

// set hands the speaker its router as it is now.
func (r *running) set(router Router) {
	router.Links = nil
	if !reflect.DeepEqual(router, r.router) {
		r.router = router
		r.speaker.set(order{router: router})
	}
}

// final has the speaker say that the router is none any more.
func (r *running) final() { r.speaker.set(order{router: r.router, final: true}) }

// stop has the speaker do what it was told last and end, and waits until it has.
func (r *running) stop() {
	r.cancel()
	<-r.done
}
