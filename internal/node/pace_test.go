package node

import (
	"testing"
	"time"
)

func TestAfterPause(t *testing.T) {
	now := time.Unix(1_000_000_000, 0)
	for took, want := range map[time.Duration]time.Time{
		0:                      {},
		100 * time.Microsecond: {},
		time.Millisecond:       now.Add(4 * time.Millisecond),
		time.Second:            now.Add(4 * time.Second),
	} {
		if got := afterPause(now, took); got != want {
			t.Errorf("after %s: %s, want %s", took, got, want)
		}
	}
}

// What waits for its time is done then, though nothing happens any more.
func TestRoutesThatWait(t *testing.T) {
	r := began(t)
	r.told.routes, r.told.next = false, r.now.Add(time.Second)
	told := r.bgp.sets
	r.step()
	if r.bgp.sets != told {
		t.Error("BGP was told before its time")
	}
	if due := r.nextDue(); due != r.told.next {
		t.Errorf("due is %s, want %s", due, r.told.next)
	}
	r.now = r.told.next
	r.step()
	if r.bgp.sets != told+1 || !r.told.routes {
		t.Errorf("BGP was told %d times at its time, want once", r.bgp.sets-told)
	}
}

// A node that leaves and waits for others to take its gateways waits, and does
// not go round and round because its own time to leave has come.
func TestLeavingWaitsForGateways(t *testing.T) {
	r := began(t)
	r.leaving, r.handing = r.now.Add(-time.Millisecond), make(chan struct{})
	if due := r.nextDue(); due.Equal(r.leaving) {
		t.Error("it is due all the time")
	}
	r.handing = nil
	if due := r.nextDue(); !due.Equal(r.leaving) {
		t.Errorf("when they are handed over, due is %s, want %s", due, r.leaving)
	}
}
