package dataplane

import "time"

const (
	// retryFirst is how long after the kernel has refused something it is asked
	// again: twice as long each time, up to retryLast.
	retryFirst = time.Second
	retryLast  = 30 * time.Second
)

// retry is how long to wait after the next refusal; its zero value is that of
// the first.
type retry struct{ pause time.Duration }

// after takes what came of an attempt, and tells how long after one that was
// refused to try again; 0: it was not.
func (r *retry) after(err error) time.Duration {
	if err == nil {
		r.pause = 0
		return 0
	}
	r.pause = min(max(2*r.pause, retryFirst), retryLast)
	return r.pause
}

// trouble is why something is not as desired, and since when; its zero value is
// none.
type trouble struct {
	text  string
	since time.Time
}

// note takes what came of the last attempt, and tells whether trouble has begun.
func (t *trouble) note(err error) (began bool) {
	if err == nil {
		*t = trouble{}
		return false
	}
	if began = t.text == ""; began {
		t.since = time.Now()
	}
	t.text = err.Error()
	return began
}
