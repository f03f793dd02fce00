package probe

import "time"

// window is how many packets behind the newest one may still arrive out of
// order; what is older is settled. It bounds the memory of a flow.
const window = 1 << 12

// tally counts one flow. Sequence numbers start at 0. Packets are settled, as
// arrived or lost, in their order, so that reordering is no loss.
type tally struct {
	next     uint64 // sequence number of the next packet sent
	lastSent time.Duration

	settled uint64        // first sequence number that is not settled
	arrived [window]bool  // by sequence number modulo window, from settled on
	sent    [window]int64 // when these were sent

	lost, duplicated uint64
	outage           time.Duration // the longest

	before  time.Duration // when the last settled arrival was sent
	missing uint64        // losses in a row since
}

func (t *tally) send(now time.Duration) (seq uint64) {
	if t.next == 0 {
		t.before = now
	}
	t.lastSent = now
	t.next++
	return t.next - 1
}

func (t *tally) receive(seq uint64, sent time.Duration) {
	if seq >= t.next {
		return // never sent
	}
	for seq >= t.settled+window {
		t.settle()
	}
	if seq < t.settled || t.arrived[seq%window] {
		t.duplicated++
		return
	}
	t.arrived[seq%window] = true
	t.sent[seq%window] = int64(sent)
}

func (t *tally) settle() {
	slot := t.settled % window
	if t.arrived[slot] {
		t.endOutage(time.Duration(t.sent[slot]))
		t.arrived[slot] = false
	} else {
		t.lost++
		t.missing++
	}
	t.settled++
}

// settleAll settles what was sent; afterwards lost and outage are final.
func (t *tally) settleAll() {
	for t.settled < t.next {
		t.settle()
	}
	t.endOutage(t.lastSent)
}

// endOutage takes the time for which nothing got through: from the first
// packet lost to the next that arrived. The first one's time is interpolated,
// since only arrivals tell when they were sent.
func (t *tally) endOutage(now time.Duration) {
	if t.missing > 0 {
		gap := now - t.before
		t.outage = max(t.outage, gap-gap/time.Duration(t.missing+1))
	}
	t.before, t.missing = now, 0
}

// complete tells that no packet sent is missing so far, apart from those
// already given up.
func (t *tally) complete() bool {
	for seq := t.settled; seq < t.next; seq++ {
		if !t.arrived[seq%window] {
			return false
		}
	}
	return true
}
