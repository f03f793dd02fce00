package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"frond/internal/pki"
)

func TestKeys(t *testing.T) {
	c := newCluster(t, 1)
	c.startAll()
	client, ctx := c.client(c.machines[0].pki), t.Context()

	if _, err := client.Get(ctx, "x"); !errors.Is(err, ErrNotFound) {
		t.Errorf("reading what is not there: %v", err)
	}
	first, err := client.Create(ctx, "x", []byte("1"), nil)
	if err != nil || first.Key != "x" || string(first.Value) != "1" || first.Lease != 0 {
		t.Fatalf("%+v, %v", first, err)
	}
	if now, err := client.Create(ctx, "x", []byte("2"), nil); !errors.Is(err, ErrConflict) || string(now.Value) != "1" {
		t.Errorf("created twice: %+v, %v", now, err)
	}
	second, err := client.Update(ctx, first, []byte("2"), nil)
	if err != nil || second.Revision <= first.Revision || second.Created != first.Created {
		t.Errorf("%+v, %v", second, err)
	}
	if now, err := client.Update(ctx, first, []byte("3"), nil); !errors.Is(err, ErrConflict) || string(now.Value) != "2" {
		t.Errorf("updated from an old state: %+v, %v", now, err)
	}
	if err := client.Delete(ctx, first); !errors.Is(err, ErrConflict) {
		t.Errorf("deleted from an old state: %v", err)
	}
	for range 2 {
		if err := client.Delete(ctx, second); err != nil {
			t.Error(err)
		}
	}
	if _, err := client.Update(ctx, second, []byte("3"), nil); !errors.Is(err, ErrNotFound) || !IsConflict(err) {
		t.Errorf("updated what is gone: %v", err)
	}
	for _, key := range []string{"list/b", "list/a", "other"} {
		if _, err := client.Create(ctx, key, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	all, revision, err := client.List(ctx, "list/")
	if err != nil || len(all) != 2 || all[0].Key != "list/a" || all[1].Key != "list/b" || revision < all[0].Revision {
		t.Errorf("%+v at %d, %v", all, revision, err)
	}
}

func TestSession(t *testing.T) {
	c := newCluster(t, 1)
	c.startAll()
	client, ctx := c.client(c.machines[0].pki), t.Context()

	if _, err := client.NewSession(ctx, 1500*time.Millisecond); err == nil {
		t.Error("a session of a second and a half is none that etcd has")
	}
	before := Now()
	s, err := client.NewSession(ctx, MinTTL)
	if err != nil {
		t.Fatal(err)
	}
	if until := s.Until(); until.Sub(before) < MinTTL*9/10 || until.Sub(Now()) > MinTTL {
		t.Errorf("it lives until %v, now it is %v", until, Now())
	}
	if _, err := client.Create(ctx, "mine", nil, s); err != nil {
		t.Fatal(err)
	}
	watched := client.Watch(ctx, "mine")
	if first := <-watched; !first.Whole || len(first.Records) != 1 || first.Records[0].Key != "mine" {
		t.Errorf("%+v", first)
	}
	if e, err := client.Get(ctx, "mine"); err != nil || e.Lease != s.ID() {
		t.Errorf("%+v, %v", e, err)
	}
	// Kept alive, it outlives its time.
	running, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- s.Run(running) }()
	for first := s.Until(); s.Until().Sub(first) < 2*MinTTL; {
		<-s.Renewed()
	}
	if _, err := client.Get(ctx, "mine"); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	// Left alone, it ends, but not before it says so itself.
	gone := <-watched
	if !slices.Equal(gone.Deleted, []string{"mine"}) || Now() < s.Until() {
		t.Errorf("%+v, %v before its end", gone, s.Until().Sub(Now()))
	}
	if err := s.Renew(ctx); !errors.Is(err, ErrSessionLost) {
		t.Errorf("renewed after its end: %v", err)
	}
	if err := s.Run(ctx); !errors.Is(err, ErrSessionLost) {
		t.Errorf("ran after its end: %v", err)
	}
	if _, err := client.Create(ctx, "mine", nil, s); !errors.Is(err, ErrSessionLost) {
		t.Errorf("written after its end: %v", err)
	}
	// Ended on purpose, it takes its keys along at once.
	again, err := client.NewSession(ctx, 60*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Create(ctx, "mine", nil, again); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := again.Revoke(ctx); err != nil {
			t.Error(err)
		}
	}
	if _, err := client.Get(ctx, "mine"); !errors.Is(err, ErrNotFound) || again.Until() != 0 {
		t.Errorf("%v, it lives until %v", err, again.Until())
	}
}

func TestWatchSurvivesCompactionAndMembers(t *testing.T) {
	c := newCluster(t, 3)
	c.startAll()
	client, ctx := c.client(c.machines[0].pki), t.Context()
	view := map[string]string{}
	watched := client.Watch(ctx, "")
	resets := 0
	see := func(key, value string) {
		t.Helper()
		late := time.After(patience)
		for view[key] != value {
			select {
			case u := <-watched:
				if u.Whole {
					resets++
					clear(view)
				}
				for _, key := range u.Deleted {
					delete(view, key)
				}
				for _, r := range u.Records {
					view[r.Key] = string(r.Value)
				}
			case <-late:
				t.Fatalf("%s is not seen to be %q: %v", key, value, view)
			}
		}
	}
	write := func(key, value string) {
		t.Helper()
		e, err := client.Get(ctx, key)
		if errors.Is(err, ErrNotFound) {
			_, err = client.Create(ctx, key, []byte(value), nil)
		} else if err == nil {
			_, err = client.Update(ctx, e, []byte(value), nil)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	write("a", "1")
	see("a", "1")
	// The member that is watched at goes away, and what happens meanwhile is seen.
	at, _ := client.preferred()
	c.machines[at].kill(t)
	write("a", "2")
	see("a", "2")
	if resets != 1 {
		t.Errorf("%d resets, although nothing was missed", resets)
	}
	// History goes away while nobody is there to watch at.
	for _, m := range c.machines {
		m.stop()
	}
	for _, m := range c.machines {
		c.start(m)
	}
	other := c.open(c.machines[0].pki)
	c.until("the store is back", func() bool { _, err := other.Get(ctx, "a"); return err == nil })
	write("a", "3")
	e, err := client.Get(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	c.until("history is compacted", func() bool { _, err := other.clients[0].Compact(ctx, e.Revision); return err == nil })
	write("b", "1")
	see("a", "3")
	see("b", "1")
}

// A watch that waits for a member that cannot be reached goes elsewhere as soon
// as another is preferred.
func TestWatchLeavesUnreachableMember(t *testing.T) {
	c := newCluster(t, 3)
	c.startAll()
	c.machines[2].stop()
	client, ctx := c.open(c.machines[0].pki), t.Context()
	prefer := func(member int) {
		client.mu.Lock()
		defer client.mu.Unlock()
		client.move(member)
	}
	e, err := client.Create(ctx, "a", []byte("0"), nil)
	if err != nil {
		t.Fatal(err)
	}
	updates := client.Watch(ctx, "")
	<-updates
	for range 10 {
		prefer(2)
		pause(ctx, 20*time.Millisecond) // for the watch to get there
		prefer(0)
		if e, err = client.Update(ctx, e, []byte("1"), nil); err != nil {
			t.Fatal(err)
		}
		for seen := false; !seen; {
			select {
			case u := <-updates:
				seen = len(u.Records) > 0 && u.Records[0].Modified == e.Revision
			case <-time.After(patience):
				t.Fatal("the watch stays with a member that cannot be reached")
			}
		}
	}
}

func TestCompactedHistoryIsReadAnew(t *testing.T) {
	c := newCluster(t, 1)
	c.startAll()
	client, ctx := c.open(c.machines[0].pki), t.Context()
	e, err := client.Create(ctx, "a", []byte("1"), nil)
	if err != nil {
		t.Fatal(err)
	}
	old := e.Revision - 1
	for range 3 {
		if e, err = client.Update(ctx, e, []byte("2"), nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := client.clients[0].Compact(ctx, e.Revision); err != nil {
		t.Fatal(err)
	}
	err = client.watchAt(ctx, client.clients[0], "", &old, make(chan update))
	if err == nil || !strings.Contains(err.Error(), "compacted") {
		t.Errorf("a watch from before the compaction: %v", err)
	}
}

// One of three goes, in each way that there is: writes go on.
func TestOneOfThreeGone(t *testing.T) {
	c := newCluster(t, 3)
	c.startAll()
	client, ctx := c.client(c.machines[0].pki), t.Context()
	for name, fault := range map[string]func(*machine) (mend func()){
		"killed": func(m *machine) func() { m.kill(t); return func() {} },
		"frozen": func(m *machine) func() {
			pid := m.member.Report().PID
			_ = syscall.Kill(pid, syscall.SIGSTOP)
			return func() { _ = syscall.Kill(pid, syscall.SIGCONT) }
		},
		"cut off": func(m *machine) func() {
			ip(t, "link", "set", m.cable, "down")
			return func() { ip(t, "link", "set", m.cable, "up") }
		},
		"stopped": func(m *machine) func() {
			m.stop()
			return func() { c.start(m) }
		},
	} {
		for _, leads := range []bool{true, false} {
			leader := c.leader(client)
			victim := leader
			for _, m := range c.machines {
				if !leads && m != leader {
					victim = m
				}
			}
			stop := writes(client, "paced")
			c.until("writing has begun", func() bool { _, err := client.Get(ctx, "paced"); return err == nil })
			mend := fault(victim)
			if leads {
				c.until("there is a leader again", func() bool {
					leader := client.Look(ctx).Leader
					// One that was killed is back at once, and may win.
					return leader != "" && (leader != victim.Name || name == "killed")
				})
			}
			e, err := client.Get(ctx, "paced")
			if err != nil {
				t.Errorf("%s, leader %t: %v", name, leads, err)
			}
			c.until("writing goes on", func() bool {
				now, err := client.Get(ctx, "paced")
				return err == nil && now.Revision > e.Revision+10
			})
			count, longest := stop()
			t.Logf("%s, leader %t: %d writes, longest pause %s", name, leads, count, longest.Round(time.Millisecond))
			mend()
			c.until("all are back", func() bool {
				for _, m := range client.Look(ctx).Members {
					if !m.Answers || m.leads == 0 {
						return false
					}
				}
				return true
			})
			last, err := client.Get(ctx, "paced")
			if err == nil {
				err = client.Delete(ctx, last)
			}
			if err != nil {
				t.Error(err)
			}
		}
	}
}

func TestTwoOfThreeGone(t *testing.T) {
	c := newCluster(t, 3)
	c.startAll()
	client, ctx := c.client(c.machines[0].pki), t.Context()
	if _, err := client.Create(ctx, "kept", []byte("1"), nil); err != nil {
		t.Fatal(err)
	}
	c.machines[1].stop()
	c.machines[2].stop()
	c.until("the majority is lost", func() bool { return !client.Look(ctx).Majority })
	_, err := client.Get(ctx, "kept")
	if !errors.Is(err, ErrUnavailable) {
		t.Errorf("reading without a majority: %v", err)
	}
	want := "read kept: the store does not answer: a sees no majority, b does not run, c does not run"
	c.until(want, func() bool { // a member that is busy may not say so in time
		_, err := client.Get(ctx, "kept")
		return err != nil && err.Error() == want
	})
	if _, err := client.Create(ctx, "more", nil, nil); !errors.Is(err, ErrUnavailable) {
		t.Errorf("writing without a majority: %v", err)
	}
	if _, err := client.NewSession(ctx, MinTTL); !errors.Is(err, ErrUnavailable) {
		t.Errorf("a session without a majority: %v", err)
	}
	c.start(c.machines[2])
	c.until("reading works again", func() bool { _, err := client.Get(ctx, "kept"); return err == nil })
}

func TestLostDataComesBack(t *testing.T) {
	c := newCluster(t, 3)
	c.startAll()
	client, ctx := c.client(c.machines[0].pki), t.Context()
	if _, err := client.Create(ctx, "kept", []byte("1"), nil); err != nil {
		t.Fatal(err)
	}
	b := c.machines[1]
	b.stop()
	old, err := client.Members(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(b.dir); err != nil {
		t.Fatal(err)
	}
	c.start(b)
	c.serving(b)
	now, err := client.Members(ctx)
	if err != nil || len(now) != 3 || now[1].Name != "b" || now[1].Learner || now[1].ID == old[1].ID {
		t.Errorf("members are %+v, were %+v: %v", now, old, err)
	}
	// It counts: with one of the others gone, there is a majority.
	c.machines[0].stop()
	c.until("reading works", func() bool { _, err := client.Get(ctx, "kept"); return err == nil })
}

func TestAloneWithoutDataWaits(t *testing.T) {
	c := newCluster(t, 3)
	c.start(c.machines[0])
	c.start(c.machines[1])
	c.until("both wait for c", func() bool {
		for _, m := range c.machines[:2] {
			if r := m.member.Report(); r.State != Waiting || !strings.HasSuffix(r.Text, "missing c") {
				return false
			}
		}
		return true
	})
	c.start(c.machines[2])
	c.serving(c.machines...)
}

func TestMemberRemovedAndAdded(t *testing.T) {
	c := newCluster(t, 3)
	c.startAll()
	client := c.client(c.machines[0].pki)
	// The cluster lets a member go only when the others have been whole for 5 s.
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	members, err := client.Members(ctx)
	if err != nil || len(members) != 3 || !members[2].Of(c.machines[2].Address) {
		t.Fatalf("%+v, %v", members, err)
	}
	for range 2 { // the second time it is gone already
		if err := client.RemoveMember(ctx, members[2].ID); err != nil {
			t.Fatal(err)
		}
	}
	removed := c.machines[2]
	saysSo := func(when string) {
		t.Helper()
		c.until("c says that it was removed, "+when, func() bool {
			r := removed.member.Report()
			return r.State == Waiting && r.Trouble == Removed
		})
	}
	saysSo("at once")
	removed.stop()
	if err := os.Remove(filepath.Join(removed.dir, removedFile)); err != nil {
		t.Fatal(err)
	}
	c.start(removed) // as one that ended before it had noted it
	saysSo("when it starts")
	for range 2 {
		if err := client.AddMember(ctx, removed.Peer); err != nil {
			t.Fatal(err)
		}
	}
	c.serving(removed)
	if members, err = client.Members(ctx); err != nil || len(members) != 3 || members[2].Learner {
		t.Errorf("%+v, %v", members, err)
	}
}

func TestDiskFull(t *testing.T) {
	c := newCluster(t, 3)
	victim := c.machines[2]
	if err := os.MkdirAll(victim.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("frond", victim.dir, "tmpfs", 0, "size=96m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		victim.stop()
		if err := syscall.Unmount(victim.dir, 0); err != nil {
			t.Error(err)
		}
	})
	c.startAll()
	client, ctx := c.client(c.machines[0].pki), t.Context()
	ballast := filepath.Join(victim.dir, "ballast")
	_ = os.WriteFile(ballast, make([]byte, 96<<20), 0o600) // as much as fits
	value := make([]byte, 64<<10)
	e, err := client.Create(ctx, "big", value, nil)
	for i := 0; err == nil && victim.member.Report().Trouble != DiskFull; i++ {
		if i == 2000 {
			t.Fatalf("%d writes, and the disk is not full: %+v", i, victim.member.Report())
		}
		value[0] = byte(i)
		e, err = client.Update(ctx, e, value, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	if r := victim.member.Report(); r.State != Failed || !strings.Contains(r.Text, "make room") {
		t.Errorf("%+v", r)
	}
	if _, err = client.Update(ctx, e, nil, nil); err != nil {
		t.Errorf("the others: %v", err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	c.serving(victim)
}

func TestDamagedLog(t *testing.T) {
	c := newCluster(t, 3)
	c.startAll()
	client, ctx := c.client(c.machines[0].pki), t.Context()
	e, err := client.Create(ctx, "x", nil, nil)
	for range 50 {
		if err != nil {
			t.Fatal(err)
		}
		e, err = client.Update(ctx, e, []byte(strings.Repeat("x", 100)), nil)
	}
	victim := c.machines[2]
	victim.stop()
	logs, err := filepath.Glob(filepath.Join(victim.dir, "member/wal/*.wal"))
	if err != nil || len(logs) == 0 {
		t.Fatalf("%v, %v", logs, err)
	}
	text, err := os.ReadFile(logs[0])
	if err != nil {
		t.Fatal(err)
	}
	copy(text[2000:], "this was written by a disk that fails")
	if err := os.WriteFile(logs[0], text, 0o600); err != nil {
		t.Fatal(err)
	}
	c.start(victim)
	c.until("c says that its data is damaged", func() bool {
		r := victim.member.Report()
		return r.State == Failed && r.Trouble == Corrupt && strings.Contains(r.Text, "move "+victim.dir+"/member away")
	})
	if _, err := client.Get(ctx, "x"); err != nil {
		t.Errorf("the others: %v", err)
	}
	// What the text says helps, while its process is started again and again.
	if err := os.Rename(filepath.Join(victim.dir, "member"), filepath.Join(t.TempDir(), "away")); err != nil {
		t.Fatal(err)
	}
	c.serving(victim)
}

func TestWhoIsLetIn(t *testing.T) {
	c := newCluster(t, 1)
	c.startAll()
	ctx := t.Context()
	m := c.machines[0]
	other := t.TempDir()
	if _, err := pki.Init(other, "other", time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := pki.Issue(other, pki.Node{Name: "a"}, time.Now()); err != nil {
		t.Fatal(err)
	}
	_, err := c.open(other).Get(ctx, "x")
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a client of another CA: %v", err)
	}
	if _, err := c.open(m.pki).Get(ctx, "x"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a client of ours: %v", err)
	}
	wantOnlyTLS(t, m)
	wantListeners(t, m)
}

func TestMissingCertificate(t *testing.T) {
	c := newCluster(t, 1)
	m := c.machines[0]
	key := pki.FilesIn(m.pki, m.Name).Key
	if err := os.Rename(key, key+".away"); err != nil {
		t.Fatal(err)
	}
	c.start(m)
	c.until("it misses its key", func() bool {
		r := m.member.Report()
		return r.State == Failed && r.Trouble == Certificates && strings.Contains(r.Text, "a.key is missing")
	})
	if err := os.Rename(key+".away", key); err != nil {
		t.Fatal(err)
	}
	c.serving(m)
	if strings.Contains(c.logged.String(), "PRIVATE") {
		t.Error("the log shows a key")
	}
}
