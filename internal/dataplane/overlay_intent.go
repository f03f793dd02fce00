package dataplane

import "net/netip"

// overlayIntent is everything that the kernel should hold of segments.
type overlayIntent struct {
	segments []Segment
	entries  map[uint32]*desiredEntries // by VNI, also of segments that are yet to come
	complete bool
}

// desiredEntries are the entries that one segment should have.
type desiredEntries struct {
	macs      desiredTable[MAC, netip.Addr]
	neighbors desiredTable[netip.Addr, MAC]
	moved     map[netip.Addr]struct{} // of neighbors, until that was told
	flood     desiredTable[netip.Addr, struct{}]
}

// desiredTable is what is desired, and the keys under which the kernel may
// hold something else. So a change costs what changes, not what there is.
type desiredTable[K, V comparable] struct {
	want  map[K]V
	dirty map[K]asked
}

// asked tells that a key was named by an update, not only found to differ.
type asked bool

func newDesiredTable[K, V comparable]() desiredTable[K, V] {
	return desiredTable[K, V]{want: make(map[K]V), dirty: make(map[K]asked)}
}

func (t *desiredTable[K, V]) set(key K, value V) {
	t.want[key] = value
	t.dirty[key] = true
}

func (t *desiredTable[K, V]) remove(key K) {
	delete(t.want, key)
	t.dirty[key] = true
}

// compare marks what the kernel holds otherwise, and what it should not hold
// if all that it should is known.
func (t *desiredTable[K, V]) compare(same func(K, V) bool, have func(yield func(K)), complete bool) {
	for key, value := range t.want {
		if !same(key, value) {
			t.mark(key)
		}
	}
	if !complete {
		return
	}
	have(func(key K) {
		if _, wanted := t.want[key]; !wanted {
			t.mark(key)
		}
	})
}

func (t *desiredTable[K, V]) mark(key K) {
	if _, already := t.dirty[key]; !already {
		t.dirty[key] = false
	}
}

func newOverlayIntent() overlayIntent {
	return overlayIntent{entries: make(map[uint32]*desiredEntries)}
}

// of returns the entries of a VNI.
func (in *overlayIntent) of(vni uint32) *desiredEntries {
	entries, ok := in.entries[vni]
	if !ok {
		entries = &desiredEntries{
			macs:      newDesiredTable[MAC, netip.Addr](),
			neighbors: newDesiredTable[netip.Addr, MAC](),
			moved:     make(map[netip.Addr]struct{}),
			flood:     newDesiredTable[netip.Addr, struct{}](),
		}
		in.entries[vni] = entries
	}
	return entries
}

// update takes in what is now desired.
func (in *overlayIntent) update(u OverlayUpdate) {
	for key, vtep := range u.MACs {
		if table := &in.of(key.VNI).macs; vtep.IsValid() {
			table.set(key.MAC, vtep)
		} else {
			table.remove(key.MAC)
		}
	}
	for key, mac := range u.Neighbors {
		if table := &in.of(key.VNI).neighbors; !mac.IsZero() {
			table.set(key.IP, mac)
		} else {
			table.remove(key.IP)
		}
	}
	for key := range u.Moved {
		in.of(key.VNI).moved[key.IP] = struct{}{}
	}
	for vni, vteps := range u.Flood {
		table := &in.of(vni).flood
		for vtep := range table.want {
			table.remove(vtep)
		}
		for _, vtep := range vteps {
			table.set(vtep, struct{}{})
		}
	}
}

// compare marks all that differs from what the kernel holds.
func (in *overlayIntent) compare(now *OverlayState) {
	for _, segment := range in.segments {
		in.compareSegment(now, segment.VNI)
	}
}

func (in *overlayIntent) compareSegment(now *OverlayState, vni uint32) {
	want, have := in.of(vni), now.of(vni)
	want.macs.compare(
		func(mac MAC, vtep netip.Addr) bool {
			return have.MACs[mac] == InstalledMAC{VTEP: vtep, Bridged: true}
		},
		func(yield func(MAC)) {
			for mac := range have.MACs {
				yield(mac)
			}
		}, in.complete)
	want.neighbors.compare(
		func(ip netip.Addr, mac MAC) bool { return have.Neighbors[ip] == mac },
		func(yield func(netip.Addr)) {
			for ip := range have.Neighbors {
				yield(ip)
			}
		}, in.complete)
	want.flood.compare(
		func(vtep netip.Addr, _ struct{}) bool { _, ok := have.Flood[vtep]; return ok },
		func(yield func(netip.Addr)) {
			for vtep := range have.Flood {
				yield(vtep)
			}
		}, in.complete)
}
