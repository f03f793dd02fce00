package quorum

import (
	"errors"
	"testing"
	"time"
)

// TestCouncil asks another voter where its own member does not know, and its own
// again as soon as that does.
func TestCouncil(t *testing.T) {
	c := newCouncil(func() time.Duration { return 0 })
	c.setSelf("a", nil)
	for _, address := range []string{"a", "b", "c", "d", "e", "f"} {
		c.voices[address] = &voice{address: address, quit: func() {}}
	}
	check := func(what, first string, want round) {
		t.Helper()
		if c.first != first {
			t.Errorf("%s: %s is asked, want %s", what, c.first, first)
		}
		if got := c.round(false); got != want {
			t.Errorf("%s: %+v, want %+v", what, got, want)
		}
	}
	check("nobody has said anything", "a", round{})
	c.hear(answer{address: "a", word: word{"b", 1}, members: three()})
	check("its own member knows", "a", round{"b", 1})
	c.hear(answer{address: "f", word: word{"f", 9}})
	if _, kept := c.words["f"]; kept || len(c.voices) != 5 {
		t.Errorf("one that is no member is heard: %v", c.words)
	}
	c.hear(answer{address: "a", err: errors.New("it is away")})
	check("its own member is away", "b", round{})
	if got := c.troubles(); got != "a: it is away" {
		t.Errorf("troubles %q", got)
	}
	c.hear(answer{address: "b", word: word{"c", 3}})
	check("another knows", "b", round{"c", 3})
	c.hear(answer{address: "b", word: word{"", 4}})
	check("that one knows no more", "c", round{})
	c.hear(answer{address: "a", word: word{"c", 5}})
	check("its own member is back", "a", round{"c", 5})
	c.hear(answer{address: "c", word: word{"a", 6}})
	c.hear(answer{address: "b", word: word{"a", 6}})
	if got := c.round(true); got != (round{"a", 6}) {
		t.Errorf("all say %+v", got)
	}
	c.hear(answer{address: "a", word: word{"a", 7}})
	if got := c.round(false); got != (round{"a", 6}) {
		t.Errorf("its own member alone proves %+v", got)
	}
	c.setSelf("b", nil)
	check("another member is its own", "b", round{})
	if len(c.members)+len(c.words)+len(c.voices) > 0 {
		t.Errorf("what is known of another cluster is kept: %+v", c)
	}
}
