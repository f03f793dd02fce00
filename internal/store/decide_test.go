package store

import (
	"errors"
	"net/netip"
	"testing"
)

func peer(name, address string) Peer { return Peer{name, netip.MustParseAddr(address)} }

func TestDecide(t *testing.T) {
	a, b, c := peer("a", "10.0.0.1"), peer("b", "10.0.0.2"), peer("c", "10.0.0.3")
	known := func(p Peer, id uint64) entry {
		return entry{ID: id, Name: p.Name, PeerURLs: []string{p.peerURL()}, ClientURLs: []string{p.clientURL()}}
	}
	neverRan := func(e entry) entry { e.ClientURLs = nil; return e }
	added := func(p Peer, id uint64) entry {
		return entry{ID: id, PeerURLs: []string{p.peerURL()}, Learner: true}
	}
	fresh, silent := answer{fresh: true}, answer{err: errors.New("no")}
	roster := func(entries ...entry) answer { return answer{roster: entries} }
	whole := roster(known(a, 1), known(b, 2), known(c, 3))
	for name, test := range map[string]struct {
		have    local
		b, c    answer
		move    move
		trouble Trouble
	}{
		"data":                             {local{data: true}, silent, silent, resume, NoTrouble},
		"first start of all":               {local{}, fresh, fresh, form, NoTrouble},
		"first start, one is missing":      {local{}, fresh, silent, wait, NoTrouble},
		"alone and without data":           {local{}, silent, silent, wait, NoTrouble},
		"others have just formed it":       {local{}, roster(neverRan(known(a, 1)), known(b, 2), known(c, 3)), silent, form, NoTrouble},
		"data lost":                        {local{}, whole, silent, leaveFirst, NoTrouble},
		"data lost, the other has too":     {local{}, whole, fresh, leaveFirst, NoTrouble},
		"data lost, removed":               {local{rejoining: true}, roster(known(b, 2), known(c, 3)), silent, askForPlace, NoTrouble},
		"data lost, place made":            {local{rejoining: true}, roster(added(a, 4), known(b, 2), known(c, 3)), silent, join, NoTrouble},
		"place made, one lags behind":      {local{rejoining: true}, whole, roster(added(a, 4), known(b, 2), known(c, 3)), join, NoTrouble},
		"new in the document":              {local{}, roster(known(b, 2), known(c, 3)), silent, wait, Stranger},
		"new, place made by command":       {local{}, roster(added(a, 4), known(b, 2)), silent, join, NoTrouble},
		"removed by command":               {local{data: true, removed: true}, roster(known(b, 2), known(c, 3)), silent, wait, Removed},
		"removed, nobody answers":          {local{data: true, removed: true}, silent, silent, wait, Removed},
		"removed, the others have no data": {local{data: true, removed: true}, fresh, fresh, wait, Removed},
		"removed and added again":          {local{data: true, removed: true}, roster(added(a, 4), known(b, 2)), silent, join, NoTrouble},
		"removed, an old roster":           {local{data: true, removed: true}, whole, silent, wait, Removed},
	} {
		t.Run(name, func(t *testing.T) {
			d := decide(a, []Peer{b, c}, test.have, map[string]answer{"b": test.b, "c": test.c})
			if d.move != test.move || d.trouble != test.trouble {
				t.Errorf("got move %d %q %s, want %d %q", d.move, d.trouble, d.text, test.move, test.trouble)
			}
			if (d.move == wait) != (d.text != "") {
				t.Errorf("move %d with the text %q", d.move, d.text)
			}
		})
	}
	if d := decide(a, nil, local{}, nil); d.move != form {
		t.Errorf("the only member: %+v", d)
	}
	if got, want := clusterOf(a, []entry{added(a, 4), known(b, 2), added(c, 255)}),
		"a=https://10.0.0.1:2380,b=https://10.0.0.2:2380,ff=https://10.0.0.3:2380"; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

func TestTroubleOf(t *testing.T) {
	for text, want := range map[string]Trouble{
		"failed to save Raft hard state and entries: write /x: no space left on device": DiskFull,
		"failed to read WAL, cannot be repaired: wal: crc mismatch":                     Corrupt,
		"start etcd: proto: Record: wiretype end group for non-group":                   Corrupt,
		"failed to open database: invalid database":                                     Corrupt,
		"server error: the member has been permanently removed from the cluster":        Removed,
		"start etcd: listen tcp 10.0.0.1:2380: bind: cannot assign requested address":   OtherTrouble,
	} {
		if got := troubleOf(text); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

func TestMergeOfUpdates(t *testing.T) {
	put := func(reset bool, keys ...string) update {
		u := update{Reset: reset, Entries: map[string]Entry{}, Deleted: map[string]struct{}{}}
		for _, k := range keys {
			u.Entries[k] = Entry{Key: k}
		}
		return u
	}
	gone := func(keys ...string) update {
		u := put(false)
		for _, k := range keys {
			u.Deleted[k] = struct{}{}
		}
		return u
	}
	merged := func(updates ...update) update {
		var m *update
		for _, u := range updates {
			m = merge(m, u)
		}
		return *m
	}
	for name, test := range map[string]struct {
		got              update
		reset            bool
		entries, deleted int
	}{
		"changes":               {merged(put(false, "a"), put(false, "b")), false, 2, 0},
		"deleted after":         {merged(put(false, "a"), gone("a")), false, 0, 1},
		"written after":         {merged(gone("a"), put(false, "a")), false, 1, 0},
		"reset forgets":         {merged(put(false, "a"), gone("b"), put(true, "c")), true, 1, 0},
		"deleted after a reset": {merged(put(true, "a", "b"), gone("a")), true, 1, 0},
	} {
		if test.got.Reset != test.reset || len(test.got.Entries) != test.entries || len(test.got.Deleted) != test.deleted {
			t.Errorf("%s: %+v", name, test.got)
		}
	}
}
