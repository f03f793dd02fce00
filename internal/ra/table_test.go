package ra

import (
	"net/netip"
	"slices"
	"testing"
	"time"
)

var (
	start0 = time.Unix(1_000_000, 0)
	self   = netip.MustParseAddr("fe80::5e1f")
)

func neighbour(n byte) netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 15: n})
}

func after(d time.Duration) time.Time { return start0.Add(d) }

func wantListed(t *testing.T, tb *table, want ...byte) {
	t.Helper()
	var all []netip.Addr
	for _, n := range want {
		all = append(all, neighbour(n))
	}
	if got := tb.addresses(); !slices.Equal(got, all) {
		t.Errorf("listed %v, want %v", got, all)
	}
}

func TestNeighbourIsNewOnceAndForgottenWhenSilent(t *testing.T) {
	tb := table{self: self}
	if changed, isNew := tb.hear(neighbour(1), after(0)); !changed || !isNew {
		t.Error("the first advertisement of a neighbour is news")
	}
	if changed, isNew := tb.hear(neighbour(1), after(time.Second)); changed || isNew {
		t.Error("the second is none")
	}
	if tb.expire(after(time.Second + Lifetime - 1)) {
		t.Error("forgotten too early")
	}
	if !tb.expire(after(time.Second + Lifetime)) {
		t.Error("not forgotten")
	}
	wantListed(t, &tb)
	if !tb.next().IsZero() {
		t.Error("an empty table has nothing to do")
	}
}

func TestSilentNeighbourIsAsked(t *testing.T) {
	tb := table{self: self}
	tb.hear(neighbour(1), after(0))
	doubtful := after(Lifetime - doubt)
	if tb.ask(doubtful.Add(-1)) || !tb.next().Equal(doubtful) {
		t.Error("asked before there was doubt")
	}
	if !tb.ask(doubtful) {
		t.Error("not asked in doubt")
	}
	tb.asked(doubtful, true)
	if tb.ask(doubtful.Add(askInterval - 1)) {
		t.Error("asked too often")
	}
	if !tb.ask(doubtful.Add(askInterval)) {
		t.Error("not asked again")
	}
	tb.hear(neighbour(1), doubtful.Add(askInterval)) // its answer
	if tb.ask(doubtful.Add(2 * askInterval)) {
		t.Error("asked though it answered")
	}
	tb.expire(after(Lifetime))
	wantListed(t, &tb, 1)
}

func TestSomebodyNewPutsTheOthersInDoubt(t *testing.T) {
	for _, tt := range []struct {
		name           string
		answers, asked bool
		want           []byte
	}{
		{"re-cabled: the old one is silent", false, true, []byte{2}},
		{"two on one cable: the old one answers", true, true, []byte{1, 2}},
		{"the question could not be sent", false, false, []byte{1, 2}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tb := table{self: self}
			tb.hear(neighbour(1), after(0))
			tb.hear(neighbour(2), after(time.Second))
			wantListed(t, &tb, 1, 2)
			for s := time.Second; s <= time.Second+doubt; s += askInterval {
				tb.expire(after(s))
				if tb.ask(after(s)) {
					tb.asked(after(s), tt.asked)
				}
				if tt.answers {
					tb.hear(neighbour(1), after(s))
				}
			}
			wantListed(t, &tb, tt.want...)
		})
	}
}

func TestWhoCannotBeAskedIsForgottenAfterLifetime(t *testing.T) {
	tb := table{self: self}
	tb.hear(neighbour(1), after(0))
	for s := time.Duration(0); s < Lifetime; s += askInterval {
		tb.asked(after(s), false)
	}
	if !tb.expire(after(Lifetime)) {
		t.Error("still there")
	}
}

func TestFullTable(t *testing.T) {
	tb := table{self: self}
	for n := range byte(200) {
		changed, isNew := tb.hear(neighbour(n+1), after(0))
		if place := n < maxNeighbors; changed != place || isNew != place {
			t.Fatalf("neighbour %d: changed %v, new %v", n+1, changed, isNew)
		}
	}
	wantListed(t, &tb, 1, 2, 3, 4)
	tb.hear(neighbour(1), after(time.Second)) // the genuine one answers
	tb.expire(after(doubt))
	wantListed(t, &tb, 1, 4) // 4 came last: nobody put it in doubt
	tb.hear(neighbour(9), after(doubt))
	wantListed(t, &tb, 1, 4, 9)
}

func TestOwnAdvertisementIsALoop(t *testing.T) {
	tb := table{self: self}
	if changed, isNew := tb.hear(self, after(0)); !changed || isNew {
		t.Error("a loop is news, but nobody new")
	}
	if changed, _ := tb.hear(self, after(time.Second)); changed {
		t.Error("a loop that goes on is no news")
	}
	if n := tb.neighbors("eth1"); !n.Looped || len(n.Neighbors) != 0 {
		t.Errorf("told %+v", n)
	}
	if end := after(time.Second + Lifetime); !tb.next().Equal(end) || !tb.expire(end) {
		t.Error("the loop is not forgotten")
	}
	if tb.neighbors("eth1").Looped {
		t.Error("still looped")
	}
}
