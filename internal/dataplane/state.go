package dataplane

import (
	"maps"
	"net/netip"
	"slices"
)

// State is what the kernel holds that is frond's, and what it must know of
// the rest to leave that alone.
type State struct {
	NextHops  map[uint32]NextHop  // legs: nexthop objects of one next hop, by id
	Groups    map[uint32][]uint32 // nexthop groups by id: ids of their members, sorted
	Routes    map[netip.Prefix]InstalledRoute
	Addresses map[netip.Prefix]struct{} // on the loopback interface
	Sysctls   map[string]string         // path below /proc/sys → value
	Links     map[string]Link           // every interface, by name

	// PortAddresses are on all other interfaces but those of segments; true
	// marks frond's.
	PortAddresses map[PortAddress]bool

	// ForeignIDs are the ids of nexthop objects that are somebody else's:
	// never given away, never replaced.
	ForeignIDs map[uint32]struct{}
	// ForeignAddresses are on the loopback interface but not marked as
	// frond's: they satisfy a desire, and are not removed with it.
	ForeignAddresses map[netip.Prefix]struct{}
	// UnmarkedAddresses tells that this kernel cannot mark addresses (no
	// IFA_PROTO, before Linux 5.18): then a foreign address that is desired
	// counts as frond's.
	UnmarkedAddresses bool
}

// PortAddress is an address of an interface, with the length of its network.
type PortAddress struct {
	Port   string
	Prefix netip.Prefix
}

// InstalledRoute is a route as the kernel holds it.
type InstalledRoute struct {
	NextHopID uint32 // leg or group; 0 if the route refers to neither
	Source    netip.Addr
}

// Link is an interface as the kernel shows it.
type Link struct {
	Name      string
	Index     int
	Up        bool // administratively
	Carrier   bool
	MTU       int
	LinkLocal netip.Addr // usable IPv6 link-local address, zero if there is none yet
	MAC       string
	Master    string // name of the bridge that it is a port of; empty: none
	Kind      string // "veth", "bridge", …; empty for a physical device
	Peer      string // of a veth: its other end, if that is in this namespace too
}

// Event tells that the kernel changed by somebody else's hand.
type Event interface{ event() }

// LinksChanged carries all links as they are now.
type LinksChanged struct {
	Links map[string]Link
	// Down names the links that were seen down or without carrier since the
	// event before, also those that are back by now: the kernel has removed
	// every nexthop object over them (ip-nexthop(8)) and tells nobody.
	Down []string
}

// Drifted tells that something of frond's was changed by somebody else, or
// that notifications were lost: look again.
type Drifted struct{}

func (LinksChanged) event() {}
func (Drifted) event()      {}

func newState() *State {
	return &State{
		NextHops:  make(map[uint32]NextHop),
		Groups:    make(map[uint32][]uint32),
		Routes:    make(map[netip.Prefix]InstalledRoute),
		Addresses: make(map[netip.Prefix]struct{}),
		Sysctls:   make(map[string]string),
		Links:     make(map[string]Link),

		PortAddresses: make(map[PortAddress]bool),
	}
}

// whole makes every map of a dump writable.
func (s *State) whole() {
	empty := newState()
	if s.NextHops == nil {
		s.NextHops = empty.NextHops
	}
	if s.Groups == nil {
		s.Groups = empty.Groups
	}
	if s.Routes == nil {
		s.Routes = empty.Routes
	}
	if s.Addresses == nil {
		s.Addresses = empty.Addresses
	}
	if s.Sysctls == nil {
		s.Sysctls = empty.Sysctls
	}
	if s.Links == nil {
		s.Links = empty.Links
	}
	if s.PortAddresses == nil {
		s.PortAddresses = empty.PortAddresses
	}
}

// record notes operations that the kernel has carried out, with all that
// they make the kernel do by itself. Deletions of nexthop objects take
// effect last: no list of operations refers to one after deleting it. It tells
// whether routes are gone that no operation names.
func (s *State) record(ops []Op) bool {
	gone := make(map[uint32]struct{})
	for _, op := range ops {
		switch op := op.(type) {
		case SetSysctl:
			s.Sysctls[op.Path] = op.Value
		case SetPort:
			if link, ok := s.Links[op.Name]; ok {
				link.Up = true
				s.Links[op.Name] = link
			}
		case AddAddress:
			s.Addresses[op.Prefix] = struct{}{}
		case DeleteAddress:
			delete(s.Addresses, op.Prefix)
			delete(s.ForeignAddresses, op.Prefix)
		case AddPortAddress:
			s.PortAddresses[op.PortAddress] = true
		case DeletePortAddress:
			delete(s.PortAddresses, op.PortAddress)
		case SetNextHop:
			s.NextHops[op.ID] = op.NextHop
		case SetGroup:
			s.Groups[op.ID] = op.Members
		case SetRoute:
			s.Routes[op.Prefix] = InstalledRoute{NextHopID: op.NextHopID, Source: op.Source}
		case DeleteRoute:
			delete(s.Routes, op.Prefix)
		case DeleteNextHop:
			gone[op.ID] = struct{}{}
		}
	}
	return len(gone) > 0 && s.removeNextHops(gone)
}

// removeNextHops does what the kernel does when nexthop objects go
// (net/ipv4/nexthop.c, remove_nexthop): groups shrink, a group without
// members goes too, and so do the routes that referred to what is gone. It tells
// whether there were any.
func (s *State) removeNextHops(gone map[uint32]struct{}) bool {
	isGone := func(id uint32) bool { _, ok := gone[id]; return ok }
	for id, members := range s.Groups {
		if isGone(id) || !slices.ContainsFunc(members, isGone) {
			continue
		}
		// Cloned: the members may be shared with the operation that set them.
		left := slices.DeleteFunc(slices.Clone(members), isGone)
		s.Groups[id] = left
		if len(left) == 0 {
			gone[id] = struct{}{}
		}
	}
	for id := range gone {
		delete(s.NextHops, id)
		delete(s.Groups, id)
	}
	before := len(s.Routes)
	maps.DeleteFunc(s.Routes, func(_ netip.Prefix, r InstalledRoute) bool { return isGone(r.NextHopID) })
	return len(s.Routes) < before
}

// legs returns what an id of the kernel stands for.
func (s *State) legs(id uint32) []NextHop {
	if leg, ok := s.NextHops[id]; ok {
		return []NextHop{leg}
	}
	var legs []NextHop
	for _, member := range s.Groups[id] {
		if leg, ok := s.NextHops[member]; ok {
			legs = append(legs, leg)
		}
	}
	slices.SortFunc(legs, compareNextHops)
	return legs
}
