package node

import "time"

// What goes through all guests costs by how many there are, and they say
// something all the time: between two times lie pauseShare times what one
// takes, where that is worthwhile at all.
const (
	pauseShare    = 4
	shortestPause = time.Millisecond
)

// afterPause is when what has just taken so long may be done again, at the
// earliest; zero: at once.
func afterPause(now time.Time, took time.Duration) time.Time {
	if pause := pauseShare * took; pause >= shortestPause {
		return now.Add(pause)
	}
	return time.Time{}
}

// sooner is the earlier of two times, of which zero is none.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}
