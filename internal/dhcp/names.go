package dhcp

import (
	"net/netip"
	"strings"
	"time"

	"frond/internal/dataplane"
)

// Named is what the client that has an address calls itself.
type Named struct {
	Address netip.Addr
	Segment string
	Name    string // the first label; empty: nobody has the address, or has not said
	MAC     dataplane.MAC
	Since   time.Time // when it was called so first
}

// rename notes what an address answers to, if that is not what it was.
func (a *agent) rename(address netip.Addr, now time.Duration) {
	is := Named{Address: address}
	if e := a.book.entries[address]; e != nil && e.Kind == leased && now < e.over() && e.Hostname != "" {
		is = Named{Address: address, Segment: e.Segment, Name: firstLabel(e.Hostname), MAC: e.MAC, Since: e.named()}
		if s := a.segmentOf(address); s != nil {
			is.Segment = s.Name
		}
	}
	was, known := a.names[address]
	switch {
	case is.Name == "" && !known, known && is.Segment == was.Segment && is.Name == was.Name && is.MAC == was.MAC && is.Since.Equal(was.Since):
		return
	case is.Name == "":
		delete(a.names, address)
	default:
		a.names[address] = is
	}
	if a.out.named == nil {
		a.out.named = make(map[netip.Addr]Named)
	}
	a.out.named[address] = is
}

func firstLabel(name string) string {
	label, _, _ := strings.Cut(name, ".")
	return label
}
