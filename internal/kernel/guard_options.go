package kernel

import (
	"math"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"frond/internal/dataplane"
)

// floodMeter is the set of each guest port's limit of broadcast.
const floodMeter = "flood"

// chain is the table's chain of that name.
func (f *guardFamily) chain(name string) *guardChain {
	i := slices.IndexFunc(f.chains, func(c guardChain) bool { return c.name == name })
	return &f.chains[i]
}

func linkLocal6(loaded []expr.Any) []expr.Any {
	return seq(loaded, masked(0xff, 0xc0), equal(0xfe, 0x80))
}

// bindSources adds to what the chains drop already what nobody was given, by
// ports of segments that addresses are given in. A guest that has no address yet
// says so by the unspecified one, and makes its IPv6 link-local one itself
// (RFC 2131 §4.1, 5227 §1.1, 4862 §5.4.2).
func (f *guardFamily) bindSources() {
	f.sets = append(f.sets, guardSet{name: "bound-ports", types: []nftables.SetDatatype{nftables.TypeIFName},
		elements: func(g dataplane.Guard) [][]byte { return nameKeys(g.BoundPorts) }})
	dropBound := seq(portIn("bound-ports"), drop(dataplane.DropSource))

	add := func(chain string, rules ...[]expr.Any) {
		c := f.chain(chain)
		c.rules = append(c.rules, rules...)
	}
	unspecified := make([]byte, 16)
	add("sender-arp", seq(network(arpSenderIP, 4), differs(unspecified[:4]...), dropBound))
	add("sender-ip4", seq(network(ip4From, 4), differs(unspecified[:4]...), dropBound))
	add("source6",
		seq(linkLocal6(network(ip6From, 2)), back()),
		seq(network(ip6From, 16), differs(unspecified...), dropBound))
	advert := f.chain("advert")
	last := len(advert.rules) - 1 // goes on with any target
	advert.rules = slices.Insert(advert.rules, last, seq(linkLocal6(transport(neighborTargetField, 2)), goTo("source6")), dropBound)
}

// limitFlood has what a port sends to many bounded to so many packets a
// second, before all rules that look for who sends, and returns the rule by which
// a port's chain has it looked at before what passes soon.
func (f *guardFamily) limitFlood(packets int) []expr.Any {
	burst := uint32(min(packets, math.MaxUint32))
	toMany := seq(link(linkDestination), masked(0x01, 0, 0, 0, 0, 0), equal(0x01, 0, 0, 0, 0, 0))
	over := seq(toMany, meta(expr.MetaKeyIIFNAME), []expr.Any{
		&expr.Dynset{SrcRegKey: reg, SetName: floodMeter, Operation: uint32(unix.NFT_DYNSET_OP_ADD), Exprs: []expr.Any{
			&expr.Limit{Type: expr.LimitTypePkts, Rate: uint64(packets), Unit: expr.LimitTimeSecond, Burst: burst, Over: true},
		}},
	}, drop(dataplane.DropBroadcast))
	guest := f.chain("guest")
	guest.rules = slices.Insert(guest.rules, 1, over) // behind BPDUs
	f.meters = append(f.meters, floodMeter)
	return seq(toMany, goTo("guest"))
}
