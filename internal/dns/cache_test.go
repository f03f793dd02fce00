package dns

import (
	"fmt"
	"strings"
	"testing"
	"time"

	wire "github.com/miekg/dns"
)

func rr(t testing.TB, text string) wire.RR {
	t.Helper()
	r, err := wire.NewRR(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// message is an answer of these records: those after "--" in its authority.
func message(t testing.TB, name string, rcode int, records ...string) *wire.Msg {
	m := new(wire.Msg)
	m.SetQuestion(name, wire.TypeA)
	m.Response, m.Rcode = true, rcode
	into := &m.Answer
	for _, text := range records {
		if text == "--" {
			into = &m.Ns
			continue
		}
		*into = append(*into, rr(t, text))
	}
	return m
}

func TestLifetime(t *testing.T) {
	const soa = "example. 600 IN SOA ns. host. 1 2 3 4 60"
	truncated := message(t, "a.example.", wire.RcodeSuccess, "a.example. 300 IN A 192.0.2.1")
	truncated.Truncated = true
	withOptions := message(t, "a.example.", wire.RcodeSuccess, "a.example. 300 IN A 192.0.2.1")
	withOptions.SetEdns0(1232, true) // whose TTL is none
	for _, test := range []struct {
		name string
		m    *wire.Msg
		want time.Duration
	}{
		{"one", message(t, "a.example.", wire.RcodeSuccess, "a.example. 300 IN A 192.0.2.1"), 300 * time.Second},
		{"the least", message(t, "a.example.", wire.RcodeSuccess, "a.example. 300 IN CNAME b.example.", "b.example. 20 IN A 192.0.2.1"), 20 * time.Second},
		{"zero", message(t, "a.example.", wire.RcodeSuccess, "a.example. 0 IN A 192.0.2.1"), 0},
		{"a week", message(t, "a.example.", wire.RcodeSuccess, "a.example. 604800 IN A 192.0.2.1"), time.Hour},
		{"options", withOptions, 300 * time.Second},
		{"truncated", truncated, 0},
		{"no name", message(t, "a.example.", wire.RcodeNameError, "--", soa), time.Minute},
		{"no data", message(t, "a.example.", wire.RcodeSuccess, "--", soa), time.Minute},
		{"no name, for long", message(t, "a.example.", wire.RcodeNameError, "--", "example. 86400 IN SOA ns. host. 1 2 3 4 86400"), 5 * time.Minute},
		{"no name, without a zone", message(t, "a.example.", wire.RcodeNameError), 0},
		{"no data, without a zone", message(t, "a.example.", wire.RcodeSuccess), 0},
		{"failure", message(t, "a.example.", wire.RcodeServerFailure, "--", soa), 0},
		{"refused", message(t, "a.example.", wire.RcodeRefused), 0},
	} {
		if got := lifetime(test.m); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

func TestCache(t *testing.T) {
	start := time.Unix(1_000_000_000, 0)
	c := newCache()
	key := cacheKey{name: "a.example.", kind: wire.TypeA}
	c.put(key, message(t, "a.example.", wire.RcodeSuccess, "a.example. 300 IN A 192.0.2.1"), start)
	for _, test := range []struct {
		passed time.Duration
		ttl    uint32
		there  bool
	}{{0, 300, true}, {1500 * time.Millisecond, 299, true}, {299 * time.Second, 1, true}, {300 * time.Second, 0, false}} {
		m, there := c.get(key, start.Add(test.passed))
		if there != test.there || there && m.Answer[0].Header().Ttl != test.ttl {
			t.Errorf("after %v: %v %v", test.passed, there, m)
		}
	}
	if _, there := c.get(cacheKey{name: "a.example.", kind: wire.TypeA, do: true}, start); there {
		t.Error("an answer without signatures is given to who asks for them")
	}
	if len(c.answers) != 0 || c.order.Len() != 0 {
		t.Errorf("what is over is kept: %d, %d", len(c.answers), c.order.Len())
	}
}

func TestCacheIsBounded(t *testing.T) {
	now := time.Unix(1_000_000_000, 0)
	c := newCache()
	nth := func(i int) cacheKey { return cacheKey{name: fmt.Sprint(i)} }
	m := message(t, "a.example.", wire.RcodeSuccess, "a.example. 300 IN A 192.0.2.1")
	for i := range maxAnswers + 100 {
		c.put(nth(i), m, now)
		c.get(nth(0), now) // is asked for again and again
	}
	if len(c.answers) != maxAnswers || c.order.Len() != maxAnswers {
		t.Errorf("%d answers, %d in order", len(c.answers), c.order.Len())
	}
	for i, want := range map[int]bool{0: true, 1: false, 100: false, 101: true, maxAnswers + 99: true} {
		if _, there := c.get(nth(i), now); there != want {
			t.Errorf("number %d: %v", i, there)
		}
	}
	long := message(t, "a.example.", wire.RcodeSuccess)
	for range maxAnswerSize / 200 {
		long.Answer = append(long.Answer, rr(t, `a.example. 300 IN TXT "`+strings.Repeat("x", 220)+`"`))
	}
	c.put(nth(-1), long, now)
	if _, there := c.get(nth(-1), now); there {
		t.Error("a long answer is kept")
	}
}
