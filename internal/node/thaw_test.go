package node

import (
	"net/netip"
	"strings"
	"testing"

	"frond/internal/dataplane"
)

func TestThaw(t *testing.T) {
	r := began(t, link("eth0", 2))
	restless, calm := dataplane.MAC{2, 0, 0, 0, 0, 1}, dataplane.MAC{2, 0, 0, 0, 0, 2}
	thaw := func(text, segment string) error {
		t.Helper()
		s, err := parseStation(text)
		if err != nil {
			return err
		}
		return r.thaw(s, segment)
	}
	if err := thaw(restless.String(), ""); err == nil || err.Error() != "this node takes part in no segment" {
		t.Error(err)
	}
	r.plan = parse(t, segmentDocument, "leaf1").plan
	r.plan.Guard.Guests = nil // it keeps addresses from moving between guests
	r.step()
	r.overlayChanged(dataplane.LocalMACs{{VNI: 100, MAC: calm, Port: "tap9"}})
	r.overlayChanged(dataplane.LocalAddresses{{VNI: 100, MAC: calm, IP: netip.MustParseAddr("172.16.0.12"), Port: "tap9"}})
	for i := range 8 {
		r.overlayChanged(dataplane.LocalMACs{{VNI: 100, MAC: restless, Port: []string{"tap0", "tap1"}[i%2]}})
		r.overlayChanged(dataplane.LocalAddresses{{VNI: 100, MAC: dataplane.MAC{2, 0, 0, 0, 0, byte(1 + i%2)}, IP: netip.MustParseAddr("172.16.0.11"), Port: "tap0"}})
	}
	r.step()
	for _, test := range []struct{ station, segment, problem string }{
		{"tap0", "", "neither a MAC nor an address"},
		{"00:00:00:00:00:00", "", "neither a MAC nor an address"},
		{restless.String(), "red", `no segment "red", only in blue`},
		{calm.String(), "", "is not frozen on this node"},
		{"172.16.0.12", "blue", "is not frozen on this node"},
		{"02:00:00:00:00:03", "", "is not known on this node"},
		{restless.String(), "blue", ""},
		{restless.String(), "", "is not frozen on this node"},
		{"172.16.0.11", "", ""},
		{"172.16.0.11", "", "is not frozen on this node"},
	} {
		err := thaw(test.station, test.segment)
		if (err == nil) != (test.problem == "") || err != nil && !strings.Contains(err.Error(), test.problem) {
			t.Errorf("thaw %s on %q: %v, want %q", test.station, test.segment, err, test.problem)
		}
	}
	if problems := r.segments.stations.Problems(); len(problems) != 0 {
		t.Errorf("after the thaw: %+v", problems)
	}
}
