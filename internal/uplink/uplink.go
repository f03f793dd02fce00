// Package uplink looks after the interface of an exit that leads out of the
// fabric: which router is behind it, by the document, by DHCP or by the
// operator's own routes, and whether that router answers.
package uplink

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

// Family is an address family; each has a router of its own.
type Family int

// The families.
const (
	IPv4 Family = iota
	IPv6
	Families
)

func (f Family) String() string { return [...]string{"IPv4", "IPv6"}[f] }

// Of is the family of an address.
func Of(a netip.Addr) Family {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}

// Desired is the uplink to look after. Its zero value is none.
type Desired struct {
	Port    string
	Index   int    // of the interface
	MAC     string // of the interface
	Carrier bool   // without it there is nobody to ask
	DHCP    bool   // of IPv4
	// LinkLocal is the port's usable link-local address: without one, IPv6
	// routers cannot be asked.
	LinkLocal netip.Addr
	// Addresses and Routers are what the document says, by family; zero where
	// DHCP or the kernel has it.
	Addresses [Families]netip.Addr
	Routers   [Families]netip.Addr
}

// Kernel is what is asked of the kernel where the operator has configured the
// port himself.
type Kernel interface {
	// Addresses are those of an interface.
	Addresses(port string) ([]netip.Prefix, error)
	// Routers are the next hops of default routes over an interface that are
	// not frond's, the preferred one of each family first.
	Routers(port string) ([]netip.Addr, error)
}

// State is what is known of the uplink.
type State struct {
	Desired Desired // that it was found for
	Lease   Lease   // of DHCP; zero: there is none
	// Asking tells that there may be a lease from before that nobody has
	// confirmed or refused yet.
	Asking   bool
	Trouble  string // of DHCP, in words
	Families [Families]Router
}

// Router is who leads out for one family.
type Router struct {
	Addr    netip.Addr // zero: nobody is known
	Verdict Verdict
	Reason  string // for silence, in words
}

const (
	// lookInterval is how often the kernel is asked for what the operator has
	// configured.
	lookInterval = time.Second
	// patience is how long a router may be unknown before that is a verdict:
	// after a start, the one of the run before is used meanwhile.
	patience = 3 * time.Second
)

// Watcher looks after an uplink. Its state belongs to the goroutine of Run.
type Watcher struct {
	kernel Kernel
	open   opener
	file   string // where the lease outlives a restart
	log    *slog.Logger
	wake   chan struct{} // capacity 1
	events chan State    // capacity 1, holds the newest

	mu   sync.Mutex
	next Desired
	anew bool // the cable was another one at some time since next was taken

	desired Desired
	since   time.Time // when desired began
	probers [Families]*prober
	results chan result
	lessee  *lessee
	leases  chan outcome
	state   State
	told    State
}

// New returns a watcher that does nothing before Run. In file, a lease of DHCP
// outlives a restart.
func New(kernel Kernel, file string, log *slog.Logger) *Watcher {
	return &Watcher{
		kernel: kernel, open: openAsker, file: file, log: log,
		wake: make(chan struct{}, 1), events: make(chan State, 1),
		results: make(chan result), leases: make(chan outcome),
	}
}

// Set replaces what is to be looked after. What was learnt over a cable that goes
// is forgotten, however quickly it comes back: whoever asks for it has forgotten
// it too.
func (w *Watcher) Set(d Desired) {
	w.mu.Lock()
	w.anew = w.anew || !d.sameCable(w.next)
	w.next = d
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default: // awake already
	}
}

// Events tells each new state. Who is late gets the newest alone.
func (w *Watcher) Events() <-chan State { return w.events }

// Run looks after the uplink until ctx ends. The lease is kept: the next run
// goes on with it.
func (w *Watcher) Run(ctx context.Context) error {
	defer w.stop()
	look := time.NewTicker(lookInterval)
	defer look.Stop()
	look.Stop() // most nodes have no uplink, and are not woken for it
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.wake:
			if w.begin(ctx); w.desired.Port == "" {
				look.Stop()
			} else {
				look.Reset(lookInterval)
			}
		case <-look.C:
			w.look(ctx)
		case r := <-w.results:
			w.heard(r)
		case o := <-w.leases:
			w.leased(ctx, o)
		}
		w.tell()
	}
}

func (w *Watcher) stop() {
	for f := range w.probers {
		w.stopProber(Family(f))
	}
	w.stopLessee()
}

// begin takes what is desired now.
func (w *Watcher) begin(ctx context.Context) {
	w.mu.Lock()
	next, anew := w.next, w.anew
	w.anew = false
	w.mu.Unlock()
	if next == w.desired && !anew {
		return
	}
	before := w.desired
	w.desired, w.since = next, time.Now()
	w.state.Desired = next
	if anew {
		w.stop()
		w.state.Families = [Families]Router{}
	}
	if !next.DHCP || next.Port != before.Port {
		w.state.Lease, w.state.Trouble, w.state.Asking = Lease{}, "", false
	}
	if next.DHCP && before.Port != next.Port {
		w.remember()
	}
	if next.DHCP && next.Carrier && w.lessee == nil {
		w.startLessee(ctx)
	}
	w.look(ctx)
}

// sameCable tells whether what was learnt over one holds for the other.
func (d Desired) sameCable(other Desired) bool {
	return d.Port == other.Port && d.Index == other.Index && d.MAC == other.MAC && d.Carrier == other.Carrier && d.DHCP == other.DHCP
}

// look finds out who the routers are and has them asked.
func (w *Watcher) look(ctx context.Context) {
	d := w.desired
	if d.Port == "" || !d.Carrier {
		return
	}
	var routers []netip.Addr
	var addresses []netip.Prefix
	if w.asksKernel() {
		var err, more error
		routers, err = w.kernel.Routers(d.Port)
		addresses, more = w.kernel.Addresses(d.Port)
		if err := errors.Join(err, more); err != nil {
			w.log.Debug("the kernel does not say who is behind the uplink", "port", d.Port, "error", err)
			return
		}
	}
	for f := range Families {
		w.aim(ctx, f, target{
			family: f, port: d.Port, index: d.Index, mac: d.MAC,
			router: w.router(f, routers), source: w.source(f, addresses),
		})
	}
}

// asksKernel tells whether anything is the operator's to configure.
func (w *Watcher) asksKernel() bool {
	d := w.desired
	return !d.Routers[IPv6].IsValid() || !d.DHCP && (!d.Routers[IPv4].IsValid() || !d.Addresses[IPv4].IsValid())
}

func (w *Watcher) router(f Family, kernel []netip.Addr) netip.Addr {
	switch {
	case f == IPv4 && w.desired.DHCP:
		return w.state.Lease.Router
	case w.desired.Routers[f].IsValid():
		return w.desired.Routers[f]
	}
	for _, a := range kernel {
		if Of(a) == f {
			return a
		}
	}
	return netip.Addr{}
}

// source is who asks for a router; zero: nobody can. For IPv6 it is the port's
// link-local address.
func (w *Watcher) source(f Family, kernel []netip.Prefix) netip.Addr {
	switch {
	case f == IPv6:
		return w.desired.LinkLocal
	case w.desired.DHCP:
		return w.state.Lease.Address.Addr()
	case w.desired.Addresses[f].IsValid():
		return w.desired.Addresses[f]
	}
	for _, p := range kernel {
		if p.Addr().Is4() {
			return p.Addr()
		}
	}
	return netip.Addr{}
}

// aim has the router of a family asked.
func (w *Watcher) aim(ctx context.Context, f Family, t target) {
	r := &w.state.Families[f]
	if !t.router.IsValid() || !t.source.IsValid() {
		w.stopProber(f)
		*r = Router{Addr: t.router}
		if time.Since(w.since) >= patience {
			r.Verdict, r.Reason = Silent, "there is no address to ask it from"
		}
		return
	}
	if p := w.probers[f]; p != nil && p.target == t {
		return
	}
	w.stopProber(f)
	if r.Addr != t.router {
		*r = Router{Addr: t.router}
	}
	w.probers[f] = startProber(ctx, t, w.open, w.results)
}

func (w *Watcher) stopProber(f Family) {
	if p := w.probers[f]; p != nil {
		p.stop()
		w.probers[f] = nil
	}
}

func (w *Watcher) heard(r result) {
	p := w.probers[r.target.family]
	if p == nil || p.target != r.target {
		return // of one that is no longer asked
	}
	p.count.observe(r.err)
	found := &w.state.Families[r.target.family]
	if p.count.verdict != Unknown {
		found.Verdict, found.Reason = p.count.verdict, p.count.reason
	}
}

// tell hands over the state if it is news.
func (w *Watcher) tell() {
	if w.state == w.told {
		return
	}
	w.told = w.state
	select {
	case <-w.events:
	default: // nobody is late
	}
	w.events <- w.state
}
