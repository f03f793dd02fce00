package bfd

import (
	"encoding/binary"
	"fmt"
	"time"
)

// sessionState is a session's state as packets carry it (RFC 5880 §4.1).
type sessionState uint8

const (
	adminDown sessionState = iota
	down
	initializing
	up
)

func (s sessionState) String() string {
	return [...]string{"admin-down", "down", "init", "up"}[s&3]
}

// diagnostic is the reason for the last change of a state (RFC 5880 §4.1).
type diagnostic uint8

const (
	noDiagnostic           diagnostic = 0
	detectionTimeExpired   diagnostic = 1
	neighborSignaledDown   diagnostic = 3
	administrativelyDown   diagnostic = 7
	reverseConcatenatedEnd diagnostic = 8
)

func (d diagnostic) String() string {
	names := [...]string{
		"",
		"control detection time expired",
		"echo function failed",
		"neighbor signaled session down",
		"forwarding plane reset",
		"path down",
		"concatenated path down",
		"administratively down",
		"reverse concatenated path down",
	}
	if d <= reverseConcatenatedEnd {
		return names[d]
	}
	return fmt.Sprintf("diagnostic %d", uint8(d))
}

// packetLength is a control packet without authentication section.
const packetLength = 24

// Bits of the second byte (RFC 5880 §4.1).
const (
	flagPoll        = 1 << 5
	flagFinal       = 1 << 4
	flagIndependent = 1 << 3
	flagAuth        = 1 << 2
	flagMultipoint  = 1 << 0
)

// packet is a control packet (RFC 5880 §4.1). GoBGP's public codec is not
// used: it knows neither the C bit nor the A and M bits that reception has to
// check, and allocates for every packet.
type packet struct {
	state       sessionState
	diagnostic  diagnostic
	poll, final bool
	independent bool // C: the sender does not share fate with its control plane
	multiplier  uint8
	mine, yours uint32 // discriminators, the sender's and the receiver's
	desiredTx   time.Duration
	requiredRx  time.Duration // 0: send me nothing periodically
}

// parsePacket decodes b and makes the checks of RFC 5880 §6.8.6 that need no
// session. Authentication is not in use, so a packet with it is an error.
// The error is one of few fixed values, so that a flood costs no memory.
func parsePacket(b []byte) (packet, error) {
	switch {
	case len(b) < packetLength:
		return packet{}, errShort
	case b[0]>>5 != 1:
		return packet{}, errVersion
	case b[1]&flagAuth != 0:
		return packet{}, errAuth
	case b[3] < packetLength || int(b[3]) > len(b):
		return packet{}, errLength
	case b[2] == 0:
		return packet{}, errMultiplier
	case b[1]&flagMultipoint != 0:
		return packet{}, errMultipoint
	}
	p := packet{
		state:       sessionState(b[1] >> 6),
		diagnostic:  diagnostic(b[0] & 0x1f),
		poll:        b[1]&flagPoll != 0,
		final:       b[1]&flagFinal != 0,
		independent: b[1]&flagIndependent != 0,
		multiplier:  b[2],
		mine:        binary.BigEndian.Uint32(b[4:]),
		yours:       binary.BigEndian.Uint32(b[8:]),
		desiredTx:   microseconds(b[12:]),
		requiredRx:  microseconds(b[16:]),
	}
	if p.mine == 0 {
		return packet{}, errDiscriminator
	}
	if p.yours == 0 && p.state > down {
		return packet{}, errDiscriminator
	}
	return p, nil
}

// packetError says why a packet was dropped.
type packetError string

func (e packetError) Error() string { return string(e) }

const (
	errShort         packetError = "shorter than 24 bytes"
	errVersion       packetError = "version is not 1"
	errAuth          packetError = "authentication is not in use"
	errLength        packetError = "length field is wrong"
	errMultiplier    packetError = "detect multiplier is 0"
	errMultipoint    packetError = "multipoint bit is set"
	errDiscriminator packetError = "discriminator is 0"
)

func microseconds(b []byte) time.Duration {
	return time.Duration(binary.BigEndian.Uint32(b)) * time.Microsecond
}

// put encodes p into b. Echo is not supported: its interval is 0.
func (p packet) put(b *[packetLength]byte) {
	flags := byte(p.state) << 6
	if p.poll {
		flags |= flagPoll
	}
	if p.final {
		flags |= flagFinal
	}
	if p.independent {
		flags |= flagIndependent
	}
	b[0] = 1<<5 | byte(p.diagnostic)&0x1f
	b[1] = flags
	b[2] = p.multiplier
	b[3] = packetLength
	binary.BigEndian.PutUint32(b[4:], p.mine)
	binary.BigEndian.PutUint32(b[8:], p.yours)
	binary.BigEndian.PutUint32(b[12:], uint32(p.desiredTx.Microseconds()))
	binary.BigEndian.PutUint32(b[16:], uint32(p.requiredRx.Microseconds()))
	binary.BigEndian.PutUint32(b[20:], 0)
}
