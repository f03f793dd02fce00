package node

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"frond/internal/bgp"
	"frond/internal/dataplane"
	"frond/internal/plan"
)

// addr is the zero Addr for no text.
func addr(text string) netip.Addr {
	if text == "" {
		return netip.Addr{}
	}
	return netip.MustParseAddr(text)
}

func addrs(texts []string) []netip.Addr {
	var all []netip.Addr
	for _, text := range texts {
		all = append(all, addr(text))
	}
	return all
}

func (r *rig) addr(text string) netip.Addr       { return addr(text) }
func (r *rig) leg(text string) dataplane.NextHop { return plan.Leg(addr(text)) }
func (r *rig) prefix(text string) netip.Prefix   { return netip.MustParsePrefix(text) }

func TestKernelConditions(t *testing.T) {
	r := began(t, link("eth0", 1))
	r.hear("eth0", "fe80::1")
	r.session(spine1, bgp.Established)
	r.wantConditions("all is well")

	r.plane.report = dataplane.Report{MissingSysctls: []string{"net/ipv4/neigh/default/gc_thresh1", "net/ipv4/fib_multipath_hash_policy"}}
	r.wantConditions("absent values", "warning sysctl-not-set net/ipv4/fib_multipath_hash_policy")

	r.plane.report = dataplane.Report{Problems: []dataplane.Problem{
		{Text: "set sysctl net/ipv4/ip_forward: read-only file system", Count: 1},
		{Text: "set route fd00::1/128: no buffer space available", Count: 7},
	}}
	r.wantConditions("refused", `failure sysctl-not-set net/ipv4/ip_forward`, "failure kernel-refused set route fd00::1/128")

	r.plane.report = dataplane.Report{Desired: 5, Installed: 4}
	r.wantConditions("a batch under way")
	r.now = r.now.Add(misfitTime)
	r.wantConditions("for long", "failure routes-not-installed kernel")
	r.plane.report.Installed = 5
	r.wantConditions("in the end")
	r.plane.report.Installed = 4
	r.wantConditions("the next batch")
}

func TestPortConditions(t *testing.T) {
	r := began(t)
	r.wantConditions("no ports", "failure no-ports leaf1")
	r.setLinks(noCarrierOn(link("eth0", 1)), link("eth1", 2))
	r.wantConditions("nothing there yet", "warning port-no-carrier eth0", "warning nobody-answers eth1")
	r.hear("eth1", "fe80::3")
	r.session(spine3, bgp.Idle)
	r.wantConditions("no session", "failure session-down eth1", "warning port-no-carrier eth0")
	r.heard(bgp.PeerChanged{Peer: bgp.PeerStatus{Addr: r.addr(spine3), State: bgp.Connect, KeyFault: bgp.KeyDiffers, Reason: "so it signs"}})
	r.wantConditions("another key", "failure wrong-key eth1", "warning port-no-carrier eth0")
	r.session(spine3, bgp.Established)
	r.wantConditions("session", "warning port-no-carrier eth0")
}

func TestRoutesOf(t *testing.T) {
	r := began(t, link("eth0", 1), link("eth1", 2))
	r.hear("eth0", "fe80::1")
	r.hear("eth1", "fe80::3")
	r.session(spine1, bgp.Established)
	r.paths("10.0.200.2/32", spine3, spine1)
	r.paths("10.0.201.0/24", spine1)
	r.heard(bgp.PathsChanged{Unicast: []bgp.Paths{{Prefix: r.prefix("10.0.200.1/32"), Local: true}}})
	whole := []dataplane.NextHop{r.leg(spine1), r.leg(spine3)}
	r.plane.kernel = map[netip.Prefix][]dataplane.NextHop{r.prefix("10.0.200.2/32"): whole}

	n := &Node{requests: make(chan func(*loop)), ended: make(chan struct{})}
	go func() {
		for f := range n.requests {
			f(r.loop)
		}
	}()
	defer close(n.requests)

	tests := []struct {
		prefix string
		want   string
	}{
		{"", "10.0.200.1/32 local, 10.0.200.2/32 via spine1@eth0 @eth1, 10.0.201.0/24 via spine1@eth0 missing"},
		{"10.0.200.0/24", "10.0.200.1/32 local, 10.0.200.2/32 via spine1@eth0 @eth1"},
		{"10.0.201.0/24", "10.0.201.0/24 via spine1@eth0 missing"},
		{"10.0.201.1/32", ""},
		{"fd00::/8", ""},
	}
	for _, test := range tests {
		var prefix netip.Prefix
		if test.prefix != "" {
			prefix = r.prefix(test.prefix)
		}
		var words []string
		for _, route := range n.Routes(prefix) {
			text := route.Prefix
			if route.Local {
				text += " local"
			}
			for i, hop := range route.NextHops {
				text += map[bool]string{true: " via ", false: " "}[i == 0] + hop.Name + "@" + hop.Port
			}
			if !route.Installed {
				text += " missing"
			}
			words = append(words, text)
		}
		if got := strings.Join(words, ", "); got != test.want {
			t.Errorf("Routes(%s) = %q, want %q", test.prefix, got, test.want)
		}
	}
	r.plane.kernel[r.prefix("10.0.200.2/32")] = whole[:1]
	if n.Routes(r.prefix("10.0.200.2/32"))[0].Installed {
		t.Error("a route with one of its two next hops counts as installed")
	}
	r.paths("10.0.200.2/32")
	r.paths("10.0.201.0/24")
	if len(r.table.uses) > 0 {
		t.Errorf("no route is left, but legs are in use: %v", r.table.uses)
	}
}

func TestNew(t *testing.T) {
	good := filepath.Join(t.TempDir(), "fabric.yaml")
	if err := os.WriteFile(good, []byte(testDocument), 0o600); err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte("fabric: [\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ document, node, want string }{
		{good, "leaf1", ""},
		{good, "leaf9", "leaf9"},
		{bad, "leaf1", "bad.yaml:"},
		{filepath.Join(t.TempDir(), "absent.yaml"), "leaf1", "absent.yaml"},
	}
	for _, test := range tests {
		_, err := New(Config{Document: test.document, Node: test.node}, slog.New(slog.DiscardHandler))
		switch {
		case test.want == "" && err != nil:
			t.Errorf("New(%s, %s) = %v", test.document, test.node, err)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("New(%s, %s) = %v, want an error that names %s", test.document, test.node, err, test.want)
		}
	}
}

func TestAskAfterTheEnd(t *testing.T) {
	n := &Node{cfg: Config{Node: "leaf1"}, requests: make(chan func(*loop)), ended: make(chan struct{})}
	ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	if err := n.Down(ctx); err == nil {
		t.Error("Down of a node that does not run yet and whose caller gives up succeeds")
	}
	close(n.ended)
	if got := n.Status().Node; got != "leaf1" {
		t.Errorf("Status of an ended node is of %q", got)
	}
	if n.Routes(netip.Prefix{}) == nil && n.Down(t.Context()) == nil {
		t.Error("Down of an ended node succeeds")
	}
}
