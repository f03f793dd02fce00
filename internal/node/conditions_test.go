package node

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// What is wrong is found out again soon after the last of many events, and not
// with each.
func TestJudgesInTurn(t *testing.T) {
	r := newRig(t)
	r.began = true
	r.judgeInTurn(r.now)
	if r.judged != r.now || !r.judgeDue.IsZero() {
		t.Errorf("judged at %s, and again at %s", r.judged, r.judgeDue)
	}
	first := r.now
	for range 3 {
		r.now = r.now.Add(judgeInterval / 4)
		r.judgeInTurn(r.now)
	}
	if want := first.Add(judgeInterval); r.judged != first || r.judgeDue != want {
		t.Errorf("judged at %s and again at %s, want %s", r.judged, r.judgeDue, want)
	}
	r.now = first.Add(judgeInterval)
	r.judgeInTurn(r.now)
	if r.judged != r.now || !r.judgeDue.IsZero() {
		t.Errorf("judged at %s, and again at %s", r.judged, r.judgeDue)
	}
}

// What watches the ways begins when the node had time to find them, and at once
// when it is begun again later.
func TestBeginsAfterward(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &Node{started: time.Now()}
		begun := 0
		begin := n.afterward(func(context.Context) error { begun++; return nil })
		ending, end := context.WithCancel(t.Context())
		end()
		if err := begin(ending); err == nil || begun > 0 {
			t.Errorf("begun %d times though the node ends: %v", begun, err)
		}
		if err := begin(t.Context()); err != nil || time.Since(n.started) != firstWays {
			t.Errorf("begun after %s: %v", time.Since(n.started), err)
		}
		time.Sleep(time.Minute)
		again := time.Now()
		if err := begin(t.Context()); err != nil || time.Since(again) > 0 || begun != 2 {
			t.Errorf("begun again after %s: %v", time.Since(again), err)
		}
	})
}
