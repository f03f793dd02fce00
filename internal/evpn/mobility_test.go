package evpn

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"frond/internal/bgp"
	"frond/internal/dataplane"
)

// fabric is a set of nodes that tell each other their routes. What one tells
// another arrives in any order between routes and between nodes; of one route
// only the latest state arrives, as a speaker coalesces it.
type fabric struct {
	nodes   []*rig
	random  *rand.Rand
	sent    []map[string]bgp.EVPNRoute         // by node: what it tells
	waiting map[[2]int]map[string]bgp.EVPNPath // from, to: not delivered yet
}

func newFabric(t *testing.T, size int, seed uint64) *fabric {
	f := &fabric{random: rand.New(rand.NewPCG(seed, 0)), waiting: make(map[[2]int]map[string]bgp.EVPNPath)}
	for n := range size {
		vtep := netip.AddrFrom4([4]byte{10, 0, 200, byte(n + 1)})
		f.nodes = append(f.nodes, newRig(t, vtep, 100))
		f.sent = append(f.sent, make(map[string]bgp.EVPNRoute))
	}
	return f
}

// tell puts what has changed at a node on its way to the others.
func (f *fabric) tell(n int) {
	node := f.nodes[n]
	node.take()
	for to := range f.nodes {
		if to == n {
			continue
		}
		way := f.waiting[[2]int{n, to}]
		if way == nil {
			way = make(map[string]bgp.EVPNPath)
			f.waiting[[2]int{n, to}] = way
		}
		for nlri, route := range node.wire {
			if before, ok := f.sent[n][nlri]; !ok || !slices.Equal(before.ExtendedCommunities, route.ExtendedCommunities) {
				way[nlri] = bgp.EVPNPath{Key: nlri, Route: route}
			}
		}
		for nlri := range f.sent[n] {
			if _, ok := node.wire[nlri]; !ok {
				way[nlri] = bgp.EVPNPath{Key: nlri, Gone: true}
			}
		}
	}
	f.sent[n] = node.wire
}

// deliver lets one route arrive somewhere. It tells whether any was waiting.
func (f *fabric) deliver() bool {
	var ways [][2]int
	for way, paths := range f.waiting {
		if len(paths) > 0 {
			ways = append(ways, way)
		}
	}
	if len(ways) == 0 {
		return false
	}
	slices.SortFunc(ways, func(a, b [2]int) int { return slices.Compare(a[:], b[:]) })
	way := ways[f.random.IntN(len(ways))]
	var keys []string
	for key := range f.waiting[way] {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	key := keys[f.random.IntN(len(keys))]
	path := f.waiting[way][key]
	delete(f.waiting[way], key)
	f.nodes[way[1]].Learn([]bgp.EVPNPath{path})
	f.tell(way[1])
	return true
}

// view is who a node takes to be where, and whose an address is.
func (f *fabric) view(n int) string {
	var view string
	for _, m := range f.nodes[n].MACs(100) {
		view += fmt.Sprintf("%s at %s seq %d %v\n", m.MAC, m.VTEP, m.Sequence, m.IPs)
	}
	return view
}

// settle delivers everything and checks that all nodes agree, that each one's
// kernel would do as it says, and that nobody is said to be where he is not.
func (f *fabric) settle(t *testing.T, step string) {
	t.Helper()
	for n := 0; f.deliver(); n++ {
		if n > 100_000 {
			t.Fatalf("%s: the nodes never stop telling each other", step)
		}
	}
	for n, node := range f.nodes {
		node.check()
		if f.view(n) != f.view(0) {
			t.Fatalf("%s: node %d sees\n%snode 0\n%s", step, n, f.view(n), f.view(0))
		}
		for _, m := range node.MACs(100) {
			key := dataplane.MACKey{VNI: 100, MAC: m.MAC}
			if entry := node.macs[key]; m.Local == entry.IsValid() || entry.IsValid() && entry != m.VTEP {
				t.Fatalf("%s: node %d has %s at %s, but its entry leads to %v", step, n, m.MAC, m.VTEP, entry)
			}
			for _, ip := range m.IPs {
				if mac := node.arp[dataplane.NeighborKey{VNI: 100, IP: ip}]; mac != m.MAC {
					t.Fatalf("%s: node %d answers %s with %s instead of %s", step, n, ip, mac, m.MAC)
				}
			}
			owner := int(m.VTEP.As4()[3]) - 1
			if f.nodes[owner].Table.segments[100].macs[m.MAC].local == nil {
				t.Fatalf("%s: %s is said to be at %s, which does not know", step, m.MAC, m.VTEP)
			}
		}
		for key := range node.macs {
			if !slices.ContainsFunc(node.MACs(100), func(m MACStatus) bool { return m.MAC == key.MAC }) {
				t.Fatalf("%s: node %d holds an entry of %s, which is nowhere", step, n, key.MAC)
			}
		}
	}
}

// lose makes a node be out of reach of all others, or in it again.
func (f *fabric) lose(lost map[int]bool) {
	for n, node := range f.nodes {
		node.SetReachable(func(vtep netip.Addr) bool { return n == f.index(vtep) || !lost[n] && !lost[f.index(vtep)] })
		f.tell(n)
	}
}

func (f *fabric) index(vtep netip.Addr) int { return int(vtep.As4()[3]) - 1 }

// thaw delivers everything and waits, until nothing is frozen.
func (f *fabric) thaw() {
	for range 2 {
		for f.deliver() {
		}
		f.wait(time.Hour)
	}
}

// wait lets time pass on all nodes.
func (f *fabric) wait(d time.Duration) {
	for n, node := range f.nodes {
		node.now = node.now.Add(d)
		f.tell(n)
	}
}

// Whatever guests and operators do, whoever is out of reach meanwhile or has
// moved too often, and in whatever order the nodes hear of it, they agree in
// the end; and once each guest has spoken again, on the truth.
func TestAllNodesAgree(t *testing.T) {
	const nodes, guests, events = 4, 5, 60
	for seed := range uint64(300) {
		f := newFabric(t, nodes, seed)
		at := make([]int, guests) // where each guest really is; -1: nowhere
		for guest := range at {
			at[guest] = -1
		}
		port := func(guest int) string { return fmt.Sprint("g", guest) }
		address := func(n int) netip.Addr { return netip.AddrFrom4([4]byte{172, 16, 0, byte(n)}) }
		pace := time.Hour // too slow to be taken for duplicates
		if seed%2 == 1 {
			pace = time.Second // and some are frozen
		}
		lost := make(map[int]bool)
		for range events {
			f.wait(pace)
			guest := f.random.IntN(guests)
			switch f.random.IntN(8) {
			case 0, 1: // moves; the port that it leaves may stay, empty
				if from := at[guest]; from >= 0 && f.random.IntN(2) == 0 {
					f.nodes[from].unplug(100, port(guest))
					f.tell(from)
				}
				at[guest] = f.random.IntN(nodes)
				f.nodes[at[guest]].appears(100, testMAC(guest), port(guest))
				f.tell(at[guest])
			case 2: // speaks, perhaps by an address that another one has
				if to := at[guest]; to >= 0 {
					f.nodes[to].speaks(100, testMAC(guest), address(f.random.IntN(guests)))
					f.tell(to)
				}
			case 3: // an echo: a frame of its comes back where it is not
				n := f.random.IntN(nodes)
				f.nodes[n].appears(100, testMAC(guest), "loop")
				f.tell(n)
			case 4:
				if from := at[guest]; from >= 0 {
					f.nodes[from].unplug(100, port(guest))
					f.tell(from)
					at[guest] = -1
				}
			case 5: // pinned by the operator; its next frame on another port ends that
				if to := at[guest]; to >= 0 {
					f.nodes[to].sticks(100, testMAC(guest), port(guest))
					f.tell(to)
				}
			case 6: // a pin is taken back, as the kernel tells it
				if to := at[guest]; to >= 0 {
					f.nodes[to].ages(100, testMAC(guest), port(guest))
					f.tell(to)
				}
			case 7: // a node goes out of reach, or comes back
				n := f.random.IntN(nodes)
				lost[n] = !lost[n]
				f.lose(lost)
			}
			for range f.random.IntN(20) {
				f.deliver()
			}
		}
		f.lose(nil)
		f.thaw()
		f.settle(t, fmt.Sprintf("seed %d", seed))

		for n, node := range f.nodes {
			node.unplug(100, "loop")
			for guest := range at {
				if at[guest] != n {
					node.unplug(100, port(guest))
				}
			}
			f.tell(n)
		}
		f.settle(t, fmt.Sprintf("seed %d, loops gone", seed))
		// Three times, of which one ends pins: a MAC's claims share one sequence number, so that what a guest
		// says may strengthen an old claim of its MAC to another's address.
		for range 3 {
			for guest, to := range at {
				if to >= 0 {
					f.nodes[to].appears(100, testMAC(guest), port(guest))
					f.nodes[to].speaks(100, testMAC(guest), address(guest))
					f.tell(to)
				}
			}
			f.settle(t, fmt.Sprintf("seed %d, all spoken", seed))
		}
		for guest, to := range at {
			key := dataplane.MACKey{VNI: 100, MAC: testMAC(guest)}
			for n, node := range f.nodes {
				want := nowhere
				if to >= 0 && to != n {
					want = f.nodes[to].config.VTEP
				}
				if node.macs[key] != want {
					t.Fatalf("seed %d: guest %d is at %d, but node %d leads to %v", seed, guest, to, n, node.macs[key])
				}
				if got := node.arp[dataplane.NeighborKey{VNI: 100, IP: address(guest)}]; to >= 0 && got != key.MAC {
					t.Fatalf("seed %d: node %d takes the address of guest %d to be %s's", seed, n, guest, got)
				}
			}
		}
	}
}

// Two guests with one MAC do not keep the fabric busy, and all nodes agree on
// which one has it.
func TestDuplicateMACsEnd(t *testing.T) {
	for seed := range uint64(100) {
		f := newFabric(t, 4, seed)
		for range 30 {
			for _, n := range []int{1, 2, 3}[:2+seed%2] {
				f.nodes[n].appears(100, mac1, "g1")
				f.tell(n)
			}
			for f.random.IntN(10) > 0 {
				f.deliver()
			}
		}
		for f.deliver() { // ends
		}
		sequence := f.nodes[0].MACs(100)[0].Sequence
		for range 30 {
			for _, n := range []int{1, 2, 3} {
				f.nodes[n].appears(100, mac1, "g1")
				f.tell(n)
			}
			for f.deliver() {
			}
		}
		frozen := 0
		for _, node := range f.nodes {
			frozen += len(node.Table.frozen)
		}
		if frozen == 0 {
			t.Fatalf("seed %d: nothing is frozen", seed)
		}
		if now := f.nodes[0].MACs(100)[0].Sequence; now > sequence+3*maxMoves {
			t.Fatalf("seed %d: went on moving from %d to %d", seed, sequence, now)
		}
	}
}
