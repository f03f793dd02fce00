package node

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"frond/internal/bgp"
	"frond/internal/dataplane"
	"frond/internal/plan"
	"frond/internal/status"
	"frond/internal/uplink"
)

const exitDocument = `
fabric: apollo
underlay: {loopbacks: [10.0.0.0/16, "fd00:10::/48"], ports: ["eth*"]}
nodes:
  edge1: {role: exit, loopback: 10.0.100.1, uplink: {UPLINK}}
  edge2: {role: exit, loopback: 10.0.100.2, uplink: {port: up0, preference: 200}}
`

const static = `port: up0, masquerade: true, address: 192.0.2.2/24, next_hop: 192.0.2.1, address6: "2001:db8::2/64", next_hop6: "2001:db8::1"`

var (
	router4 = netip.MustParseAddr("192.0.2.1")
	router6 = netip.MustParseAddr("2001:db8::1")
	up0     = dataplane.Link{Name: "up0", Index: 9, Up: true, Carrier: true, MAC: "02:00:00:00:00:09", LinkLocal: netip.MustParseAddr("fe80::9")}
)

// newExit is a rig of an exit whose loop has looked at nothing yet.
func newExit(t *testing.T, uplink string) *rig {
	r := newRig(t)
	d := parse(t, strings.Replace(exitDocument, "UPLINK", uplink, 1), "edge1")
	r.plan, r.document = d.plan, d.status
	return r
}

// beganExit is one that has converged, with these links.
func beganExit(t *testing.T, uplink string, links ...dataplane.Link) *rig {
	r := newExit(t, uplink)
	r.loop.adopted = true
	r.setLinks(links...)
	r.heard(bgp.Converged{})
	r.step()
	return r
}

// found has the watcher tell what it found for what it was last told.
func (r *rig) found(v4, v6 uplink.Router) {
	r.uplinkChanged(uplink.State{Desired: r.way.desired, Families: [uplink.Families]uplink.Router{v4, v6}})
	r.step()
}

func answers(a netip.Addr) uplink.Router { return uplink.Router{Addr: a, Verdict: uplink.Answers} }
func silent(a netip.Addr) uplink.Router {
	return uplink.Router{Addr: a, Verdict: uplink.Silent, Reason: "it does not answer"}
}
func unknown(a netip.Addr) uplink.Router { return uplink.Router{Addr: a} }

// wantOut checks which default routes are announced, and which the kernel was
// told to leave by.
func (r *rig) wantOut(when string, announced string, v4, v6 string) {
	r.t.Helper()
	var got []string
	for _, route := range r.bgp.desired.Routes {
		if route.Prefix.Bits() == 0 {
			got = append(got, route.Prefix.String())
			if route.Prepend != r.plan.Uplink.Prepend {
				r.t.Errorf("%s: %s is longer by %d, want %d", when, route.Prefix, route.Prepend, r.plan.Uplink.Prepend)
			}
		}
	}
	if strings.Join(got, " ") != announced {
		r.t.Errorf("%s: announced are %q, want %q", when, got, announced)
	}
	for f, want := range []string{v4, v6} {
		var legs []string
		for _, leg := range r.plane.routes[plan.Defaults[f]].NextHops {
			legs = append(legs, leg.String())
		}
		if strings.Join(legs, " ") != want {
			r.t.Errorf("%s: %s leaves by %q, want %q", when, plan.Defaults[f], legs, want)
		}
	}
}

const (
	both = "0.0.0.0/0 ::/0"
	leg4 = "192.0.2.1%up0"
	leg6 = "2001:db8::1%up0"
)

func TestDefaultRouteFollowsTheUplink(t *testing.T) {
	r := beganExit(t, static, up0, link("eth1", 1))
	r.wantOut("nobody asked yet", "", "", "")
	if d := r.plane.desired.Uplink; d.Port != "up0" || len(d.Addresses) != 2 || d.Unsettled {
		t.Errorf("of the port, %+v is desired", d)
	}
	if !r.nat.desired.Equal(r.plan.Uplink.Masquerade) || r.nat.desired.Port != "up0" {
		t.Errorf("source NAT is %+v", r.nat.desired)
	}
	r.found(answers(router4), unknown(router6))
	r.wantOut("IPv4 answers", "0.0.0.0/0", leg4, "")
	if r.nat.refreshed != 1 {
		t.Errorf("connections were refreshed %d times", r.nat.refreshed)
	}
	r.found(answers(router4), answers(router6))
	r.wantOut("both answer", both, leg4, leg6)
	r.paths("0.0.0.0/0", "fe80::1%eth1")
	r.wantOut("others announce it too", both, leg4, leg6)
	if u := r.snapshot(r.now).Uplink; u == nil || len(u.Routers) != 2 || !u.Routers[0].Works || u.Routers[1].Address != "2001:db8::1" {
		t.Errorf("status shows %+v", u)
	}
	r.found(silent(router4), answers(router6))
	if u := r.snapshot(r.now).Uplink; len(u.Routers) != 2 || u.Routers[0].Works || u.Routers[0].Address != "192.0.2.1" || !u.Routers[1].Works {
		t.Errorf("status shows %+v", u)
	}
	r.wantOut("IPv4 is silent", "::/0", "fe80::1%eth1", leg6)
	r.wantFailed("IPv4 is silent", leg4)
	r.wantConditions("IPv4 is silent", "failure uplink-down up0", "warning nobody-answers eth1")
	r.found(answers(router4), answers(router6))
	r.wantOut("it is back", both, leg4, leg6)
	r.wantFailed("it is back")
	r.setLinks(noCarrierOn(up0), link("eth1", 1))
	r.wantOut("no carrier", "", "fe80::1%eth1", "")
	r.wantConditions("no carrier", "failure uplink-down up0", "warning nobody-answers eth1")
	r.setLinks(up0, link("eth1", 1))
	r.wantOut("carrier again, nobody asked", "", "fe80::1%eth1", "")
	r.uplinkChanged(uplink.State{Families: [uplink.Families]uplink.Router{answers(router4), answers(router6)}})
	r.step()
	r.wantOut("news of another time", "", "fe80::1%eth1", "")
	r.found(answers(router4), answers(router6))
	r.wantOut("all again", both, leg4, leg6)
	r.wantConditions("all again", "warning nobody-answers eth1")
	r.setLinks(link("eth1", 1))
	r.wantOut("the port is gone", "", "fe80::1%eth1", "")
	r.wantConditions("the port is gone", "failure uplink-down up0", "warning nobody-answers eth1")
}

func TestUplinkOutlivesARestart(t *testing.T) {
	for name, test := range map[string]struct {
		uplink    string
		before    dataplane.NextHop
		announced string
		leg       string
	}{
		"as it was":            {static, dataplane.NextHop{Port: "up0", Via: router4}, "0.0.0.0/0", leg4},
		"of the operator":      {"port: up0", dataplane.NextHop{Port: "up0", Via: router4}, "0.0.0.0/0", leg4},
		"DHCP":                 {"port: up0, dhcp: true", dataplane.NextHop{Port: "up0", Via: router4}, "0.0.0.0/0", leg4},
		"another router named": {static, dataplane.NextHop{Port: "up0", Via: netip.MustParseAddr("192.0.2.9")}, "", ""},
		"another port named":   {static, dataplane.NextHop{Port: "up1", Via: router4}, "", ""},
		"none before":          {static, dataplane.NextHop{Port: "eth1", Via: netip.MustParseAddr("fe80::1")}, "", ""},
	} {
		r := newExit(t, test.uplink)
		r.plane.before = []dataplane.NextHop{test.before}
		r.loop.adopted = true
		r.setLinks(up0, link("eth1", 1))
		r.wantOut(name, test.announced, test.leg, "")
		if slices.ContainsFunc(r.plane.failed, func(leg dataplane.NextHop) bool { return leg.Port == "up0" }) {
			t.Errorf("%s: the router of the run before counts as failed", name)
		}
		r.found(unknown(router4), uplink.Router{})
		r.wantOut(name+", nobody asked yet", test.announced, test.leg, "")
		r.found(silent(router4), uplink.Router{})
		r.wantOut(name+", silent", "", "", "")
	}
}

func TestLeaseOfTheUplink(t *testing.T) {
	r := beganExit(t, "port: up0, dhcp: true", up0)
	if d := r.plane.desired.Uplink; !d.Unsettled || len(d.Addresses) > 0 {
		t.Errorf("before an answer %+v is desired", d)
	}
	lease := func(address string, asking bool) {
		s := uplink.State{Desired: r.way.desired, Asking: asking}
		if address != "" {
			s.Lease = uplink.Lease{Address: netip.MustParsePrefix(address), Router: router4}
			s.Families[uplink.IPv4] = answers(router4)
		} else if !asking {
			s.Trouble = "no response"
			s.Families[uplink.IPv4] = uplink.Router{Verdict: uplink.Silent}
		}
		r.uplinkChanged(s)
		r.step()
	}
	want := func(when string, unsettled bool, addresses ...string) {
		t.Helper()
		var got []string
		for _, a := range r.plane.desired.Uplink.Addresses {
			got = append(got, a.String())
		}
		if !slices.Equal(got, addresses) || r.plane.desired.Uplink.Unsettled != unsettled {
			t.Errorf("%s: %+v", when, r.plane.desired.Uplink)
		}
	}
	lease("", true)
	want("asking", true)
	lease("192.0.2.7/24", false)
	want("leased", false, "192.0.2.7/24")
	r.wantOut("leased", "0.0.0.0/0", leg4, "")
	lease("10.0.200.7/16", false)
	want("inside of the fabric", false)
	r.wantOut("inside of the fabric", "", "", "")
	if c := r.snapshot(r.now).Conditions; !slices.ContainsFunc(texts(c), func(s string) bool { return strings.Contains(s, "inside of the fabric") }) {
		t.Errorf("conditions are %+v", c)
	}
	lease("", false)
	want("over", false)
	if c := r.snapshot(r.now).Conditions; !slices.ContainsFunc(texts(c), func(s string) bool { return strings.Contains(s, "no DHCP lease: no response") }) {
		t.Errorf("conditions are %+v", c)
	}
}

func TestUplinkOfTheDocumentChanges(t *testing.T) {
	r := beganExit(t, static, up0)
	r.found(answers(router4), answers(router6))
	load := func(text string) {
		r.adopt(parse(t, strings.Replace(exitDocument, "UPLINK", text, 1), "edge1"), nil)
		r.step()
	}
	load(strings.Replace(static, "next_hop: 192.0.2.1,", "next_hop: 192.0.2.3,", 1))
	r.wantOut("another router, nobody asked", "::/0", "", leg6)
	r.found(answers(netip.MustParseAddr("192.0.2.3")), answers(router6))
	r.wantOut("it answers", both, "192.0.2.3%up0", leg6)
	load(strings.Replace(static, "port: up0", "port: up1", 1))
	r.wantOut("another port, which is not there", "", "", "")
	r.adopt(parse(t, strings.Replace(exitDocument, ", uplink: {UPLINK}", "", 1), "edge1"), nil)
	r.step()
	if !r.nat.desired.Equal(dataplane.Masquerade{}) || r.way.desired != (uplink.Desired{}) || r.plane.desired.Uplink.Port != "" {
		t.Errorf("without an uplink, there is still %+v, %+v, %+v", r.nat.desired, r.way.desired, r.plane.desired.Uplink)
	}
	r.wantConditions("without an uplink", "failure no-ports edge1")
}

func TestNATThatIsRefused(t *testing.T) {
	r := beganExit(t, static, up0, link("eth1", 1))
	r.found(answers(router4), answers(router6))
	r.nat.problem = "this kernel has no nft_masq"
	r.wantConditions("refused", "failure source-nat-not-set up0", "warning nobody-answers eth1")
}

func texts(conditions []status.Condition) []string {
	var all []string
	for _, c := range conditions {
		all = append(all, c.Text)
	}
	return all
}
