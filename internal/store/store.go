// Package store is the strongly consistent key-value store of a fabric, in
// which elected gateways and DHCP keep their leases: etcd v3, embedded on a
// few nodes or external.
//
// A [Client] reads, writes by compare-and-swap, watches, and holds a
// [Session], a lease of some seconds. It knows all members and goes on to the
// next within fractions of a second when one does not answer.
//
// An embedded member runs in a process of its own, [ServeMember]: etcd ends
// its process when its disk is full or its files are damaged, and that must
// not take the agent along. [Member] is the agent's side, which starts that
// process, starts it again, and tells how it is. [Service] has both.
package store

import (
	"net/netip"
	"strconv"
	"time"

	"frond/internal/pki"
)

// The ports that members listen on, IANA's for etcd: for clients, and for
// each other.
const (
	ClientPort = 2379
	PeerPort   = 2380
)

// Peer is a member by name, and the loopback that it listens on.
type Peer struct {
	Name    string     `json:"name"`
	Address netip.Addr `json:"address"`
}

func (p Peer) clientURL() string { return httpsURL(p.Address, ClientPort) }
func (p Peer) peerURL() string   { return httpsURL(p.Address, PeerPort) }

func httpsURL(a netip.Addr, port uint16) string {
	return "https://" + netip.AddrPortFrom(a, port).String()
}

// Endpoint is where a client finds a member.
type Endpoint struct {
	Name string // of the node, or host:port again where the store is external
	URL  string // https://host:port
}

// Endpoints are those of embedded members.
func Endpoints(members []Peer) []Endpoint {
	var all []Endpoint
	for _, m := range members {
		all = append(all, Endpoint{m.Name, m.clientURL()})
	}
	return all
}

// External are the endpoints of a store outside of the fabric, by host:port.
func External(hosts []string) []Endpoint {
	var all []Endpoint
	for _, h := range hosts {
		all = append(all, Endpoint{h, "https://" + h})
	}
	return all
}

// Prefix is what all keys of a fabric begin with, so that an external store
// may have several fabrics and other things in it.
func Prefix(fabric string) string { return "/frond/" + fabric + "/" }

// MemberConfig is what a member's process is told.
type MemberConfig struct {
	Fabric  string    `json:"fabric"`
	Name    string    `json:"name"`    // which of Members this is
	Members []Peer    `json:"members"` // all that the document names
	Dir     string    `json:"dir"`     // of this member's data alone
	Files   pki.Files `json:"files"`
}

// self is this member among Members.
func (c MemberConfig) self() Peer {
	for _, m := range c.Members {
		if m.Name == c.Name {
			return m
		}
	}
	return Peer{Name: c.Name}
}

// others are the members without this one.
func (c MemberConfig) others() []Peer {
	var others []Peer
	for _, m := range c.Members {
		if m.Name != c.Name {
			others = append(others, m)
		}
	}
	return others
}

// State is what a member's process is at.
type State string

// The states of a member.
const (
	Starting State = "starting" // etcd reads its data, or waits for a majority
	Waiting  State = "waiting"  // it cannot begin yet; the text says for what
	Joining  State = "joining"  // a learner that catches up
	Serving  State = "serving"
	Failed   State = "failed" // the process ended, and is started again
)

// Trouble is the kind of what is wrong with a member.
type Trouble string

// The kinds that are told apart.
const (
	NoTrouble    Trouble = ""
	DiskFull     Trouble = "disk-full"
	Corrupt      Trouble = "corrupt"
	Certificates Trouble = "certificates"
	Removed      Trouble = "removed"  // was a member, and is none any more
	Stranger     Trouble = "stranger" // the cluster has never had it
	OtherTrouble Trouble = "failed"
)

// Report is how a member is.
type Report struct {
	State   State     `json:"state"`
	Trouble Trouble   `json:"trouble,omitempty"`
	Text    string    `json:"text,omitempty"` // in words, with what would help
	Since   time.Time `json:"since"`
	PID     int       `json:"pid,omitempty"`
	Starts  int       `json:"starts,omitempty"` // of the process, by this agent
}

// Timers of the cluster. The election timeout bounds two things from below:
// how soon a dead leader is replaced (half a second to one), and the shortest
// lease, which etcd makes one and a half of it, rounded up to 1 s. With the
// 1,000 ms that etcd has by default that would be 2 s. In a data centre a round
// trip takes well below a millisecond and a write to disk some: ten heartbeats
// may be lost or late before anybody stands for election, and the ten
// different timeouts, in ticks of one heartbeat, keep candidates apart.
const (
	heartbeat       = 50 * time.Millisecond
	electionTimeout = 500 * time.Millisecond
	// MinTTL is the shortest lease.
	MinTTL = time.Second
)

func hexID(id uint64) string { return strconv.FormatUint(id, 16) }
