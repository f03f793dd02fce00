package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	wire "github.com/miekg/dns"
)

const (
	port = 53
	// udpSize is the largest datagram that is neither cut into fragments nor
	// lost on the way (RFC 9715 §3.1), octets.
	udpSize = 1232
	// attemptTime is how long one name server may take, resolveTime all of them:
	// less than a guest waits.
	attemptTime = 1200 * time.Millisecond
	resolveTime = 4500 * time.Millisecond
	// restTime is for how long one that does not answer is asked last.
	restTime = 10 * time.Second
	// deadTime is for how long after the last attempt none counts as dead.
	deadTime = time.Minute
	// maxStrays are datagrams that answer something else.
	maxStrays = 64
)

var errNoAnswer = errors.New("no name server answers")

// pool is the name servers outside, by the lists that segments have of them.
type pool struct {
	dial  func(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error)
	cache *cache

	mu      sync.Mutex
	flights map[cacheKey]*flight
	lists   map[string][]netip.Addr
	servers map[netip.Addr]*health
}

// flight is a question under way, for all who ask it meanwhile. It goes on as
// long as one of them waits, whoever was the first.
type flight struct {
	askers int // guarded by the pool's mu
	cancel context.CancelFunc
	done   chan struct{} // closed when there is what follows
	packet []byte
	err    error
}

// health is what is known of a name server.
type health struct {
	failures int       // since it answered last
	since    time.Time // of the first of them
	last     time.Time // attempt that failed
	rest     time.Time // until then it is asked last
}

func newPool(dial func(context.Context, string, netip.AddrPort) (net.Conn, error)) *pool {
	return &pool{
		dial: dial, cache: newCache(), flights: make(map[cacheKey]*flight),
		lists: make(map[string][]netip.Addr), servers: make(map[netip.Addr]*health),
	}
}

func listKey(forwarders []netip.Addr) string { return fmt.Sprint(forwarders) }

// keep forgets all name servers that no list names.
func (p *pool) keep(lists [][]netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.lists)
	for _, l := range lists {
		p.lists[listKey(l)] = l
	}
	for a := range p.servers {
		if !slices.ContainsFunc(lists, func(l []netip.Addr) bool { return slices.Contains(l, a) }) {
			delete(p.servers, a)
		}
	}
}

// dead tells since when no name server of a list answers.
func (p *pool) dead(forwarders []netip.Addr, now time.Time) (since time.Time, dead bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range forwarders {
		h := p.servers[a]
		if h == nil || h.failures < 2 || now.Sub(h.last) > deadTime {
			return time.Time{}, false
		}
		if since.Before(h.since) {
			since = h.since
		}
	}
	return since, len(forwarders) > 0
}

// resolve answers a question from memory or by asking. Equal questions that
// come meanwhile wait for one answer: that leaves forgers less to guess at.
func (p *pool) resolve(ctx context.Context, forwarders []netip.Addr, q wire.Question, do, cd bool) (*wire.Msg, error) {
	key := cacheKey{listKey(forwarders), wire.CanonicalName(q.Name), q.Qtype, do, cd}
	if m, ok := p.cache.get(key, time.Now()); ok {
		return m, nil
	}
	f := p.join(ctx, key, func(ctx context.Context) ([]byte, error) {
		m, err := p.ask(ctx, forwarders, q, do, cd)
		if err != nil {
			return nil, err
		}
		p.cache.put(key, m, time.Now())
		return m.Pack()
	})
	select {
	case <-f.done:
	case <-ctx.Done():
		p.leave(key, f)
		return nil, ctx.Err()
	}
	if f.err != nil {
		return nil, f.err
	}
	m := new(wire.Msg) // each has its own: they put their names into it
	if err := m.Unpack(f.packet); err != nil {
		return nil, err
	}
	return m, nil
}

// join makes its caller one of those who wait for a question, which is begun
// if it is not under way.
func (p *pool) join(ctx context.Context, key cacheKey, ask func(context.Context) ([]byte, error)) *flight {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f := p.flights[key]; f != nil {
		f.askers++
		return f
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), resolveTime)
	f := &flight{askers: 1, cancel: cancel, done: make(chan struct{})}
	p.flights[key] = f
	go func() {
		defer close(f.done)
		defer cancel()
		f.packet, f.err = ask(ctx)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.land(key, f)
	}()
	return f
}

// leave gives a question up for one who waits. The last one ends it.
func (p *pool) leave(key cacheKey, f *flight) {
	p.mu.Lock()
	f.askers--
	last := f.askers == 0
	if last {
		p.land(key, f)
	}
	p.mu.Unlock()
	if last {
		f.cancel()
		<-f.done
	}
}

// land has nobody join a question any more.
func (p *pool) land(key cacheKey, f *flight) {
	if p.flights[key] == f {
		delete(p.flights, key)
	}
}

// ask asks one name server after the other until one has an answer.
func (p *pool) ask(ctx context.Context, forwarders []netip.Addr, q wire.Question, do, cd bool) (*wire.Msg, error) {
	var refused *wire.Msg
	last := errNoAnswer
	for range 2 {
		for _, a := range p.order(forwarders, time.Now()) {
			if ctx.Err() != nil {
				break
			}
			m, err := p.askOne(ctx, a, q, do, cd)
			if ctx.Err() == nil || err == nil {
				p.note(a, err, time.Now())
			}
			switch {
			case err != nil:
				last = err
			case m.Rcode == wire.RcodeSuccess || m.Rcode == wire.RcodeNameError:
				return m, nil
			case m.Rcode <= 0xf:
				refused = m // perhaps another one is more willing
			}
		}
		if refused != nil {
			return refused, nil
		}
	}
	return nil, last
}

// order is in which order to ask: those that do not answer come last. Each
// time their rest is over one question tries them in their place.
func (p *pool) order(forwarders []netip.Addr, now time.Time) []netip.Addr {
	p.mu.Lock()
	defer p.mu.Unlock()
	var first, then []netip.Addr
	for _, a := range forwarders {
		h := p.servers[a]
		if h != nil && h.failures > 0 && now.Before(h.rest) {
			then = append(then, a)
			continue
		}
		if h != nil && h.failures > 0 {
			h.rest = now.Add(restTime)
		}
		first = append(first, a)
	}
	return append(first, then...)
}

func (p *pool) note(a netip.Addr, err error, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		delete(p.servers, a)
		return
	}
	h := p.servers[a]
	if h == nil {
		h = &health{since: now}
		p.servers[a] = h
	}
	h.failures++
	h.last, h.rest = now, now.Add(restTime)
}

// askOne asks one name server: in a datagram, in a stream where the answer is
// too long for that, and without EDNS one that does not know it (RFC 6891 §6.2.2).
func (p *pool) askOne(ctx context.Context, a netip.Addr, q wire.Question, do, cd bool) (*wire.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTime)
	defer cancel()
	query := new(wire.Msg)
	query.Id = wire.Id()
	query.RecursionDesired, query.CheckingDisabled = true, cd
	query.Question = []wire.Question{q}
	query.SetEdns0(udpSize, do)
	m, err := p.exchange(ctx, "udp", a, query)
	if err == nil && m.Rcode == wire.RcodeFormatError && m.IsEdns0() == nil {
		query.Id, query.Extra = wire.Id(), nil
		m, err = p.exchange(ctx, "udp", a, query)
	}
	if err == nil && m.Truncated {
		query.Id = wire.Id()
		m, err = p.exchange(ctx, "tcp", a, query)
	}
	return m, err
}

// exchange sends a query from a port of its own, which the kernel draws at
// random, and waits for what answers it.
func (p *pool) exchange(ctx context.Context, network string, a netip.Addr, query *wire.Msg) (*wire.Msg, error) {
	conn, err := p.dial(ctx, network, netip.AddrPortFrom(a, port))
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	packet, err := query.Pack()
	if err != nil {
		return nil, err
	}
	if network == "tcp" {
		return overStream(conn, query, packet)
	}
	if _, err := conn.Write(packet); err != nil {
		return nil, err
	}
	buf := make([]byte, udpSize)
	for range maxStrays {
		n, err := conn.Read(buf)
		if err != nil {
			return nil, err
		}
		m := new(wire.Msg)
		if m.Unpack(buf[:n]) == nil && answers(m, query) {
			return m, nil
		}
	}
	return nil, fmt.Errorf("%d answers of %s are to other questions", maxStrays, a)
}

func overStream(conn net.Conn, query *wire.Msg, packet []byte) (*wire.Msg, error) {
	if err := writeStream(conn, packet); err != nil {
		return nil, err
	}
	answer, err := readStream(conn)
	if err != nil {
		return nil, err
	}
	m := new(wire.Msg)
	if err := m.Unpack(answer); err != nil {
		return nil, err
	}
	if !answers(m, query) {
		return nil, errors.New("the answer is to another question")
	}
	return m, nil
}

// answers tells whether a message answers a query (RFC 5452 §9.1). Where it
// came from the socket knows.
func answers(m, query *wire.Msg) bool {
	if !m.Response || m.Id != query.Id || m.Opcode != wire.OpcodeQuery {
		return false
	}
	if len(m.Question) == 0 {
		return m.Rcode == wire.RcodeFormatError
	}
	q, asked := m.Question[0], query.Question[0]
	return len(m.Question) == 1 && q.Qtype == asked.Qtype && q.Qclass == asked.Qclass && strings.EqualFold(q.Name, asked.Name)
}

// writeStream and readStream carry messages with their length before them
// (RFC 1035 §4.2.2).
func writeStream(w io.Writer, packet []byte) error {
	if len(packet) > wire.MaxMsgSize-1 {
		return errors.New("the message is too long")
	}
	_, err := w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(packet))), packet...))
	return err
}

func readStream(r io.Reader) ([]byte, error) {
	var length [2]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	packet := make([]byte, binary.BigEndian.Uint16(length[:]))
	_, err := io.ReadFull(r, packet)
	return packet, err
}
