package kernel_test

import (
	"strings"
	"testing"

	"frond/internal/dataplane"
)

// TestRequestRulesAreMended has somebody else change the rules that keep
// guests' requests on the node.
func TestRequestRulesAreMended(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	set := func(when string, want bool, segments ...dataplane.Segment) {
		t.Helper()
		changed, err := s.kernel.SetRequests(segments)
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		if changed != want {
			t.Errorf("%s: changed is %t, want %t:\n%s", when, changed, want, s.nft("list ruleset"))
		}
	}
	blue := dataplane.Segment{VNI: 100, Bridge: "br-blue", VXLAN: "vx-blue", DHCP: true, DHCP6: true}
	red := dataplane.Segment{VNI: 200, Bridge: "br-red", VXLAN: "vx-red", DHCP6: true}
	none := dataplane.Segment{VNI: 300, Bridge: "br-none", VXLAN: "vx-none"}
	set("without segments", false)
	s.nft("add table inet theirs")
	set("at first", true, blue, red, none)
	whole := s.nft("-s list ruleset")
	set("once more", false, blue, red)
	for _, change := range []string{
		"flush ruleset",
		"delete table bridge frond-dhcp",
		"delete table inet frond-dhcp",
		"flush chain bridge frond-dhcp requests",
		"insert rule inet frond-dhcp requests accept",
		"add rule bridge frond-dhcp requests accept",
		"add chain bridge frond-dhcp more",
		"add chain inet frond-dhcp requests { policy drop ; }",
	} {
		s.nft(change)
		set("after "+change, true, blue, red)
		if got := s.nft("-s list ruleset"); !strings.Contains(whole, strings.TrimSpace(s.nft("-s list table bridge frond-dhcp"))) ||
			!strings.Contains(whole, strings.TrimSpace(s.nft("-s list table inet frond-dhcp"))) {
			t.Errorf("after %s there is\n%s\nwant\n%s", change, got, whole)
		}
	}
	set("with fewer segments", true, red)
	set("without any", true)
	if left := s.nft("list tables"); strings.Contains(left, "frond") {
		t.Errorf("what is left is %s", left)
	}
}
