package evpn

import (
	"net/netip"
	"testing"
	"time"

	"frond/internal/bgp"
	"frond/internal/dataplane"
)

// check holds the table to what must be true between any two calls.
func (r *rig) check() {
	r.Helper()
	r.take()
	routes, frozen := 0, 0
	for vni, s := range r.Table.segments {
		routes += 1 + s.gatewayRoutes()
		silent := make(map[*port]int)
		here := 0
		for mac, m := range s.macs {
			if m.mac != mac || m.segment != s || m.removed || m.touched {
				r.Fatalf("%s is not what it is kept as: %+v", mac, m)
			}
			if m.local == nil && len(m.remotes) == 0 && len(m.addresses) == 0 {
				r.Fatalf("%s is known for no reason", mac)
			}
			if _, doubted := s.doubted[m]; doubted != (m.seenAt != "") {
				r.Fatalf("%s was seen at %q, doubted: %v", mac, m.seenAt, doubted)
			}
			if _, unlearned := s.unlearned[m]; unlearned != (m.local == nil && len(m.remotes) == 0) {
				r.Fatalf("%s counts as unlearned: %v", mac, unlearned)
			}
			if m.frozen() {
				frozen++
			}
			if entry := r.macs[dataplane.MACKey{VNI: vni, MAC: mac}]; entry != m.told {
				r.Fatalf("%s leads to %v, meant is %v", mac, entry, m.told)
			}
			if m.local == nil {
				continue
			}
			here++
			routes++
			if !m.local.silent.IsZero() {
				silent[m.local.port]++
			}
			if _, ok := m.local.port.macs[m]; !ok || s.ports[m.local.port.name] != m.local.port {
				r.Fatalf("%s is at port %s, which does not know", mac, m.local.port.name)
			}
			if at, held := s.placed[mac]; held && at != m.local.port.name {
				r.Fatalf("%s is held at port %s, and is at %s", mac, at, m.local.port.name)
			}
		}
		for mac, at := range s.placed {
			if _, ok := s.ports[at]; !ok {
				r.Fatalf("%s is held at port %s, which there is not", mac, at)
			}
		}
		for _, p := range s.ports {
			here -= len(p.macs)
			if p.silent != silent[p] || len(p.macs) > s.config.MACLimit {
				r.Fatalf("port %s: %d MACs, %d silent of %d", p.name, len(p.macs), p.silent, silent[p])
			}
		}
		if here != 0 || len(s.doubted)+len(s.unlearned) > 2*len(s.macs) {
			r.Fatalf("%d stations more than their ports hold, %d doubted, %d unlearned", here, len(s.doubted), len(s.unlearned))
		}
		for ip, a := range s.addresses {
			if a.local == nil && len(a.remotes) == 0 || a.removed || a.touched {
				r.Fatalf("%s is known for no reason: %+v", ip, a)
			}
			if a.local != nil {
				routes++
				if a.local.local == nil || a.local.removed {
					r.Fatalf("%s belongs to %s, which is not here", ip, a.local.mac)
				}
			}
			if a.frozen() {
				frozen++
			}
			if entry := r.arp[dataplane.NeighborKey{VNI: vni, IP: ip}]; entry != a.told {
				r.Fatalf("%s is answered with %s, meant is %s", ip, entry, a.told)
			}
		}
	}
	if routes != len(r.originated) || routes != len(r.told) {
		r.Fatalf("%d routes should be told, %d are meant and %d told: %v", routes, len(r.originated), len(r.told), r.told)
	}
	gaps := 0
	for at, o := range r.order {
		if o.wire == nil {
			gaps++
		} else if held := r.originated[o.key]; held.wire != o.wire || held.at != at {
			r.Fatalf("route %d is %v, %v is held at %d", at, o.key, held.route, held.at)
		}
	}
	if gaps != r.gaps || len(r.order)-gaps != routes {
		r.Fatalf("%d routes in order with %d gaps, want %d with %d", len(r.order), gaps, routes, r.gaps)
	}
	if frozen != len(r.frozen) {
		r.Fatalf("%d are frozen, %d wait for it to end", frozen, len(r.frozen))
	}
	for addr, v := range r.vteps {
		if len(v.routes) == 0 {
			r.Fatalf("VTEP %s is known for no reason", addr)
		}
	}
}

// gatewayRoutes is how many routes there should be of a segment's gateway:
// prefixes, and of an elected one the bridge's MAC and the addresses.
func (s *segment) gatewayRoutes() int {
	switch g := s.config.Gateway; {
	case !g.Elected:
		return len(s.routed())
	case s.held == 0:
		return 1
	default:
		return len(s.routed()) + 1 + len(g.Addresses())
	}
}

// Any sequence of calls leaves a consistent table, and one that is empty
// after everything has gone.
func FuzzTable(f *testing.F) {
	f.Add([]byte("\x00\x01\x10\x01\x20\x02\x30\x05\x40\x07\x50\x01"))
	f.Add([]byte("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"))
	f.Fuzz(func(t *testing.T, script []byte) {
		r := newRig(t, vtepA, 100)
		vteps := []netip.Addr{vtepB, vtepC, netip.MustParseAddr("10.0.100.1"), vtepA}
		ports := []string{"g1", "g2", "g3", "g4"}
		down := make(map[netip.Addr]bool)
		keys := make(map[string]bool)
		for ; len(script) >= 2 && len(keys) < 200; script = script[2:] {
			op, x := script[0], int(script[1])
			mac, ip := testMAC(1+x%16), netip.AddrFrom4([4]byte{172, 16, 0, byte(1 + x/16%8)})
			vtep, port := vteps[op>>4&3], ports[op>>4&3]
			route := MACIP{Attributes: attributesFor(vtep, 100+uint32(x/128)), MAC: mac, Sequence: uint32(x / 16), Sticky: op>>6 == 3}
			if op&64 != 0 {
				route.IP = ip
			}
			switch op & 15 {
			case 0, 1:
				r.appears(100, mac, port)
			case 2:
				r.Observe(dataplane.LocalPlaces{{VNI: 100, MAC: mac, Port: port, Held: x/16%2 == 0}})
			case 3:
				r.sticks(100, mac, port)
			case 4, 5:
				r.speaks(100, mac, ip)
			case 6:
				r.ages(100, mac, port)
			case 7:
				r.unplug(100, port)
			case 8, 9, 10:
				keys[keyOf(route)] = true
				r.learn(route)
			case 11:
				r.Learn([]bgp.EVPNPath{gone(route)})
			case 12:
				down[vtep] = !down[vtep]
				r.SetReachable(func(a netip.Addr) bool { return !down[a] })
			case 13:
				r.now = r.now.Add(time.Duration(x) * time.Second)
			case 14:
				switch x % 4 {
				case 0:
					r.Observe(dataplane.LocalLoops{{VNI: 100, Port: port, Other: ports[x/4%4], Looped: x < 128}})
				case 1: // the node is renamed, and renamed back
					r.SetIdentity(Config{ASN: 64000 + uint32(op>>4), RouterID: vtep, VTEP: vtep})
				default:
					r.Thaw(100, mac)
					r.ThawAddress(100, ip)
				}
			case 15:
				r.segments([][]uint32{{100}, {100, 101}, {101}}[x%3]...)
			}
			r.check()
		}
		r.SetReachable(nil)
		for key := range keys {
			r.Learn([]bgp.EVPNPath{{Key: key, Gone: true}})
		}
		for _, port := range ports {
			r.unplug(100, port)
		}
		r.check()
		if s, ok := r.Table.segments[100]; ok && (len(r.MACs(100)) > 0 || len(s.addresses) > 0 || len(s.macs) != len(s.unlearned)) {
			t.Fatalf("left behind: %+v", s)
		}
		if len(r.macs)+len(r.arp)+len(r.vteps)+len(r.routes)+len(r.frozen) > 0 {
			t.Fatalf("left behind: %v %v %v %v %v", r.macs, r.arp, r.vteps, r.routes, r.frozen)
		}
	})
}
