package versus

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	vns "github.com/vishvananda/netns"

	"frond/internal/fabric"
	"frond/internal/lab"
	"frond/internal/probe"
)

// gatewayAddress is the segment's elected gateway.
var gatewayAddress = netip.MustParseAddr("172.16.0.1")

// loseGateway cuts off the node that has the gateway. Traffic is that of a guest
// of another node with a spine.
func loseGateway(ctx context.Context, f *Fabric) ([]Sample, error) {
	const span = 6 * time.Second
	h, err := f.watchHolders()
	if err != nil {
		return nil, err
	}
	defer h.end()
	holder, err := h.one(ctx)
	if err != nil {
		return nil, err
	}
	guest := f.guests[slices.IndexFunc(f.guests, func(g lab.Guest) bool { return g.Node != holder })]
	pairs, err := f.between(guest.Name, "spine2")
	if err != nil {
		return nil, err
	}
	if err := reach(ctx, pairs[0][:]); err != nil {
		return nil, err
	}
	node := lab.End{Node: holder}
	result, err := f.traffic(ctx, pairs, func() error { return f.Cut(node, lab.End{}) }, func() error { return wait(ctx, span) })
	if err != nil {
		return nil, err
	}
	twice := h.twice()
	if err := f.Mend(node, lab.End{}); err != nil {
		return nil, err
	}
	outage := milliseconds(result.Worst().Outage)
	outage.Exceeded = result.Worst().Outage >= span
	if _, err := f.whole(ctx, afterwards); err != nil {
		return nil, err
	}
	_, err = h.one(ctx)
	return []Sample{outage, seconds(twice)}, err
}

// reach waits until hosts reach each other.
func reach(ctx context.Context, hosts []probe.Host) error {
	ctx, cancel := context.WithTimeout(ctx, atFirst)
	defer cancel()
	for _, r := range probe.Reach(ctx, hosts) {
		if !r.Answered {
			return fmt.Errorf("%s does not reach %s", r.From.Name, r.To.Name)
		}
	}
	return nil
}

// holders watches in the leafs' kernels who has the gateway's address.
type holders struct {
	names   []string
	kernels []*netlink.Handle
	stop    context.CancelFunc
	done    chan struct{}

	mu   sync.Mutex
	now  []string
	both time.Duration // for how long more than one had it
}

// lookInterval is how often holders look.
const lookInterval = 5 * time.Millisecond

func (f *Fabric) watchHolders() (*holders, error) {
	h := &holders{done: make(chan struct{})}
	for _, n := range f.own() {
		if n.Role == fabric.Spine {
			continue
		}
		ns, err := f.space(n.Name)
		if err != nil {
			return nil, err
		}
		kernel, err := netlink.NewHandleAt(vns.NsHandle(ns.Fd()))
		if err != nil {
			return nil, fmt.Errorf("look into the kernel of %s: %w", n.Name, err)
		}
		h.names, h.kernels = append(h.names, n.Name), append(h.kernels, kernel)
	}
	ctx, stop := context.WithCancel(context.Background())
	h.stop = stop
	go func() {
		defer close(h.done)
		tick := time.NewTicker(lookInterval)
		defer tick.Stop()
		last := time.Now()
		for {
			found := h.ask()
			h.mu.Lock()
			// One that had it at both looks had it together with the other.
			if len(found) > 1 && slices.Equal(found, h.now) {
				h.both += time.Since(last)
			}
			h.now, last = found, time.Now()
			h.mu.Unlock()
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}()
	return h, nil
}

func (h *holders) ask() (found []string) {
	for i, kernel := range h.kernels {
		addresses, err := kernel.AddrList(nil, netlink.FAMILY_V4)
		if err == nil && slices.ContainsFunc(addresses, func(a netlink.Addr) bool { return a.IP.Equal(gatewayAddress.AsSlice()) }) {
			found = append(found, h.names[i])
		}
	}
	return found
}

func (h *holders) end() {
	h.stop()
	<-h.done
	for _, kernel := range h.kernels {
		kernel.Close()
	}
}

// twice is for how long more than one node has had the gateway.
func (h *holders) twice() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.both
}

// one waits until one node alone has had it for two seconds.
func (h *holders) one(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, atFirst)
	defer cancel()
	const calm = 2 * time.Second
	var holder string
	since := time.Now()
	for time.Since(since) < calm || holder == "" {
		if err := wait(ctx, lookInterval); err != nil {
			return "", fmt.Errorf("wait for one node to have the gateway: %w", err)
		}
		h.mu.Lock()
		now := ""
		if len(h.now) == 1 {
			now = h.now[0]
		}
		h.mu.Unlock()
		if now != holder {
			holder, since = now, time.Now()
		}
	}
	return holder, nil
}
