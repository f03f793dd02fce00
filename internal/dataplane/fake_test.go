package dataplane

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"sync"
)

// fakeKernel is a Target that behaves as the kernel does with nexthop
// objects: it checks what refers to what, and it removes by itself.
type fakeKernel struct {
	mu      sync.Mutex
	state   State
	applied []Op
	calls   int // of Apply
	dumps   int
	reads   int // of Sysctls
	refuse  func(Op) error
	before  func(ops []Op) // called before operations are carried out
	after   func(ops []Op) // called after that, before anybody is told
}

func newFakeKernel(ports ...string) *fakeKernel {
	f := &fakeKernel{state: *newState()}
	f.state.Links["lo"] = Link{Name: "lo", Up: true, Carrier: true, Index: 1}
	for i, port := range ports {
		f.state.Links[port] = Link{Name: port, Index: 2 + i, Up: true, Carrier: true, LinkLocal: netip.MustParseAddr("fe80::ff")}
	}
	return f
}

func (f *fakeKernel) Dump(context.Context) (State, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dumps++
	return f.copy(), nil
}

func (f *fakeKernel) copy() State {
	s := f.state
	s.NextHops, s.Routes, s.Addresses = maps.Clone(s.NextHops), maps.Clone(s.Routes), maps.Clone(s.Addresses)
	s.ForeignAddresses, s.Links = maps.Clone(s.ForeignAddresses), maps.Clone(s.Links)
	s.Groups = make(map[uint32][]uint32)
	for id, members := range f.state.Groups {
		s.Groups[id] = slices.Sorted(slices.Values(members))
	}
	s.Sysctls = nil
	return s
}

func (f *fakeKernel) Sysctls(paths []string) map[string]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reads++
	values := make(map[string]string)
	for _, path := range paths {
		if value, ok := f.state.Sysctls[path]; ok {
			values[path] = value
		}
	}
	return values
}

func (f *fakeKernel) Apply(_ context.Context, ops []Op) []OpError {
	f.mu.Lock()
	before, after := f.before, f.after
	f.mu.Unlock()
	if before != nil {
		before(ops)
	}
	if after != nil {
		defer after(ops)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	f.applied = append(f.applied, ops...)
	var failed []OpError
	for i, op := range ops {
		if err := f.applyOne(op); err != nil {
			failed = append(failed, OpError{Index: i, Op: op, Err: err})
		}
	}
	return failed
}

func (f *fakeKernel) applyOne(op Op) error {
	if f.refuse != nil {
		if err := f.refuse(op); err != nil {
			return err
		}
	}
	s := &f.state
	switch op := op.(type) {
	case SetSysctl:
		s.Sysctls[op.Path] = op.Value
	case SetPort:
		link, ok := s.Links[op.Name]
		if !ok {
			return errors.New("no such device")
		}
		link.Up, link.Carrier, link.LinkLocal = true, true, netip.MustParseAddr("fe80::ff")
		s.Links[op.Name] = link
	case AddAddress:
		s.Addresses[op.Prefix] = struct{}{}
	case DeleteAddress:
		delete(s.Addresses, op.Prefix)
		for prefix, route := range s.Routes {
			if route.Source == op.Prefix.Addr() {
				delete(s.Routes, prefix)
			}
		}
	case SetNextHop:
		return f.setNextHop(op)
	case SetGroup:
		for _, id := range op.Members {
			if _, ok := s.NextHops[id]; !ok {
				return errors.New("invalid nexthop id")
			}
		}
		if len(op.Members) == 0 {
			return errors.New("no members")
		}
		s.Groups[op.ID] = slices.Clone(op.Members)
	case DeleteNextHop:
		f.deleteNextHop(op.ID)
	case SetRoute:
		_, leg := s.NextHops[op.NextHopID]
		_, group := s.Groups[op.NextHopID]
		if !leg && !group {
			return errors.New("nexthop id does not exist")
		}
		s.Routes[op.Prefix] = InstalledRoute{NextHopID: op.NextHopID, Source: op.Source}
	case DeleteRoute:
		delete(s.Routes, op.Prefix)
	}
	return nil
}

func (f *fakeKernel) setNextHop(op SetNextHop) error {
	_, leg := f.state.NextHops[op.ID]
	_, group := f.state.Groups[op.ID]
	_, foreign := f.state.ForeignIDs[op.ID]
	link, ok := f.state.Links[op.NextHop.Port]
	switch {
	case leg || group || foreign:
		return errors.New("file exists")
	case !ok:
		return errors.New("no such device")
	case !link.Up || !link.Carrier:
		return errors.New("network is down")
	}
	f.state.NextHops[op.ID] = op.NextHop
	return nil
}

func (f *fakeKernel) deleteNextHop(id uint32) {
	dead := []uint32{id}
	for group, members := range f.state.Groups {
		if !slices.Contains(members, id) {
			continue
		}
		var left []uint32
		for _, member := range members {
			if member != id {
				left = append(left, member)
			}
		}
		f.state.Groups[group] = left
		if left == nil {
			dead = append(dead, group)
		}
	}
	for _, id := range dead {
		delete(f.state.NextHops, id)
		delete(f.state.Groups, id)
		for prefix, route := range f.state.Routes {
			if route.NextHopID == id {
				delete(f.state.Routes, prefix)
			}
		}
	}
}

// setCarrier does what the kernel does when a cable is pulled or plugged.
func (f *fakeKernel) setCarrier(port string, carrier bool) LinksChanged {
	f.mu.Lock()
	defer f.mu.Unlock()
	link := f.state.Links[port]
	link.Carrier = carrier
	f.state.Links[port] = link
	event := LinksChanged{Links: maps.Clone(f.state.Links)}
	if carrier {
		return event
	}
	event.Down = []string{port}
	for id, leg := range maps.Clone(f.state.NextHops) {
		if leg.Port == port {
			f.deleteNextHop(id)
		}
	}
	return event
}

// forwards returns every route with the next hops that its packets take.
func (f *fakeKernel) forwards() map[netip.Prefix][]NextHop {
	f.mu.Lock()
	defer f.mu.Unlock()
	table := make(map[netip.Prefix][]NextHop)
	for prefix, route := range f.state.Routes {
		table[prefix] = f.state.legs(route.NextHopID)
	}
	return table
}

func (f *fakeKernel) reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.applied, f.calls, f.dumps, f.reads = nil, 0, 0, 0
}

// counts returns how often the kernel was changed and looked at.
func (f *fakeKernel) counts() (calls, dumps int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls, f.dumps
}

func (f *fakeKernel) ops() []Op {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.applied)
}
