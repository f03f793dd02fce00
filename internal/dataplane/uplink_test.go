package dataplane

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// TestUplinkSysctls has the uplink forward and leaves autoconfiguration as the
// operator has it.
func TestUplinkSysctls(t *testing.T) {
	six := []netip.Prefix{netip.MustParsePrefix("2001:db8::2/64")}
	for name, test := range map[string]struct {
		uplink    Uplink
		have      string // accept_ra
		want      string // what it is set to; empty: it is left alone
		forwarded bool
	}{
		"the default of a kernel":    {Uplink{Port: "up0"}, "1", "2", true},
		"for routers already":        {Uplink{Port: "up0"}, "2", "", true},
		"the operator wants none":    {Uplink{Port: "up0"}, "0", "", true},
		"an address in the document": {Uplink{Port: "up0", Addresses: six}, "1", "", true},
		"a port that is not there":   {Uplink{Port: "up9"}, "1", "", false},
		"no uplink":                  {Uplink{}, "1", "", false},
	} {
		now := newState()
		now.Links["up0"] = Link{Name: "up0", Up: true}
		for path, value := range map[string]string{"ipv4/conf/up0/forwarding": "0", "ipv6/conf/up0/forwarding": "0", "ipv6/conf/up0/accept_ra": test.have} {
			now.Sysctls["net/"+path] = value
		}
		var got, forwarding []string
		for _, op := range diffPorts(now, &intent{desired: Desired{Uplink: test.uplink}}) {
			set, ok := op.(SetSysctl)
			switch {
			case ok && strings.HasSuffix(set.Path, "accept_ra"):
				got = append(got, set.Value)
			case ok && strings.HasSuffix(set.Path, "up0/forwarding"):
				forwarding = append(forwarding, set.Value)
			}
		}
		if strings.Join(got, " ") != test.want || slices.Equal(forwarding, []string{"1", "1"}) != test.forwarded {
			t.Errorf("%s: accept_ra is set to %q, want %q; forwarding to %q", name, got, test.want, forwarding)
		}
	}
}
