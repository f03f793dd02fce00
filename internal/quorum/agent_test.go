package quorum

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"frond/internal/gateway"
)

const ms = time.Millisecond

// three are the voters of a cluster, and two members that are none.
func three() []Member {
	return []Member{{1, "a", Voter}, {2, "b", Voter}, {3, "c", Voter}, {4, "d", StandBy}, {5, "e", Spare}}
}

// say is what members say who all take the same ones for the voters.
func say(members []Member, words map[string]word) map[string]word {
	all := make(map[string]word)
	for address, w := range words {
		w.voters = votersOf(members)
		all[address] = w
	}
	return all
}

func TestTally(t *testing.T) {
	named := func(leader string, sent time.Duration) word { return word{leader: leader, sent: sent} }
	shuffled := []Member{{3, "c", Voter}, {5, "e", Spare}, {1, "a", Voter}, {2, "b", Voter}}
	four := append(three(), Member{6, "f", Voter})
	moved := []Member{{3, "c", Voter}, {4, "d", Voter}, {5, "e", Voter}}
	for _, test := range []struct {
		name  string
		words []map[string]word
		want  round
	}{
		{"nobody has said anything", nil, round{}},
		{"the leader alone", []map[string]word{say(three(), map[string]word{"a": named("a", 9)})}, round{}},
		{"a majority counts from its first question", []map[string]word{say(three(), map[string]word{"a": named("a", 9), "b": named("a", 5)})}, round{"a", 5}},
		{"the latest that are a majority", []map[string]word{say(three(), map[string]word{"a": named("a", 9), "b": named("a", 5), "c": named("a", 7)})}, round{"a", 7}},
		{"without the leader's own word", []map[string]word{say(three(), map[string]word{"b": named("a", 5), "c": named("a", 7)})}, round{"a", 5}},
		{"two that claim it", []map[string]word{say(three(), map[string]word{"a": named("a", 9), "b": named("b", 9), "c": named("", 9)})}, round{}},
		{"one of two is believed", []map[string]word{say(three(), map[string]word{"a": named("a", 9), "b": named("b", 8), "c": named("b", 7)})}, round{"b", 7}},
		{"those without a vote say nothing", []map[string]word{say(three(), map[string]word{"a": named("a", 9), "d": named("a", 9), "e": named("a", 9)})}, round{}},
		{"a leader without a vote", []map[string]word{say(three(), map[string]word{"a": named("d", 9), "b": named("d", 9)})}, round{}},
		{"strangers", []map[string]word{say(three(), map[string]word{"a": named("x", 9), "b": named("x", 9), "x": named("x", 9)})}, round{}},
		{"half is no majority", []map[string]word{say(four, map[string]word{"a": named("a", 9), "b": named("a", 9)})}, round{}},
		{"the only one", []map[string]word{say([]Member{{1, "a", Voter}}, map[string]word{"a": named("a", 9)})}, round{"a", 9}},
		{"who was not asked for the voters", []map[string]word{{"a": named("a", 9), "b": named("a", 9)}}, round{}},
		{"the order says nothing", []map[string]word{say(three(), map[string]word{"a": named("a", 9)}), say(shuffled, map[string]word{"b": named("a", 5)})}, round{"a", 5}},
		{"one has heard of a new voter, one has not", []map[string]word{
			say(three(), map[string]word{"a": named("c", 9)}), say(four, map[string]word{"b": named("c", 9)})}, round{}},
		{"the later of two majorities", []map[string]word{
			say(three(), map[string]word{"a": named("c", 6), "b": named("c", 6)}), say(moved, map[string]word{"c": named("d", 8), "d": named("d", 7)})}, round{"d", 7}},
		{"another member at the same address", []map[string]word{
			say(three(), map[string]word{"a": named("a", 9)}), say([]Member{{1, "a", Voter}, {9, "b", Voter}, {3, "c", Voter}}, map[string]word{"b": named("a", 9)})}, round{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			all := make(map[string]word)
			for _, words := range test.words {
				maps.Copy(all, words)
			}
			if got := tally(all); got != test.want {
				t.Errorf("%+v, want %+v", got, test.want)
			}
		})
	}
}

// alone is an agent that hears itself named, each question answered at once.
type alone struct {
	*agent
	t   *testing.T
	now time.Duration
}

func newAlone(t *testing.T) *alone {
	a := newAgent("leaf1", DefaultTiming, func() time.Time { return time.Unix(1000, 0) })
	a.self = "a"
	a.segments = []gateway.Segment{{Name: "blue", Nodes: []string{"leaf1", "leaf2"}}, {Name: "red", Nodes: []string{"leaf2"}}}
	return &alone{a, t, 0}
}

// named has a leader be named until then.
func (a *alone) named(leader string, until time.Duration) {
	for ; a.now < until; a.now += 100 * ms {
		a.hear(round{leader, a.now}, a.now)
		a.step()
	}
}

// silent has nobody answer until then.
func (a *alone) silent(until time.Duration) {
	for ; a.now < until; a.now += 100 * ms {
		a.step()
	}
}

func (a *alone) step() {
	a.settle(a.now)
	if list, due := a.due(a.now); due {
		a.kernel.Acknowledge(list, nil, a.now)
	}
}

func (a *alone) holding(what string, want bool) {
	a.t.Helper()
	if got := len(a.holdings(a.now)) == 1; got != want {
		a.t.Errorf("%s: holds is %t after %s", what, got, a.now)
	}
}

func TestClaim(t *testing.T) {
	const (
		nobody = ""  // answers
		self   = "a" // this node's member
		other  = "b"
	)
	type moment struct {
		named string
		until time.Duration
		holds bool
	}
	for _, test := range []struct {
		name  string
		steps []moment
	}{
		{"waits for a lease", []moment{{self, 3000 * ms, false}, {self, 3200 * ms, true}}},
		{"begins anew after a gap", []moment{
			{self, 2500 * ms, false},
			{nobody, 3000 * ms, false},
			{self, 5900 * ms, false}, // another may have been leader at 2.5 s
			{self, 6200 * ms, true},
		}},
		{"a short gap is none", []moment{{self, 2500 * ms, false}, {nobody, 2800 * ms, false}, {self, 3200 * ms, true}}},
		{"ends when another is named", []moment{{self, 2500 * ms, false}, {other, 2600 * ms, false}, {self, 5500 * ms, false}, {self, 5900 * ms, true}}},
		{"ends with its lease", []moment{
			{self, 3500 * ms, true},
			{nobody, 6300 * ms, true}, // the last question was sent at 3.4 s
			{nobody, 6400 * ms, false},
			{self, 9300 * ms, false}, // a lease of another may last
		}},
		{"a holder goes on after a moment of silence", []moment{{self, 3500 * ms, true}, {nobody, 5400 * ms, true}, {self, 6700 * ms, true}}},
		{"a holder waits after a long silence", []moment{
			{self, 3500 * ms, true},
			{nobody, 5600 * ms, true},
			{self, 8500 * ms, false}, // another may have waited
			{self, 8800 * ms, true},
		}},
		{"named again for a moment, prolongs nothing", []moment{
			{self, 3500 * ms, true},
			{other, 4500 * ms, true}, // and waits from here on
			{self, 4700 * ms, true},  // which the other does not notice
			{other, 6400 * ms, false},
		}},
		{"named again for a while, goes on", []moment{{self, 3500 * ms, true}, {other, 4500 * ms, true}, {self, 5200 * ms, true}, {other, 6400 * ms, true}}},
		{"named again at last, goes on", []moment{{self, 3500 * ms, true}, {other, 5400 * ms, true}, {self, 9000 * ms, true}}},
		{"keeps what it has while another is named, for its lease", []moment{{self, 3500 * ms, true}, {other, 6200 * ms, true}, {other, 6400 * ms, false}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := newAlone(t)
			for _, m := range test.steps {
				if m.named == nobody {
					a.silent(m.until)
				} else {
					a.named(m.named, m.until)
				}
				a.holding(fmt.Sprintf("%q named", m.named), m.holds)
			}
		})
	}
	t.Run("old words prolong nothing", func(t *testing.T) {
		a := newAlone(t)
		a.named(self, 3500*ms)
		for ; a.now < 6400*ms; a.now += 100 * ms {
			a.hear(round{self, 3400 * ms}, a.now)
			a.step()
		}
		a.holding("the lease is over", false)
	})
	for name, retire := range map[string]func(*agent){
		"drained":          func(a *agent) { a.drained = true },
		"leaving":          func(a *agent) { a.leaving = true },
		"takes no part":    func(a *agent) { a.segments[0].Nodes = []string{"leaf2"} },
		"no such segments": func(a *agent) { a.segments = nil },
	} {
		t.Run(name, func(t *testing.T) {
			a := newAlone(t)
			retire(a.agent)
			a.named(self, 6000*ms)
			a.holding("it never claims", false)
			if a.unready() == nil {
				t.Error("it is ready")
			}
		})
	}
}

func TestHoldings(t *testing.T) {
	a := newAlone(t)
	a.named("a", 3200*ms)
	want := []gateway.Holding{{Segment: "blue", Lifetime: time.Second, Before: 3100*ms + 900*ms, Term: 1000, Since: time.Unix(1000, 0), Why: "database leader"}}
	if diff := cmp.Diff(want, a.holdings(a.now)); diff != "" {
		t.Errorf("holdings (-want +got):\n%s", diff)
	}
	a.silent(5900 * ms)
	want[0].Lifetime, want[0].Before = 0, 0 // nobody has answered for long
	if diff := cmp.Diff(want, a.holdings(a.now)); diff != "" {
		t.Errorf("after a silence (-want +got):\n%s", diff)
	}
}

// By hash, a gateway that another node should have and does not ask for ends
// with its lease. Until then it does not keep others from longer lifetimes.
func TestOneThatFadesHoldsUpNoOther(t *testing.T) {
	a := newAlone(t)
	a.spread = ByHash
	a.segments = []gateway.Segment{{Name: "blue", Nodes: []string{"leaf1"}}, {Name: "red", Nodes: []string{"leaf1"}}}
	a.owners = map[string]string{"blue": "a", "red": "a"}
	a.named("a", 3500*ms)
	a.owners = map[string]string{"blue": "b", "red": "a"}
	given := a.now
	for ; a.now < 7000*ms; a.now += 100 * ms {
		a.hear(round{"a", a.now}, a.now)
		a.settle(a.now)
		list, due := a.due(a.now)
		if due {
			a.kernel.Acknowledge(list, nil, a.now)
		}
		for _, h := range list {
			if due && h.Segment == "red" && h.Lifetime > 0 {
				given = a.now
			}
		}
		if a.now >= given+time.Second {
			t.Fatalf("after %s, red was given no lifetime since %s", a.now, given)
		}
	}
	if a.claims["blue"] != nil || a.claims["red"] == nil {
		t.Errorf("in the end there are %+v", a.claims)
	}
}

func TestTokens(t *testing.T) {
	giver := func(t *testing.T) *alone {
		a := newAlone(t)
		a.named("a", 3500*ms)
		return a
	}
	t.Run("are given once, when the kernel has let go", func(t *testing.T) {
		a := giver(t)
		a.letGo([]string{"blue", "red", "none"}, a.now)
		if _, ready := a.tokens([]string{"blue"}, a.now); ready {
			t.Error("the kernel has it yet")
		}
		a.step()
		for _, want := range []map[string]Token{{"blue": {100 * ms, 1000}}, {}} {
			if got, ready := a.tokens([]string{"blue", "red", "none"}, a.now); !ready || !cmp.Equal(got, want) {
				t.Errorf("%+v (%t), want %+v", got, ready, want)
			}
		}
		a.named("a", 6400*ms)
		a.holding("it waits as everybody does", false)
	})
	t.Run("are not given while the kernel refuses", func(t *testing.T) {
		a := giver(t)
		a.letGo([]string{"blue"}, a.now)
		list, _ := a.due(a.now)
		a.kernel.Acknowledge(list, errors.New("no"), a.now)
		if _, ready := a.tokens([]string{"blue"}, a.now); ready {
			t.Error("a token for what may be there")
		}
		if _, due := a.due(a.now); due {
			t.Error("tries again at once")
		}
		if list, due := a.due(a.kernel.Wake(a.now)); !due || len(list) > 0 {
			t.Errorf("does not try again: %v", list)
		}
	})

	heir := func(t *testing.T) *alone {
		a := newAlone(t)
		a.named("b", 1000*ms)
		return a
	}
	t.Run("are asked for when the claim is old enough", func(t *testing.T) {
		a := heir(t)
		a.named("a", 1500*ms)
		if q, ok := a.ask(a.now); ok {
			t.Errorf("asks too early: %+v", q)
		}
		a.named("a", 1600*ms)
		want := question{"b", []string{"blue"}, a.now}
		if got, ok := a.ask(a.now); !ok || !cmp.Equal(got, want, cmp.AllowUnexported(question{})) {
			t.Errorf("%+v, want %+v", got, want)
		}
		if _, ok := a.ask(a.now + questionPause - 1); ok {
			t.Error("asks again at once")
		}
		if _, ok := a.ask(a.now + questionPause); !ok {
			t.Error("does not ask again")
		}
	})
	token := map[string]Token{"blue": {300 * ms, 2000}}
	for _, test := range []struct {
		name   string
		change func(*alone, *question) map[string]Token
		want   bool
	}{
		{"in time", func(*alone, *question) map[string]Token { return token }, true},
		{"none", func(*alone, *question) map[string]Token { return nil }, false},
		{"of another segment", func(*alone, *question) map[string]Token { return map[string]Token{"red": {}} }, false},
		{"too old", func(*alone, *question) map[string]Token { return map[string]Token{"blue": {2100 * ms, 2000}} }, false},
		{"from the future", func(*alone, *question) map[string]Token { return map[string]Token{"blue": {-ms, 2000}} }, false},
		{"too late", func(a *alone, _ *question) map[string]Token {
			a.named("a", 1700*ms+1800*ms)
			return token
		}, false},
		{"for a claim that began again", func(a *alone, _ *question) map[string]Token {
			a.named("b", a.now+100*ms)
			a.named("a", a.now+600*ms)
			return token
		}, false},
		{"drained meanwhile", func(a *alone, _ *question) map[string]Token {
			a.drained = true
			return token
		}, false},
		{"answers have stopped", func(a *alone, _ *question) map[string]Token {
			a.silent(a.now + 400*ms)
			a.now += 600 * ms
			return token
		}, false},
	} {
		t.Run("are used: "+test.name, func(t *testing.T) {
			a := heir(t)
			a.named("a", 1700*ms)
			q, ok := a.ask(a.now)
			if !ok {
				t.Fatal("it does not ask")
			}
			tokens := test.change(a, &q)
			held := a.claims["blue"] != nil && a.claims["blue"].held
			a.inherit(q, tokens, a.now)
			got := a.claims["blue"] != nil && a.claims["blue"].held
			if !held && got != test.want {
				t.Errorf("held is %t", got)
			}
			if got && test.want && a.claims["blue"].term != 2001 {
				t.Errorf("term %d does not follow 2000", a.claims["blue"].term)
			}
		})
	}
}

func TestResume(t *testing.T) {
	a := newAlone(t)
	a.named("a", 3500*ms)
	left := a.remember()
	for _, test := range []struct {
		after time.Duration
		want  bool
	}{{100 * ms, true}, {2799 * ms, true}, {2800 * ms, false}, {-4000 * ms, false}} {
		next := newAlone(t)
		next.now = 3500*ms + test.after
		next.resume(left, next.now)
		list, _ := next.due(next.now)
		if got := len(list) == 1 && list[0].Term == 1000; got != test.want {
			t.Errorf("%s later it goes on with %+v", test.after, list)
		}
	}
	next := newAlone(t)
	next.segments = nil
	next.resume(left, 3500*ms)
	if len(next.claims) > 0 {
		t.Error("it goes on with a segment that is none any more")
	}
}

func TestReport(t *testing.T) {
	name := func(address string) string { return "node " + address }
	a := newAlone(t)
	check := func(what, holder, next, why string, conditions int) {
		t.Helper()
		r := a.report(a.now, name, "")
		if e := r.Gateways[0]; e.Segment != "blue" || e.Holder != holder || e.Next != next || e.Why != why {
			t.Errorf("%s: %+v", what, e)
		}
		if len(r.Conditions) != conditions {
			t.Errorf("%s: conditions %+v", what, r.Conditions)
		}
	}
	check("nothing is known", "", "", "", 1)
	a.named("a", 1000*ms)
	check("it waits", "", "node a", "database leader, waits 2.0 s for a lease that may last", 1)
	a.named("a", 3500*ms)
	check("it holds", "leaf1", "node a", "database leader", 1)
	if left := a.report(a.now, name, "").Gateways[0].Left; left != 2900*ms {
		t.Errorf("the lease lasts for %s", left)
	}
	a.named("b", 6600*ms)
	check("another does", "", "node b", "database leader", 0)
	if left := a.report(a.now, name, "").Gateways[0].Left; left != 2900*ms {
		t.Errorf("the lease of another lasts for %s", left)
	}
	a.silent(10000 * ms)
	check("nobody answers", "", "", "", 1)
	for text, change := range map[string]func(){
		"names no leader":  func() {},
		"not in the hyper": func() { a.removed = true },
		"no member":        func() { a.self = "" },
	} {
		b := *a.agent
		change()
		if r := a.report(a.now, name, ""); len(r.Conditions) != 1 || !strings.Contains(r.Conditions[0].Text, text) {
			t.Errorf("it does not say %q: %+v", text, r.Conditions)
		}
		*a.agent = b
	}
}
