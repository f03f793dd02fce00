package native

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	seam "frond/internal/bgp"
)

// families maps ours to the codec's AFI/SAFI pairs.
var families = [seam.Families]bgp.Family{
	seam.IPv4: bgp.RF_IPv4_UC,
	seam.IPv6: bgp.RF_IPv6_UC,
	seam.EVPN: bgp.RF_EVPN,
}

func familyOf(afi uint16, safi uint8) (seam.Family, bool) {
	i := slices.Index(families[:], bgp.NewFamily(afi, safi))
	return seam.Family(i), i >= 0
}

// softwarePrefix begins the software version capability of a frond node.
const softwarePrefix = "frond/"

// local is what this speaker says of itself in every OPEN.
type local struct {
	asn      uint32
	routerID netip.Addr
	hostname string
	restart  time.Duration
	watched  bool // see bgp.GracefulRestart
}

// agreement is what both sides of a session said, and what follows from it.
type agreement struct {
	asn        uint32
	routerID   netip.Addr
	hostname   string
	software   string
	internal   bool
	hold       time.Duration // 0: the session has no hold timer
	keepalive  time.Duration
	families   []seam.Family
	nextHop6   bool // IPv4 over IPv6 next hops (RFC 8950)
	refreshes  bool // it tells everything again when asked (RFC 2918)
	restart    time.Duration
	watched    bool                // by BFD, which outlives agents
	restarting bool                // the peer's R bit (RFC 4724 §3)
	graceful   bool                // the peer sends End-of-RIB: it has the restart capability
	preserved  [seam.Families]bool // the peer's F bits
	restarts   [seam.Families]bool // families in the peer's restart capability
}

func (a *agreement) has(f seam.Family) bool { return slices.Contains(a.families, f) }

// frond tells whether the peer is a node of our kind.
func (a *agreement) frond() bool { return strings.HasPrefix(a.software, softwarePrefix) }

// restartState is what an OPEN says of our last restart (RFC 4724 §3).
type restartState struct {
	restarting bool // R: do not wait for our End-of-RIB, we wait for yours
	preserved  bool // F: packets to what we announced before still arrive
}

// encodeOpen builds our OPEN (RFC 4271 §4.2).
func encodeOpen(l local, hold time.Duration, state restartState) ([]byte, error) {
	var capabilities []bgp.ParameterCapabilityInterface
	var nextHops []*bgp.CapExtendedNexthopTuple
	var restarts []*bgp.CapGracefulRestartTuple
	for f, family := range families {
		capabilities = append(capabilities, bgp.NewCapMultiProtocol(family))
		restarts = append(restarts, bgp.NewCapGracefulRestartTuple(family, state.preserved))
		if seam.Family(f) == seam.IPv4 {
			nextHops = append(nextHops, bgp.NewCapExtendedNexthopTuple(family, bgp.AFI_IP6))
		}
	}
	capabilities = append(capabilities,
		bgp.NewCapRouteRefresh(),
		bgp.NewCapExtendedNexthop(nextHops),
		bgp.NewCapFourOctetASNumber(l.asn),
		bgp.NewCapGracefulRestart(state.restarting, false, uint16(l.restart/time.Second), restarts),
		bgp.NewCapFQDN(l.hostname, ""),
		bgp.NewCapSoftwareVersion(softwarePrefix+"1"),
	)
	as := uint16(bgp.AS_TRANS)
	if l.asn <= math.MaxUint16 {
		as = uint16(l.asn)
	}
	message, err := bgp.NewBGPOpenMessage(as, uint16(hold/time.Second), l.routerID,
		[]bgp.OptionParameterInterface{bgp.NewOptionParameterCapability(capabilities)})
	if err != nil {
		return nil, fmt.Errorf("build OPEN: %w", err)
	}
	return message.Serialize()
}

// negotiate decodes the peer's OPEN and agrees on a session, or says in a
// notification why there can be none.
func negotiate(l local, p seam.Peer, body []byte) (*agreement, error) {
	open := &bgp.BGPOpen{}
	if err := open.DecodeFromBytes(body); err != nil {
		return nil, &notification{code: errOpen, text: "its OPEN is malformed: " + err.Error()}
	}
	if open.Version != 4 {
		return nil, &notification{code: errOpen, subcode: 1, data: []byte{0, 4}, text: fmt.Sprintf("it speaks BGP version %d, not 4", open.Version)}
	}
	a := &agreement{routerID: open.ID, watched: l.watched}
	theirs := a.readCapabilities(open)
	if err := a.checkIdentity(l, p); err != nil {
		return nil, err
	}
	if err := a.agreeTimers(p, time.Duration(open.HoldTime)*time.Second); err != nil {
		return nil, err
	}
	for f, family := range families {
		if slices.Contains(theirs, family) {
			a.families = append(a.families, seam.Family(f))
		}
	}
	if !a.nextHop6 {
		a.families = slices.DeleteFunc(a.families, func(f seam.Family) bool { return f == seam.IPv4 })
	}
	if len(a.families) == 0 {
		return nil, &notification{code: errOpen, subcode: errOpenUnsupportedCap, text: "it speaks none of our address families: activate ipv4 unicast with extended next hop (RFC 8950) there"}
	}
	return a, nil
}

// readCapabilities takes in what the OPEN's capabilities say (RFC 5492) and
// returns the families that the peer announced.
func (a *agreement) readCapabilities(open *bgp.BGPOpen) (theirs []bgp.Family) {
	for _, parameter := range open.OptParams {
		capabilities, ok := parameter.(*bgp.OptionParameterCapability)
		if !ok {
			continue
		}
		for _, c := range capabilities.Capability {
			switch c := c.(type) {
			case *bgp.CapMultiProtocol:
				theirs = append(theirs, c.CapValue)
			case *bgp.CapFourOctetASNumber:
				a.asn = c.CapValue
			case *bgp.CapExtendedNexthop:
				for _, t := range c.Tuples {
					if t.NLRIAFI == bgp.AFI_IP && t.NLRISAFI == bgp.SAFI_UNICAST && t.NexthopAFI == bgp.AFI_IP6 {
						a.nextHop6 = true
					}
				}
			case *bgp.CapRouteRefresh:
				a.refreshes = true
			case *bgp.CapGracefulRestart:
				a.readRestart(c)
			case *bgp.CapFQDN:
				a.hostname = printable(c.HostName)
			case *bgp.CapSoftwareVersion:
				a.software = printable(c.SoftwareVersion)
			}
		}
	}
	return theirs
}

func (a *agreement) readRestart(c *bgp.CapGracefulRestart) {
	a.graceful = true
	a.restart = time.Duration(c.Time&0xfff) * time.Second
	a.restarting = c.Flags&0x08 != 0
	for _, t := range c.Tuples {
		if f, ok := familyOf(t.AFI, t.SAFI); ok {
			a.restarts[f] = true
			a.preserved[f] = t.Flags&0x80 != 0
		}
	}
}

// checkIdentity holds the peer's AS and router-id against our own.
func (a *agreement) checkIdentity(l local, p seam.Peer) error {
	if a.asn == 0 {
		return &notification{code: errOpen, subcode: errOpenUnsupportedCap, text: "it does not speak 4-octet AS numbers (RFC 6793)"}
	}
	a.internal = a.asn == l.asn
	if a.internal && !p.AllowInternal {
		return &notification{code: errOpen, subcode: errOpenBadPeerAS, text: fmt.Sprintf("it speaks from our own AS %d: give each node its own", a.asn)}
	}
	if !a.routerID.Is4() || a.routerID.IsUnspecified() {
		return &notification{code: errOpen, subcode: errOpenBadID, text: "its router-id is not a valid IPv4 address"}
	}
	if a.routerID == l.routerID {
		return &notification{code: errOpen, subcode: errOpenBadID, text: fmt.Sprintf("it has our own router-id %s: two nodes with one loopback, or a cable back to ourselves", a.routerID)}
	}
	return nil
}

// agreeTimers takes the smaller hold time (RFC 4271 §4.2): 0 or at least 3 s.
func (a *agreement) agreeTimers(p seam.Peer, theirs time.Duration) error {
	if theirs == 1*time.Second || theirs == 2*time.Second {
		return &notification{code: errOpen, subcode: errOpenUnacceptableHold, text: fmt.Sprintf("it proposes a hold time of %s: 0 or at least 3s is allowed", theirs)}
	}
	a.hold = min(p.Hold, theirs)
	a.keepalive = min(p.Keepalive, a.hold/3)
	return nil
}

// printable makes a peer's name safe to show: it comes from outside.
func printable(s string) string {
	const longest = 64
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, s)
	return s[:min(len(s), longest)]
}
