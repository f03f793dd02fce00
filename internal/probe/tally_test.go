package probe

import (
	"testing"
	"time"
)

const ms = time.Millisecond

// TestTally sends packets 0, 1, 2, … one per millisecond and lets those
// listed arrive, in the order listed, before the rest is given up.
func TestTally(t *testing.T) {
	upTo := func(n uint64, but ...uint64) []uint64 {
		skip := map[uint64]bool{}
		for _, seq := range but {
			skip[seq] = true
		}
		var seqs []uint64
		for seq := range n {
			if !skip[seq] {
				seqs = append(seqs, seq)
			}
		}
		return seqs
	}
	for _, tc := range []struct {
		name             string
		sent             uint64
		arrive           []uint64
		lost, duplicated uint64
		outage           time.Duration
	}{
		{"nothing sent", 0, nil, 0, 0, 0},
		{"all arrive", 10, upTo(10), 0, 0, 0},
		{"one lost", 10, upTo(10, 4), 1, 0, 1 * ms},
		{"three in a row", 10, upTo(10, 4, 5, 6), 3, 0, 3 * ms},
		{"the longest counts", 20, upTo(20, 1, 5, 6, 12), 4, 0, 2 * ms},
		{"reordered is not lost", 5, []uint64{1, 0, 4, 3, 2}, 0, 0, 0},
		{"twice", 3, []uint64{0, 1, 1, 2, 0}, 0, 2, 0},
		{"never sent", 2, []uint64{0, 1, 7}, 0, 0, 0},
		{"none arrives", 10, nil, 10, 0, 9 * ms * 10 / 11},
		{"the end is lost", 10, upTo(5), 5, 0, 5 * ms * 5 / 6},
		{"longer than the window", 3 * window, append(upTo(1), 3*window-1), 3*window - 2, 0, (3*window - 2) * ms},
		{"after it was given up", 2 * window, []uint64{0, 2*window - 1, 1}, 2*window - 2, 1, (2*window - 2) * ms},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var tally tally
			for i := range tc.sent {
				if seq := tally.send(time.Duration(i) * ms); seq != i {
					t.Fatalf("sequence number %d; want %d", seq, i)
				}
			}
			for _, seq := range tc.arrive {
				tally.receive(seq, time.Duration(seq)*ms)
			}
			tally.settleAll()
			if tally.lost != tc.lost || tally.duplicated != tc.duplicated {
				t.Errorf("lost %d, duplicated %d; want %d, %d", tally.lost, tally.duplicated, tc.lost, tc.duplicated)
			}
			if d := tally.outage - tc.outage; d < -2 || d > 2 { // integer division
				t.Errorf("outage %v; want %v", tally.outage, tc.outage)
			}
		})
	}
}
