package probe

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"time"

	"frond/internal/netns"
)

// Host is an address and the namespace that it lives in.
type Host struct {
	Name string
	NS   *netns.NS
	Addr netip.Addr
}

// Round is how one host's echo requests to another fared.
type Round struct {
	From, To Host
	Answered bool
	Time     time.Duration // the round trip, of the first request that was answered
	// Err is why From could not ask, or To could not listen: mostly that it
	// does not have its address.
	Err error
}

// retry is how long a request waits for its answer before the next is sent.
const retry = 200 * time.Millisecond

// Reach lets every host ask every other host of its address family for an
// echo over UDP, all at once, and again until all have answered or ctx ends.
// Requests and answers carry the hosts' own addresses. The rounds come in the
// order of the hosts.
func Reach(ctx context.Context, hosts []Host) []Round {
	return ReachSome(ctx, hosts, func(int, int) bool { return true })
}

// ReachSome is Reach where not every host asks every other: asks tells which
// do, by their places among the hosts.
func ReachSome(ctx context.Context, hosts []Host, asks func(from, to int) bool) []Round {
	m := &mesh{hosts: hosts, rounds: map[[2]int]*Round{}, all: make(chan struct{})}
	_, _ = rand.Read(m.id[:]) // never fails (crypto/rand)
	defer m.close()
	m.open()
	m.pair(asks)
	m.serve()
	if m.missing > 0 {
		m.askUntilAnswered(ctx)
	}
	return m.result()
}

// mesh is all hosts' sockets and what they heard.
type mesh struct {
	hosts   []Host
	id      [8]byte
	conns   []*net.UDPConn // by host; nil where errs tells why
	errs    []error
	readers sync.WaitGroup

	mu      sync.Mutex
	rounds  map[[2]int]*Round // by the indices of From and To
	missing int
	all     chan struct{} // closed when nothing is missing
}

func (m *mesh) open() {
	m.conns = make([]*net.UDPConn, len(m.hosts))
	m.errs = make([]error, len(m.hosts))
	for i, h := range m.hosts {
		m.errs[i] = h.NS.Do(func() (err error) {
			m.conns[i], err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(h.Addr, 0)))
			return err
		})
	}
}

// pair makes the rounds. Those that cannot be had are not waited for.
func (m *mesh) pair(asks func(from, to int) bool) {
	for i, from := range m.hosts {
		for j, to := range m.hosts {
			if i == j || from.Addr.Is4() != to.Addr.Is4() || !asks(i, j) {
				continue
			}
			round := &Round{From: from, To: to, Err: cmp.Or(m.errs[i], m.errs[j])}
			if round.Err == nil {
				m.missing++
			}
			m.rounds[[2]int{i, j}] = round
		}
	}
}

func (m *mesh) serve() {
	for i, conn := range m.conns {
		if conn != nil {
			m.readers.Go(func() { m.read(i) })
		}
	}
}

func (m *mesh) close() {
	for _, conn := range m.conns {
		if conn != nil {
			_ = conn.Close()
		}
	}
	m.readers.Wait()
}

func (m *mesh) askUntilAnswered(ctx context.Context) {
	tick := time.NewTicker(retry)
	defer tick.Stop()
	for {
		m.ask()
		select {
		case <-m.all:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// ask sends one request for each pair that has no answer yet. A request that
// cannot be sent is one that is not answered.
func (m *mesh) ask() {
	for _, pair := range m.unanswered() {
		request := m.encode(echo{request: true, from: pair[0], to: pair[1], sent: monotonic()})
		_, _ = m.conns[pair[0]].WriteTo(request, m.conns[pair[1]].LocalAddr())
	}
}

func (m *mesh) unanswered() [][2]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	var pairs [][2]int
	for pair, round := range m.rounds {
		if !round.Answered && round.Err == nil {
			pairs = append(pairs, pair)
		}
	}
	return pairs
}

// read answers the requests to a host and notes the answers to its own.
func (m *mesh) read(host int) {
	var buf [64]byte
	for {
		n, sender, err := m.conns[host].ReadFromUDPAddrPort(buf[:])
		if err != nil {
			return // closed
		}
		switch e, ok := m.decode(buf[:n]); {
		case !ok:
		case e.request && e.to == host:
			e.request = false
			_, _ = m.conns[host].WriteToUDPAddrPort(m.encode(e), sender)
		case !e.request && e.from == host:
			m.answered(e)
		}
	}
}

func (m *mesh) answered(e echo) {
	m.mu.Lock()
	defer m.mu.Unlock()
	round := m.rounds[[2]int{e.from, e.to}]
	if round == nil || round.Answered {
		return
	}
	round.Answered, round.Time = true, monotonic()-e.sent
	if m.missing--; m.missing == 0 {
		close(m.all)
	}
}

func (m *mesh) result() []Round {
	m.mu.Lock()
	defer m.mu.Unlock()
	var rounds []Round
	for i := range m.hosts {
		for j := range m.hosts {
			if round := m.rounds[[2]int{i, j}]; round != nil {
				rounds = append(rounds, *round)
			}
		}
	}
	return rounds
}

// echo is a request, and, returned, its own answer.
type echo struct {
	request  bool
	from, to int
	sent     time.Duration
}

func (m *mesh) encode(e echo) []byte {
	b := append([]byte(nil), m.id[:]...)
	kind := byte(0)
	if e.request {
		kind = 1
	}
	b = append(b, kind)
	b = binary.LittleEndian.AppendUint32(b, uint32(e.from))
	b = binary.LittleEndian.AppendUint32(b, uint32(e.to))
	return binary.LittleEndian.AppendUint64(b, uint64(e.sent))
}

func (m *mesh) decode(b []byte) (e echo, ok bool) {
	if len(b) != 25 || [8]byte(b) != m.id {
		return echo{}, false
	}
	return echo{
		request: b[8] == 1,
		from:    int(binary.LittleEndian.Uint32(b[9:])),
		to:      int(binary.LittleEndian.Uint32(b[13:])),
		sent:    time.Duration(binary.LittleEndian.Uint64(b[17:])),
	}, true
}
