package native

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	seam "frond/internal/bgp"
)

// The kernel drops segments whose signature is not right before anybody hears
// of them, and counts them, but not by peer. So while a peer gives no answer, a
// packet socket on its port looks at the segments by which it begins or answers
// connections: a key that differs is told apart from silence.

// faultTime is how long the last bad segment of a peer tells of its key: peers
// try again after redialMax and dialTimeout at the latest.
const faultTime = 3 * (redialMax + dialTimeout)

// Whoever is on the cable can send as many segments as it carries: of those in
// each witnessSpan, witnessMost are looked at, which is more than a peer sends
// that tries with two keys.
const (
	witnessSpan = 250 * time.Millisecond
	witnessMost = 4
)

// pace lets so many through in each span.
type pace struct {
	since time.Time
	count int
}

func (p *pace) allow(now time.Time) bool {
	if now.Sub(p.since) >= witnessSpan {
		*p = pace{since: now}
	}
	p.count++
	return p.count <= witnessMost
}

// witnessed is what a segment of the peer tells of its key.
type witnessed struct {
	fault seam.KeyFault
	at    time.Time
}

// startWitness begins to look, once. It ends with the machine's work, or by
// stopWitness.
func (m *machine) startWitness(ctx context.Context) {
	if m.stopWitness != nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	m.stopWitness = cancel
	m.work.Go(func() {
		if err := m.witness(ctx); err != nil && ctx.Err() == nil {
			m.log.Warn("cannot look at how a peer signs its segments: a wrong password is not told apart from silence",
				"peer", m.peer.Addr, "error", err)
		}
	})
}

// endWitness stops looking: the peer has answered.
func (m *machine) endWitness() {
	if m.stopWitness != nil {
		m.stopWitness()
		m.stopWitness = nil
	}
	m.seen = witnessed{}
}

// observe takes note of a segment of the peer. Only what is new is told.
func (m *machine) observe(w witnessed) {
	known := m.fault()
	m.seen = w
	if w.fault != "" && w.fault != known && m.session == nil && len(m.candidates) == 0 && time.Now().After(m.idle) {
		m.report(stateChanged{m, seam.Connect, words(w.fault), w.fault})
	}
}

// fault is what is known to be wrong with the peer's key.
func (m *machine) fault() seam.KeyFault {
	if time.Since(m.seen.at) > faultTime {
		return ""
	}
	return m.seen.fault
}

func (m *machine) witness(ctx context.Context) error {
	port := &net.Interface{Name: m.peer.Addr.Zone()}
	var err error
	if port.Index, err = portIndex(port.Name); err != nil {
		return err
	}
	filter, err := openings(m.port)
	if err != nil {
		return err
	}
	conn, err := packet.Listen(port, packet.Datagram, unix.ETH_P_IPV6, &packet.Config{Filter: filter})
	if err != nil {
		return fmt.Errorf("open packet socket on %s: %w", port.Name, err)
	}
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	defer func() { _ = conn.Close() }()
	buf := make([]byte, 2048)
	var looks pace
	for {
		n, _, err := conn.ReadFrom(buf)
		if err != nil {
			return fmt.Errorf("read from packet socket on %s: %w", port.Name, err)
		}
		s, ok := parseSegment(buf[:n])
		if !ok || s.from != m.peer.Addr.WithZone("") || !looks.allow(time.Now()) {
			continue
		}
		select {
		case m.heard <- witnessed{s.fault(*m.keys()), time.Now()}:
		case <-ctx.Done():
			return nil
		}
	}
}

// openings passes TCP segments over IPv6 with SYN set, from or to a port: few,
// whatever else the cable carries.
func openings(port uint16) ([]bpf.RawInstruction, error) {
	const (
		nextHeader = 6
		source     = ipv6Header
		target     = ipv6Header + 2
		flags      = ipv6Header + 13
	)
	filter, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: nextHeader, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: protocolTCP, SkipTrue: 7},
		bpf.LoadAbsolute{Off: flags, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpBitsNotSet, Val: flagSYN, SkipTrue: 5},
		bpf.LoadAbsolute{Off: source, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(port), SkipTrue: 2},
		bpf.LoadAbsolute{Off: target, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(port), SkipTrue: 1},
		bpf.RetConstant{Val: 2048},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		return nil, fmt.Errorf("assemble filter: %w", err)
	}
	return filter, nil
}
