package kernel_test

import (
	"context"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"frond/internal/dataplane"
)

func (s *space) nft(line string) string {
	s.t.Helper()
	out, err := exec.Command("ip", append([]string{"netns", "exec", s.name, "nft"}, strings.Fields(line)...)...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("nft %s: %v: %s", line, err, out)
	}
	return string(out)
}

func masquerade(port string, sources ...string) dataplane.Masquerade {
	m := dataplane.Masquerade{Port: port}
	for _, source := range sources {
		m.Sources = append(m.Sources, netip.MustParsePrefix(source))
	}
	return m
}

func (s *space) hasMasquerade(m dataplane.Masquerade) bool {
	s.t.Helper()
	has, err := s.kernel.HasMasquerade(m)
	if err != nil {
		s.t.Fatal(err)
	}
	return has
}

func TestMasquerade(t *testing.T) {
	s := newSpace(t)
	none := dataplane.Masquerade{}
	first := masquerade("up0", "10.0.0.0/16", "10.1.0.0/16", "172.16.0.0/24", "fd00:10::/48")
	others := []dataplane.Masquerade{
		none, masquerade("up1", "10.0.0.0/16", "10.1.0.0/16", "172.16.0.0/24", "fd00:10::/48"), masquerade("up0", "10.0.0.0/16"), masquerade("up0"),
	}
	if !s.hasMasquerade(none) || s.hasMasquerade(first) {
		t.Error("an empty kernel has source NAT")
	}
	s.nft("add table inet theirs")
	for range 2 { // setting it again changes nothing
		if err := s.kernel.SetMasquerade(first); err != nil {
			t.Fatal(err)
		}
		if !s.hasMasquerade(first) {
			t.Fatalf("what was set is not found:\n%s", s.nft("list ruleset"))
		}
	}
	rules := s.nft("list table inet frond-nat")
	for _, part := range []string{
		"type nat hook postrouting priority srcnat", `oifname "up0" ip saddr @sources4 masquerade`,
		`oifname "up0" ip6 saddr @sources6 masquerade`, "10.0.0.0/16", "172.16.0.0/24", "fd00:10::/48",
	} {
		if !strings.Contains(rules, part) {
			t.Errorf("nft does not show %q:\n%s", part, rules)
		}
	}
	for _, other := range others {
		if s.hasMasquerade(other) {
			t.Errorf("%+v is found, though %+v was set", other, first)
		}
	}
	for _, change := range []string{
		"delete table inet frond-nat", "flush chain inet frond-nat postrouting",
		"insert rule inet frond-nat postrouting accept", "add chain inet frond-nat more",
		"delete element inet frond-nat sources4 {172.16.0.0/24}", "add element inet frond-nat sources4 {192.0.2.0/24}",
	} {
		s.nft(change)
		if s.hasMasquerade(first) {
			t.Errorf("after %q all is as it was", change)
		}
		if err := s.kernel.SetMasquerade(first); err != nil {
			t.Fatal(err)
		}
		if !s.hasMasquerade(first) {
			t.Errorf("not mended after %q:\n%s", change, s.nft("list ruleset"))
		}
	}
	if err := s.kernel.SetMasquerade(none); err != nil {
		t.Fatal(err)
	}
	if left := s.nft("list tables"); !s.hasMasquerade(none) || strings.TrimSpace(left) != "table inet theirs" {
		t.Errorf("after the removal there is %s", left)
	}
}

func TestWatchRules(t *testing.T) {
	s := newSpace(t)
	ctx, stop := context.WithCancel(t.Context())
	changes, err := s.kernel.WatchRules(ctx)
	if err != nil {
		t.Fatal(err)
	}
	s.nft("add table inet theirs")
	select {
	case _, ok := <-changes:
		if !ok {
			t.Fatal("the watch has ended")
		}
	case <-time.After(10 * time.Second):
		t.Fatal("nothing is told of a new table")
	}
	s.setGuard(someGuard(), true, "by this process")
	select {
	case <-changes:
		t.Error("what this process has changed is told as if somebody else had")
	case <-time.After(100 * time.Millisecond):
	}
	stop()
	for range changes {
	}
}
