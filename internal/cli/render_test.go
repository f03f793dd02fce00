package cli

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"frond/internal/api"
	"frond/internal/status"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares text with a file of testdata.
func golden(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), text); diff != "" {
		t.Errorf("%s (- want, + got):\n%s", path, diff)
	}
}

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) time.Time { return noon.Add(-d) }

// healthyNode is a leaf under two spines.
func healthyNode() status.Snapshot {
	peer := func(port, name string, asn uint32) status.Peer {
		return status.Peer{Port: port, Name: name, Address: "fe80::1", ASN: asn, RouterID: "10.0.254.1", State: "established",
			Since: ago(192 * time.Second), BFD: "up", HoldSeconds: 9,
			Received: map[string]int{"ipv4": 4, "ipv6": 4}, Sent: map[string]int{"ipv4": 1, "ipv6": 1}}
	}
	return status.Snapshot{
		Fabric: "apollo", Node: "leaf1", Role: "leaf", Version: "1.2.0", Engine: "native", PID: 4242,
		Started: ago(26*time.Hour + 5*time.Minute), Ready: true, ASN: 4200051201,
		Loopback: "10.0.200.1", Loopback6: "fd4a:91c2:77e0::a00:c801",
		Document: status.Document{Path: "/etc/frond/fabric.yaml", Loaded: ago(26 * time.Hour),
			SHA256: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"},
		Peers:      []status.Peer{peer("eth1", "spine1", 4200065025), peer("eth2", "spine2", 4200065026)},
		Routes:     status.Totals{Desired: 10, Installed: 10},
		Conditions: []status.Condition{},
	}
}

// brokenNode shows every way in which a line can be unusual.
func brokenNode() status.Snapshot {
	s := healthyNode()
	s.Document.Error = "/etc/frond/fabric.yaml:12:5: nodes.leaf3.loopback: 10.0.200.2 is leaf2's already; give each node its own"
	s.Routes = status.Totals{Desired: 10, Installed: 9}
	s.Peers[0].Flaps, s.Peers[0].Malformed, s.Peers[0].MalformedEVPN = 3, 1, 2
	s.Peers[1].State, s.Peers[1].BFD, s.Peers[1].Restarting = "connect", "down", true
	s.Peers[1].Reason, s.Peers[1].Since = "the hold timer expired", ago(4*time.Second)
	s.Peers = append(s.Peers,
		status.Peer{Port: "eth3", State: "down", Reason: "no carrier", Since: ago(2*time.Hour + 7*time.Minute), BFD: "off"},
		status.Peer{Port: "eth4", State: "idle", Address: "fe80::5054:ff:fe12:3456", Name: "evil\x1b[31m\nname", BFD: "unanswered",
			Reason: "two neighbours answer on this cable, fe80::5054:ff:fe12:3456 and fe80::5054:ff:fe12:9999: a cable has one other end"},
		status.Peer{Port: "eth5", State: "open", Address: "fe80::7"},
	)
	s.Conditions = []status.Condition{
		{Name: "route-not-installed", Subject: "10.0.200.2/32", Severity: status.Failure, Since: ago(3 * time.Second), Text: "the kernel does not hold this route: no buffer space available"},
		{Name: "port-no-carrier", Subject: "eth3", Severity: status.Warning, Since: ago(2*time.Hour + 7*time.Minute), Text: "no carrier: is the cable plugged in at both ends, and is the other end up?"},
	}
	return s
}

func someRouteList() api.Routes {
	return api.Routes{Routes: []status.Route{
		{Prefix: "10.0.200.1/32", Local: true, Installed: true},
		{Prefix: "10.0.200.2/32", ASPath: []uint32{4200065025, 4200051202}, Installed: true, NextHops: []status.NextHop{
			{Port: "eth1", Address: "fe80::1", Name: "spine1"}, {Port: "eth2", Address: "fe80::2", Name: "spine2", Stale: true}}},
		{Prefix: "fd4a:91c2:77e0::a00:c802/128", ASPath: []uint32{4200051202}, NextHops: []status.NextHop{{Port: "eth1", Address: "fe80::1"}}},
	}}
}

func TestGolden(t *testing.T) {
	wide, narrow, tiny := view{now: noon}, view{now: noon, width: 80}, view{now: noon, width: 50}
	colour := view{now: noon, width: 120, colour: true}
	starting := healthyNode()
	starting.Ready, starting.Started, starting.Peers, starting.Routes = false, noon, nil, status.Totals{}
	evpn := healthyNode().Peers[:1]
	evpn[0].Received["evpn"] = 3

	for name, text := range map[string]string{
		"status-healthy.txt":       renderStatus(healthyNode(), wide),
		"status-broken.txt":        renderStatus(brokenNode(), wide),
		"status-broken-80.txt":     renderStatus(brokenNode(), narrow),
		"status-broken-50.txt":     renderStatus(brokenNode(), tiny),
		"status-broken-colour.txt": renderStatus(brokenNode(), colour),
		"status-starting.txt":      renderStatus(starting, wide),
		"peers-evpn.txt":           renderPeers(api.Peers{Peers: evpn}, wide),
		"peers-none.txt":           renderPeers(api.Peers{}, wide),
		"routes.txt":               renderRoutes(someRouteList(), wide),
		"routes-80.txt":            renderRoutes(someRouteList(), narrow),
		"routes-none.txt":          renderRoutes(api.Routes{}, wide),
		"segments.txt":             renderSegments(someSegments(), wide),
		"segments-80.txt":          renderSegments(someSegments(), narrow),
		"segments-colour.txt":      renderSegments(someSegments(), colour),
		"segments-none.txt":        renderSegments(api.Segments{}, wide),
		"macs.txt":                 renderMACs(someMACs(), wide),
		"macs-80.txt":              renderMACs(someMACs(), narrow),
		"macs-none.txt":            renderMACs(api.MACs{}, wide),
		"guard.txt":                renderGuard(someGuard(), wide),
		"guard-80.txt":             renderGuard(someGuard(), narrow),
		"guard-none.txt":           renderGuard(status.Guard{}, wide),
		"evpn.txt":                 renderEVPN(someEVPN(), wide),
		"evpn-80.txt":              renderEVPN(someEVPN(), narrow),
		"evpn-none.txt":            renderEVPN(api.EVPN{}, wide),
		"hypervisor.txt":           renderHypervisor(someHypervisor(), wide),
		"hypervisor-away.txt":      renderHypervisor(hangingHypervisor(), narrow),
		"hypervisor-cluster.txt":   renderHypervisor(status.Hypervisor{Contact: "connected", Socket: "/s", Product: "LXD", Version: "5.0.2", ClusterTrouble: "no answer within 30s"}, wide),
		"hypervisor-absent.txt":    renderHypervisor(status.Hypervisor{Contact: "absent"}, wide),
		"hypervisor-off.txt":       renderHypervisor(status.Hypervisor{Contact: "off"}, wide),
		"gateways.txt":             renderGateways(someGateways(), wide),
		"gateways-80.txt":          renderGateways(someGateways(), narrow),
		"leases.txt":               renderLeases(someLeases(), wide),
		"leases-80.txt":            renderLeases(someLeases(), narrow),
		"leases-none.txt":          renderLeases(api.Leases{}, wide),
		"gateways-none.txt":        renderGateways(api.Gateways{}, wide),
	} {
		golden(t, name, text)
	}
}

// Whatever a peer calls itself, it does not write to the terminal.
func TestNothingOfAPeerReachesTheTerminal(t *testing.T) {
	text := renderStatus(brokenNode(), view{now: noon})
	if strings.ContainsAny(text, "\x1b\r") || strings.Contains(text, "\nname") {
		t.Errorf("%q", text)
	}
}

func TestYAML(t *testing.T) {
	text, err := formatYAML.encode(map[string]any{
		"asn": 4200051201, "since": noon, "text": "yes", "number": "42", "path": []int{1, 2}, "none": []int{},
		"odd": "a: b <c> # d", "object": map[string]int{}, "ready": true,
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `asn: 4200051201
none: []
number: "42"
object: {}
odd: 'a: b <c> # d'
path:
  - 1
  - 2
ready: true
since: "2026-03-01T12:00:00Z"
text: "yes"
`
	if diff := cmp.Diff(want, text); diff != "" {
		t.Error(diff)
	}
}

func TestAge(t *testing.T) {
	const day = 24 * time.Hour
	for d, want := range map[time.Duration]string{
		-time.Hour:                             "0s",
		0:                                      "0s",
		1999 * time.Millisecond:                "1s",
		59 * time.Second:                       "59s",
		time.Minute:                            "1m0s",
		3*time.Minute + 12*time.Second:         "3m12s",
		time.Hour:                              "1h0m",
		day - time.Second:                      "23h59m",
		day:                                    "1d0h",
		400*day + 5*time.Hour + 59*time.Minute: "400d5h",
	} {
		if got := age(d); got != want {
			t.Errorf("age(%v) = %s, want %s", d, got, want)
		}
	}
	if got := (view{now: noon}).since(time.Time{}); got != "" {
		t.Errorf("since never = %q", got)
	}
}
