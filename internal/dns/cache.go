package dns

import (
	"container/list"
	"sync"
	"time"

	wire "github.com/miekg/dns"
)

// Bounds of what is remembered: so many answers, of so many octets each, for
// so long.
const (
	maxAnswers     = 8192
	maxAnswerSize  = 2048
	maxAnswerTTL   = time.Hour
	maxNegativeTTL = 5 * time.Minute
)

// cacheKey tells questions apart that may be answered differently.
type cacheKey struct {
	forwarders string
	name       string // canonical
	kind       uint16
	do, cd     bool // RFC 3225, RFC 4035 §3.2.2
}

// cache remembers answers, and forgets those first that were not asked for.
type cache struct {
	mu      sync.Mutex
	answers map[cacheKey]*list.Element
	order   *list.List // of remembered, the last used first
}

type remembered struct {
	key    cacheKey
	packet []byte
	since  time.Time
	until  time.Time
}

func newCache() *cache {
	return &cache{answers: make(map[cacheKey]*list.Element), order: list.New()}
}

// get returns what was answered, its times to live less what has passed.
func (c *cache) get(key cacheKey, now time.Time) (*wire.Msg, bool) {
	c.mu.Lock()
	e, ok := c.answers[key]
	if ok && !now.Before(e.Value.(*remembered).until) {
		c.remove(e)
		ok = false
	}
	if !ok {
		c.mu.Unlock()
		return nil, false
	}
	c.order.MoveToFront(e)
	r := e.Value.(*remembered)
	c.mu.Unlock()
	m := new(wire.Msg)
	if m.Unpack(r.packet) != nil {
		return nil, false
	}
	passed := uint32(now.Sub(r.since) / time.Second)
	for _, h := range headers(m) {
		h.Ttl -= min(h.Ttl, passed)
	}
	return m, true
}

// put remembers an answer, if it may be.
func (c *cache) put(key cacheKey, m *wire.Msg, now time.Time) {
	ttl := lifetime(m)
	if ttl <= 0 {
		return
	}
	packet, err := m.Pack()
	if err != nil || len(packet) > maxAnswerSize {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.answers[key]; ok {
		c.remove(e)
	}
	c.answers[key] = c.order.PushFront(&remembered{key, packet, now, now.Add(ttl)})
	for c.order.Len() > maxAnswers {
		c.remove(c.order.Back())
	}
}

func (c *cache) remove(e *list.Element) {
	delete(c.answers, e.Value.(*remembered).key)
	c.order.Remove(e)
}

// lifetime is how long an answer may be remembered: as its records say, and
// one that there is nothing only if a zone says how long (RFC 2308 §5).
func lifetime(m *wire.Msg) time.Duration {
	if m.Truncated || m.Rcode != wire.RcodeSuccess && m.Rcode != wire.RcodeNameError {
		return 0
	}
	least, most := time.Duration(-1), maxAnswerTTL
	consider := func(seconds uint32) {
		if ttl := time.Duration(seconds) * time.Second; least < 0 || ttl < least {
			least = ttl
		}
	}
	for _, h := range headers(m) {
		consider(h.Ttl)
	}
	if m.Rcode == wire.RcodeNameError || len(m.Answer) == 0 {
		most = maxNegativeTTL
		said := false
		for _, rr := range m.Ns {
			if soa, ok := rr.(*wire.SOA); ok {
				consider(soa.Minttl)
				said = true
			}
		}
		if !said {
			return 0
		}
	}
	return min(least, most)
}

// headers are those of all records that live.
func headers(m *wire.Msg) []*wire.RR_Header {
	var all []*wire.RR_Header
	for _, section := range [][]wire.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range section {
			if h := rr.Header(); h.Rrtype != wire.TypeOPT {
				all = append(all, h)
			}
		}
	}
	return all
}
