package dataplane

import "time"

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
