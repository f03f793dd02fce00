package node

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"frond/internal/dataplane"
	"frond/internal/dhcp"
	"frond/internal/status"
	"frond/internal/store"
)

func TestRefusedByKernel(t *testing.T) {
	r := began(t, link("eth0", 1))
	r.plane.report.Problems = []dataplane.Problem{{Text: "a", Count: 2}, {Text: "b", Count: 3}}
	want := map[string]int{"routes": 5, "segments": 0, "nat": 0, "guard": 0}
	if diff := cmp.Diff(want, r.refusedByKernel()); diff != "" {
		t.Error(diff)
	}
}

func TestDescribeStore(t *testing.T) {
	if got := describeStore(store.ServiceReport{}); got != nil {
		t.Errorf("of nothing: %+v", got)
	}
	health := store.Health{Majority: true, Members: []store.MemberHealth{
		{Endpoint: store.Endpoint{Name: "spine1"}, Answers: true, Leader: true, Bytes: 7},
		{Endpoint: store.Endpoint{Name: "spine2"}, Problem: "away"},
	}}
	want := &status.Store{Majority: true, Members: []status.StoreMember{{Name: "spine1", Answers: true, Leader: true, Bytes: 7}, {Name: "spine2"}}}
	if diff := cmp.Diff(want, describeStore(store.ServiceReport{Health: &health})); diff != "" {
		t.Error(diff)
	}
}

func TestDescribeDHCP(t *testing.T) {
	got := describeDHCP(dhcp.Report{
		Pools:   []dhcp.Pool{{Segment: "blue", Size: 4, Used: 3}},
		Counts:  dhcp.Counts{Discovers: 1, Requests: 2, Declines: 3, Releases: 4, Informs: 5, Acks: 6, Naks: 7, Malformed: 8, Dropped: 9, Exhausted: 10, Conflicts: 11, Crowded: 14, Posed: 15},
		Waiting: 12, Unwritten: 13,
	})
	want := status.DHCP{
		Pools:   []status.Pool{{Segment: "blue", Size: 4, Used: 3}},
		Waiting: 12, Pending: 13,
		Messages: map[string]uint64{"discover": 1, "request": 2, "decline": 3, "release": 4, "inform": 5, "ack": 6, "nak": 7},
		Failures: map[string]uint64{"malformed": 8, "posed": 15, "dropped": 9, "exhausted": 10, "port-limit": 14, "conflict": 11},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
