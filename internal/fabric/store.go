package fabric

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// mostMembers bounds the store's members: each write waits for a majority of
// them, and seven survive the loss of three.
const mostMembers = 7

// defaultMembers is how many nodes are members unless the document names them.
const defaultMembers = 3

// Store is the key-value store that elected gateways and DHCP keep their
// leases in: embedded in the agents of Members, or outside of the fabric at
// Endpoints. With LXD there is none: the cluster of the hypervisors decides
// about gateways, and addresses are not lent.
type Store struct {
	LXD       *LXD
	Members   []string // names of nodes, an odd number, in the document's order
	Endpoints []string // host:port
	// Of an external store: the CA of its members, and what this fabric's
	// nodes show them. Full paths; the files are read when they are needed.
	CAFile, CertFile, KeyFile string
}

// LXD is how the cluster of LXD or Incus that the nodes are members of decides
// who has elected gateways.
type LXD struct {
	Gateways Spread
}

// Spread is how elected gateways are spread over the members of a cluster.
type Spread string

// The spreads: all on the leader of the cluster's database, or each on the
// member that is online in it and that rendezvous hashing prefers.
const (
	OnLeader Spread = "leader"
	ByHash   Spread = "hash"
)

// storeChoice is what the document says: a Store, or off.
type storeChoice struct {
	off bool
	Store
}

func decodeStore(v value, nodes []string, dir string) (*storeChoice, bool) {
	if v.node.Kind == yaml.ScalarNode && (v.node.Value == "off" || v.node.Value == "false") {
		return &storeChoice{off: true}, true
	}
	if v.node.Kind != yaml.MappingNode {
		v.wrong("is neither a mapping nor off", "write {members: [spine1, spine2, leaf1]}, {lxd: {}} or off, or leave store out")
		return nil, false
	}
	m, ok := v.object(keysOf["store"])
	if !ok {
		return nil, false
	}
	file := func(v value) (string, bool) { return decodePath(v, dir) }
	member := func(v value) (string, bool) { return decodeMember(v, nodes) }
	return &storeChoice{Store: Store{
		LXD:       optional(m, "lxd", nil, decodeLXD),
		Members:   optional(m, "members", nil, list(1, member)),
		Endpoints: optional(m, "endpoints", nil, list(1, endpoint)),
		CAFile:    optional(m, "ca_file", "", file),
		CertFile:  optional(m, "cert_file", "", file),
		KeyFile:   optional(m, "key_file", "", file),
	}}, true
}

func decodeLXD(v value) (*LXD, bool) {
	m, ok := v.object(keysOf["lxd"])
	if !ok {
		return nil, false
	}
	return &LXD{Gateways: optional(m, "gateways", OnLeader, choose("spread of gateways", OnLeader, ByHash))}, true
}

func decodeMember(v value, nodes []string) (string, bool) {
	name, ok := v.text("write a node's name")
	if ok && len(nodes) > 0 && !slices.Contains(nodes, name) {
		v.wrong(show(name)+" is no node of this fabric", choice(name, nodes))
		return "", false
	}
	return name, ok
}

// endpoint takes a host name or address with its port.
func endpoint(v value) (string, bool) {
	const hint = "write a host and a port, as in etcd1.example:2379 or [2001:db8::1]:2379"
	text, ok := v.text(hint)
	if !ok {
		return "", false
	}
	host, port, err := net.SplitHostPort(text)
	number, portErr := strconv.ParseUint(port, 10, 16)
	_, addressErr := netip.ParseAddr(host)
	if err != nil || portErr != nil || number == 0 || addressErr != nil && !hostName(strings.ToLower(host)) {
		v.wrong(show(text)+" is no endpoint", hint)
		return "", false
	}
	return text, true
}

// decodePath takes a file's name, relative to the document's directory.
func decodePath(v value, dir string) (string, bool) {
	name, ok := v.text("name a file, as in /etc/frond/pki/ca.crt")
	if ok && !filepath.IsAbs(name) {
		name = filepath.Join(dir, name)
	}
	return name, ok
}

// NeedsStore names a segment that keeps leases in the store, if there is one.
func (f *Fabric) NeedsStore() (segment string, needed bool) {
	for _, s := range f.Segments {
		if s.DHCP != nil || s.DHCP6 != nil || s.Gateway != nil && s.Gateway.Mode == Elected && s.Gateway.Election == ByStore {
			return s.Name, true
		}
	}
	return "", false
}

// deriveStore decides which store there is, if any: a fabric that keeps no
// leases runs none, whatever the document says of it.
func deriveStore(f *Fabric, said *storeChoice) {
	deriveElections(f, said)
	if said != nil && said.LXD != nil {
		f.Store = &Store{LXD: said.LXD}
		return
	}
	if _, needed := f.NeedsStore(); !needed || said != nil && said.off {
		return
	}
	f.Store = &Store{}
	if said != nil {
		*f.Store = said.Store
	}
	if f.Store.LXD == nil && f.Store.Members == nil && f.Store.Endpoints == nil {
		f.Store.Members = firstMembers(f.Nodes)
	}
}

// deriveElections has elected gateways decided about by what the document says
// is there.
func deriveElections(f *Fabric, said *storeChoice) {
	for _, s := range f.Segments {
		switch {
		case s.Gateway == nil || s.Gateway.Mode != Elected || s.Gateway.Election != "":
		case said != nil && said.LXD != nil:
			s.Gateway.Election = ByLXD
		default:
			s.Gateway.Election = ByStore
		}
	}
}

// firstMembers are the first three nodes, or the first where there are fewer,
// spines first: those that are least likely to be busy with guests.
func firstMembers(nodes []Node) []string {
	var spines, others []string
	for _, n := range nodes {
		if n.Role == Spine {
			spines = append(spines, n.Name)
		} else {
			others = append(others, n.Name)
		}
	}
	all := slices.Concat(spines, others)
	if len(all) < defaultMembers {
		return all[:1]
	}
	return all[:defaultMembers]
}

func validateStore(f *Fabric, said *storeChoice, r *report) {
	if said == nil {
		return
	}
	if segment, needed := f.NeedsStore(); said.off {
		if needed {
			r.failField("store", "is off, but segment "+segment+" keeps leases in it",
				"leave store out, or give the segment an anycast gateway and no dhcp")
		}
		return
	}
	if said.LXD != nil {
		validateLXD(f, said.Store, r)
		return
	}
	validateMembers(said.Members, r)
	files := map[string]string{"ca_file": said.CAFile, "cert_file": said.CertFile, "key_file": said.KeyFile}
	for _, key := range []string{"ca_file", "cert_file", "key_file"} {
		switch {
		case said.Endpoints == nil && files[key] != "":
			r.failField("store."+key, "is of an external store, and there are no endpoints",
				"leave it out: members have the files that \"frond pki issue\" makes")
		case said.Endpoints != nil && files[key] == "":
			r.failField("store."+key, "is missing", "an external store is reached by TLS: name ca_file, cert_file and key_file")
		}
	}
	if said.Members != nil && said.Endpoints != nil {
		r.failField("store.endpoints", "are of an external store, but there are members too", "keep one of the two")
	}
}

// validateLXD wants nothing to keep leases where nobody can: the database of
// the hypervisors is theirs.
func validateLXD(f *Fabric, said Store, r *report) {
	others := map[string]bool{"members": said.Members != nil, "endpoints": said.Endpoints != nil,
		"ca_file": said.CAFile != "", "cert_file": said.CertFile != "", "key_file": said.KeyFile != ""}
	for _, key := range []string{"members", "endpoints", "ca_file", "cert_file", "key_file"} {
		if others[key] {
			r.failField("store."+key, "belongs to a store that keeps leases, but with lxd there is none", "keep one of the two")
		}
	}
	for _, s := range f.Segments {
		if s.Gateway != nil && s.Gateway.Election == ByStore {
			r.failField(segmentField(s.Name, "gateway.election"), "there is no store that could decide: store is lxd", "write lxd, or leave election out")
		}
		lent := map[string]bool{"dhcp": s.DHCP != nil && len(s.DHCP.Ranges) > 0, "dhcp6": s.DHCP6 != nil && len(s.DHCP6.Ranges) > 0}
		for _, key := range []string{"dhcp", "dhcp6"} {
			if lent[key] {
				r.failField(segmentField(s.Name, key+".range"), "lends addresses, which takes a store that gives each to one guest only: with lxd there is none",
					"leave range out and reserve addresses, or have a store and write gateway: {election: lxd}")
			}
		}
	}
}

func validateMembers(members []string, r *report) {
	const field = "store.members"
	seen := map[string]bool{}
	for i, name := range members {
		if seen[name] {
			r.failField(item(field, i), show(name)+" is named twice", "name it once")
		}
		seen[name] = true
	}
	switch n := len(members); {
	case n > mostMembers:
		r.failField(field, fmt.Sprintf("has %d members", n), "name three, five or seven: more make each write slower")
	case n > 0 && n%2 == 0:
		r.failField(field, fmt.Sprintf("has %d members, which survive no more losses than %d do", n, n-1),
			fmt.Sprintf("name %d or %d", n-1, n+1))
	}
}
