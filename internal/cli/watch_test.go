package cli

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"frond/internal/api"
	"frond/internal/status"
)

// answers gives one answer per second, then ends the watching.
type answers struct {
	peers  []api.Peers
	errors []error
	asked  int
	cancel context.CancelFunc
}

func (a *answers) ask(ctx context.Context) (api.Peers, error) {
	if a.asked == len(a.peers) {
		a.cancel()
		return api.Peers{}, ctx.Err()
	}
	a.asked++
	return a.peers[a.asked-1], a.errors[a.asked-1]
}

func watched(t *testing.T, form format, peers []api.Peers, failures []error) (stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		begin := time.Now()
		a := &answers{peers: peers, errors: failures, cancel: cancel}
		p := program{now: func() time.Time { return noon.Add(time.Since(begin)) }}
		w := watcher{program: p, form: form, stdout: &out, stderr: &errs}
		if err := watch(ctx, w, a.ask, renderPeers); err != nil {
			t.Errorf("watch = %v, want its proper end", err)
		}
	})
	return out.String(), errs.String()
}

func TestWatchPrintsChanges(t *testing.T) {
	up := api.Peers{Peers: []status.Peer{{Port: "eth1", Name: "spine1", State: "established", Since: noon}}}
	down := api.Peers{Peers: []status.Peer{{Port: "eth1", Name: "spine1", State: "down", Reason: "no carrier", Since: noon.Add(2 * time.Second)}}}
	away := errors.New("no agent answers")
	peers := []api.Peers{up, up, down, {}, {}, down, up}
	failures := []error{nil, nil, nil, away, away, nil, nil}

	stdout, stderr := watched(t, formatTable, peers, failures)
	want := `2026-03-01T12:00:00Z
PORT  PEER    STATE        FOR
eth1  spine1  established   0s

2026-03-01T12:00:02Z
PORT  PEER    STATE  FOR  REASON
eth1  spine1  down    0s  no carrier

2026-03-01T12:00:05Z
PORT  PEER    STATE  FOR  REASON
eth1  spine1  down    3s  no carrier

2026-03-01T12:00:06Z
PORT  PEER    STATE        FOR
eth1  spine1  established   6s

`
	if diff := cmp.Diff(want, stdout); diff != "" {
		t.Error(diff)
	}
	if stderr != "frond: no agent answers\n" {
		t.Errorf("stderr %q", stderr)
	}
	for form, mark := range map[format]string{formatJSON: "{\"peers\":", formatYAML: "---\npeers:"} {
		stdout, _ := watched(t, form, peers, failures)
		if got := strings.Count("\n"+stdout, "\n"+mark); got != 4 {
			t.Errorf("%s: %d answers, want 4:\n%s", form, got, stdout)
		}
		if lines := strings.Count(stdout, "\n"); form == formatJSON && lines != 4 {
			t.Errorf("JSON takes %d lines, want one each", lines)
		}
	}
}

func TestWatchEndsWhenNobodyReads(t *testing.T) {
	broken := errors.New("broken pipe")
	ask := func(context.Context) (api.Peers, error) { return api.Peers{}, nil }
	w := watcher{program: program{now: time.Now}, form: formatTable, stdout: failing{broken}, stderr: failing{broken}}
	if err := watch(t.Context(), w, ask, renderPeers); !errors.Is(err, broken) {
		t.Errorf("watch = %v, want %v", err, broken)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestRedraw(t *testing.T) {
	var out bytes.Buffer
	w := watcher{program: program{now: func() time.Time { return noon }}, form: formatTable, stdout: &out}
	show := redraw(w, renderPeers)
	if err := show(api.Peers{}, nil); err != nil {
		t.Fatal(err)
	}
	if err := show(api.Peers{}, errors.New("no agent answers")); err != nil {
		t.Fatal(err)
	}
	want := clearScreen + renderPeers(api.Peers{}, view{}) + cursorHome + "frond: no agent answers\n"
	got := strings.NewReplacer(clearLine+"\n", "\n", clearBelow, "").Replace(out.String())
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestFit(t *testing.T) {
	unmarked := strings.NewReplacer(clearLine, "", clearBelow, "")
	for _, test := range []struct {
		text           string
		columns, lines int
		want           string
	}{
		{"one\ntwo\n", 0, 0, "one\ntwo\n"},
		{"one\ntwo\nthree\n", 80, 3, "one\ntwo\n"},
		{"abcdef\n", 6, 9, "abcdef\n"},
		{"abcdefg\n", 6, 9, "abcdef\x1b[0m\n"},
		{"\x1b[31mabc\x1b[0mdef\n", 6, 9, "\x1b[31mabc\x1b[0mdef\n"},
		{"\x1b[31mabcdefg\x1b[0m\n", 6, 9, "\x1b[31mabcdef\x1b[0m\n"},
		{"äöüß→–x\n", 6, 9, "äöüß→–\x1b[0m\n"},
		{"", 80, 24, ""},
	} {
		if got := unmarked.Replace(fit(test.text, test.columns, test.lines)); got != test.want {
			t.Errorf("fit(%q, %d, %d) = %q, want %q", test.text, test.columns, test.lines, got, test.want)
		}
	}
}
