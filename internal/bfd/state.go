package bfd

import (
	"fmt"
	"net/netip"
	"time"
)

// Session is a peer on a port whose path is to be watched.
type Session struct {
	Port     string        `json:"port"`
	Peer     netip.Addr    `json:"peer"`     // link-local, without zone
	Interval time.Duration `json:"interval"` // desired transmit and required receive interval; ns in JSON
	// Multiplier is how many packets may be lost in a row before the peer
	// declares the session down.
	Multiplier int `json:"multiplier"`
}

// Bounds of what a session may ask for, and of how many there may be.
const (
	minInterval = 10 * time.Millisecond
	maxInterval = time.Minute
	maxSessions = 512
)

func (s Session) validate() error {
	switch {
	case s.Port == "" || len(s.Port) > 15:
		return fmt.Errorf("port %q: an interface name has 1 to 15 characters", s.Port)
	case !s.Peer.Is6() || !s.Peer.IsLinkLocalUnicast() || s.Peer.Zone() != "":
		return fmt.Errorf("peer %s on %s: must be an IPv6 link-local address without zone", s.Peer, s.Port)
	case s.Interval < minInterval || s.Interval > maxInterval:
		return fmt.Errorf("interval %s to %s on %s: must be %s to %s", s.Interval, s.Peer, s.Port, minInterval, maxInterval)
	case s.Multiplier < 1 || s.Multiplier > 255:
		return fmt.Errorf("multiplier %d to %s on %s: must be 1 to 255", s.Multiplier, s.Peer, s.Port)
	}
	return nil
}

func (s Session) endpoint() endpoint { return endpoint{s.Port, s.Peer} }

// State is what is known of a session.
type State struct {
	Port  string     `json:"port"`
	Peer  netip.Addr `json:"peer"`
	State string     `json:"state"` // up, down, init, admin-down or unanswered
	// Diagnostic says why the state is what it is, in the words of RFC 5880
	// §4.1; empty if there is nothing to say.
	Diagnostic string    `json:"diagnostic"`
	Since      time.Time `json:"since"`
	EverUp     bool      `json:"everUp"` // since the session was set up, or the peer came back that had switched BFD off
	Flaps      uint64    `json:"flaps"`  // how often the up state was lost
	// RemoteIndependent is the peer's C bit: its BFD goes on while its
	// control plane restarts.
	RemoteIndependent bool `json:"remoteIndependent"`
}

func (s State) endpoint() endpoint { return endpoint{s.Port, s.Peer} }

// endpoint names a session: there is one per peer and port.
type endpoint struct {
	port string
	peer netip.Addr
}

func (e endpoint) String() string { return e.peer.String() + "%" + e.port }
