package uplink

import (
	"errors"
	"net"
	"net/netip"
	"testing"
)

func TestCount(t *testing.T) {
	silent := errors.New("it does not answer")
	for name, test := range map[string]struct {
		before  count
		answers string // + for an answer, - for none
		want    Verdict
	}{
		"nobody asked":             {count{}, "", Unknown},
		"the first answer":         {count{}, "+", Answers},
		"not asked often enough":   {count{}, "--", Unknown},
		"never an answer":          {count{}, "---", Silent},
		"late, but an answer":      {count{}, "--+", Answers},
		"two lost":                 {count{verdict: Answers}, "--", Answers},
		"three lost":               {count{verdict: Answers}, "---", Silent},
		"three lost, not in a row": {count{verdict: Answers}, "--+--+-", Answers},
		"one answer again":         {count{verdict: Silent}, "+", Silent},
		"every other answer again": {count{verdict: Silent}, "+-+-+-+-", Silent},
		"back":                     {count{verdict: Silent}, "-+++", Answers},
		"back, one lost":           {count{verdict: Silent}, "+++-", Answers},
	} {
		c := test.before
		for _, answer := range test.answers {
			var err error
			if answer == '-' {
				err = silent
			}
			c.observe(err)
		}
		if c.verdict != test.want || (c.reason != "") != (c.verdict == Silent && test.before.verdict != Silent) {
			t.Errorf("%s: %v because %q, want %v", name, c.verdict, c.reason, test.want)
		}
	}
}

func TestARPAnswers(t *testing.T) {
	router, own := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 9}
	reply := func(change func([]byte)) []byte {
		frame := arpQuestion(mac, router, own) // as the router sends it
		frame[ethernetHeader+7] = arpReply
		change(frame)
		return frame
	}
	same := func([]byte) {}
	for name, test := range map[string]struct {
		frame []byte
		want  bool
	}{
		"a reply":             {reply(same), true},
		"padded":              {append(reply(same), make([]byte, 18)...), true},
		"a request":           {arpQuestion(mac, router, own), false},
		"of somebody else":    {reply(func(f []byte) { f[ethernetHeader+17] = 7 }), false},
		"of another protocol": {reply(func(f []byte) { f[ethernetHeader+2] = 0x86 }), false},
		"of other lengths":    {reply(func(f []byte) { f[ethernetHeader+5] = 16 }), false},
		"cut short":           {reply(same)[:ethernetHeader+arpLength-1], false},
		"empty":               {nil, false},
	} {
		if got := arpAnswers(test.frame, router); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func FuzzARPAnswers(f *testing.F) {
	router := netip.MustParseAddr("192.0.2.1")
	f.Add(arpQuestion(net.HardwareAddr{2, 0, 0, 0, 0, 9}, router, router))
	f.Fuzz(func(t *testing.T, frame []byte) {
		if arpAnswers(frame, router) && netip.AddrFrom4([4]byte(frame[ethernetHeader+14:])) != router {
			t.Errorf("%x is taken for the router's", frame)
		}
	})
}
