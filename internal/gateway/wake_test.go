package gateway

import (
	"testing"
	"time"
)

// A node of a fabric that elects no gateway is not woken for it.
func TestNobodyToElect(t *testing.T) {
	a := newAgent("leaf1", "machine", "run", DefaultTiming, time.Now)
	const now = time.Hour
	if at := a.wake(now); at != now+idleInterval {
		t.Errorf("without a gateway to elect it wakes after %s, want %s", at-now, idleInterval)
	}
	a.setSegments([]Segment{{Name: "blue", Nodes: []string{"leaf1"}}})
	if at := a.wake(now); at > now+DefaultTiming.Renew {
		t.Errorf("with one it wakes after %s, want at most %s", at-now, DefaultTiming.Renew)
	}
}
