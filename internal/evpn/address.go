package evpn

import (
	"net/netip"
	"slices"

	"frond/internal/dataplane"
)

// address is an IP address on a segment and everything that is claimed of it.
// It may move from one MAC to another, then with a higher sequence number
// than before, just as a MAC moves between nodes (RFC 9721 §5).
type address struct {
	segment *segment
	ip      netip.Addr
	local   *station  // which is here and has it; nil: none
	remotes []*remote // MACIP routes with this IP
	contest contest
	told    dataplane.MAC // of its neighbour entry; zero: none
	known   dataplane.MAC // at which guests here may know it; zero: at none
	touched bool
	removed bool
}

func addressKey(vni uint32, mac dataplane.MAC, ip netip.Addr) originKey {
	return originKey{vni: vni, mac: mac, address: netip.PrefixFrom(ip, ip.BitLen())}
}

func (t *Table) address(s *segment, ip netip.Addr) *address {
	a, ok := s.addresses[ip]
	if !ok {
		a = &address{segment: s, ip: ip, known: s.lost[ip]}
		s.addresses[ip] = a
		delete(s.lost, ip)
	}
	return a
}

// remember notes that an address was seen of a station, as its latest.
func (t *Table) remember(m *station, ip netip.Addr) {
	if i := slices.Index(m.addresses, ip); i >= 0 {
		m.addresses = append(slices.Delete(m.addresses, i, i+1), ip)
		return
	}
	if len(m.addresses) == maxAddresses {
		t.release(m, m.addresses[0])
	}
	m.addresses = append(m.addresses, ip)
}

// inherit takes over what other nodes told of a station's addresses: they
// have moved here with it, and nobody needs to ask for them again.
func (t *Table) inherit(m *station) {
	for _, r := range m.remotes {
		ip := r.ip()
		if a, ok := m.segment.addresses[ip]; ok && a.told == m.mac && !slices.Contains(m.addresses, ip) {
			t.remember(m, ip)
		}
	}
}

// claimAddress makes an address belong to a station that is here. If it was
// another MAC's, that one has to give way: the claim is made with a higher
// sequence number than any of the other.
func (t *Table) claimAddress(m *station, ip netip.Addr) {
	a := t.address(m.segment, ip)
	if a.local == m {
		return
	}
	t.touchAddress(a)
	if a.told != (dataplane.MAC{}) && a.told != m.mac && !t.mayMoveAddress(a) {
		return
	}
	if a.local != nil {
		t.release(a.local, ip)
	}
	a.local = m
	other := best(a.remotes, func(r *remote) bool { return r.claim.mac != m.mac })
	if other != nil && !t.localClaim(m).beats(other.claim) {
		m.local.sequence = max(m.local.sequence, next(other.claim.sequence))
	}
	t.touchMAC(m)
}

// release takes an address from a station.
func (t *Table) release(m *station, ip netip.Addr) {
	if i := slices.Index(m.addresses, ip); i >= 0 {
		m.addresses = slices.Delete(m.addresses, i, i+1)
	}
	if a, ok := m.segment.addresses[ip]; ok && a.local == m {
		a.local = nil
		t.retract(addressKey(m.segment.config.VNI, m.mac, ip))
		t.touchAddress(a)
	}
}

// decideAddress finds out whose an address is, after something about it has
// changed.
func (t *Table) decideAddress(a *address) {
	if a.removed {
		return
	}
	winner := best(a.remotes, reachableRoute)
	if a.local != nil && winner != nil && winner.claim.mac != a.local.mac &&
		winner.claim.beats(t.localClaim(a.local)) && t.mayMoveAddress(a) {
		t.release(a.local, a.ip)
	}
	var mac dataplane.MAC
	switch {
	case a.segment.holds(a.ip):
	case a.local != nil:
		mac = a.local.mac
	case winner != nil:
		mac = winner.claim.mac
	}
	if mac != a.told {
		a.told = mac
		t.news.neighbor(a.segment.config.VNI, a.ip, mac)
	}
	t.know(a)
	if a.local == nil && len(a.remotes) == 0 {
		t.thawAddress(a)
		a.removed = true
		delete(a.segment.addresses, a.ip)
		a.segment.lose(a)
	}
}

// know has guests here told of an address that they may know at another MAC,
// where they do not hear its new owner: a bridge keeps what that one announces
// from other nodes, as it answers for it there.
func (t *Table) know(a *address) {
	own := a.segment.holds(a.ip)
	now := a.told
	if own {
		now = a.segment.config.BridgeMAC()
	}
	if now.IsZero() || now == a.known {
		return
	}
	if !a.known.IsZero() && !own && a.local == nil {
		t.news.moved(a.segment.config.VNI, a.ip)
	}
	a.known = now
}

// maxLost bounds the addresses of a segment that are remembered though nobody
// has them any more. Of what is forgotten, guests find out by asking again.
const maxLost = 1024

// lose remembers at which MAC guests may go on to know an address.
func (s *segment) lose(a *address) {
	if a.known.IsZero() {
		return
	}
	for ip := range s.lost {
		if len(s.lost) < maxLost {
			break
		}
		delete(s.lost, ip)
	}
	s.lost[a.ip] = a.known
}
