package metrics

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"frond/internal/status"
)

var update = flag.Bool("update", false, "write the table of docs/metrics.md instead of comparing with it")

// everything has something of all that there are metrics of.
func everything() status.Vitals {
	return status.Vitals{
		Status: status.Snapshot{
			Fabric: "apollo", Node: "edge1", Role: "exit", Version: "v1", Engine: "native", Started: time.Unix(1, 5e8), Ready: true,
			Document: status.Document{Loaded: time.Unix(2, 0), Error: "no"},
			Routes:   status.Totals{Desired: 5, Installed: 4},
			Peers: []status.Peer{
				{Port: "eth0", State: "established", BFD: "up", Flaps: 3, Refused: 7, Malformed: 1, MalformedEVPN: 2,
					Received: map[string]int{"ipv4": 10, "evpn": 11}, Sent: map[string]int{"ipv6": 12}},
				{Port: "eth1", State: "connect", BFD: "down", Key: "differs"},
				{Port: "eth2\xff", State: "down", BFD: "off"},
			},
			Uplink: &status.Uplink{Routers: []status.Router{{Family: "ipv4", Works: true}, {Family: "ipv6"}}},
			Conditions: []status.Condition{
				{Name: "session-down", Subject: "eth1", Severity: status.Failure},
				{Name: "session-down", Subject: "eth2", Severity: status.Failure},
				{Name: "port-no-carrier", Subject: "eth3", Severity: status.Warning},
			},
		},
		Segments: []status.Segment{{Name: "blue", Ready: true, VTEPs: []string{"a", "b"}, LocalMACs: 3, RemoteMACs: 4, Pending: 5, Problems: []string{"x"}}},
		Gateways: []status.Gateway{{Segment: "blue", Mode: "anycast", Here: true}, {Segment: "red", Mode: "elected", Holder: "leaf1", Term: 9}},
		Guard: status.Guard{
			Routes: []status.RefusedRoute{{Port: "eth0", Reason: "so"}, {Port: "eth0", Reason: "so", Peer: "x"}, {Port: "eth0", Reason: "thus"}},
			Drops:  []status.GuardDrop{{Rule: "gateway", Port: "tap0", Segment: "blue", Packets: 99}},
		},
		Kernel: map[string]int{"routes": 2, "guard": 0},
		DHCP: status.DHCP{
			Pools: []status.Pool{{Segment: "blue", Size: 100, Used: 91}}, Waiting: 1, Pending: 2,
			Messages: map[string]uint64{"ack": 5}, Failures: map[string]uint64{"exhausted": 6},
		},
		Store: &status.Store{Majority: true, Members: []status.StoreMember{{Name: "spine1", Answers: true, Leader: true, Bytes: 1000}, {Name: "spine2"}}},
	}
}

// lines are samples in the form of `name{value,value} number`, sorted.
func lines(samples []Sample) []string {
	var all []string
	for _, s := range samples {
		all = append(all, fmt.Sprintf("%s{%s} %v", s.Metric, strings.Join(s.Labels, ","), s.Value))
	}
	slices.Sort(all)
	return all
}

func TestOf(t *testing.T) {
	got := lines(Of(everything()))
	want := strings.Fields(strings.ReplaceAll(`
frond_bfd_sessions{down}_1 frond_bfd_sessions{init}_0 frond_bfd_sessions{off}_1 frond_bfd_sessions{unanswered}_0 frond_bfd_sessions{up}_1
frond_bgp_malformed_evpn_routes_total{eth0}_2 frond_bgp_malformed_evpn_routes_total{eth1}_0 frond_bgp_malformed_evpn_routes_total{eth2�}_0
frond_bgp_malformed_updates_total{eth0}_1 frond_bgp_malformed_updates_total{eth1}_0 frond_bgp_malformed_updates_total{eth2�}_0
frond_bgp_prefixes_received{eth0,evpn}_11 frond_bgp_prefixes_received{eth0,ipv4}_10 frond_bgp_prefixes_received{eth0,ipv6}_0
frond_bgp_prefixes_received{eth1,evpn}_0 frond_bgp_prefixes_received{eth1,ipv4}_0 frond_bgp_prefixes_received{eth1,ipv6}_0
frond_bgp_prefixes_received{eth2�,evpn}_0 frond_bgp_prefixes_received{eth2�,ipv4}_0 frond_bgp_prefixes_received{eth2�,ipv6}_0
frond_bgp_prefixes_sent{eth0,evpn}_0 frond_bgp_prefixes_sent{eth0,ipv4}_0 frond_bgp_prefixes_sent{eth0,ipv6}_12
frond_bgp_prefixes_sent{eth1,evpn}_0 frond_bgp_prefixes_sent{eth1,ipv4}_0 frond_bgp_prefixes_sent{eth1,ipv6}_0
frond_bgp_prefixes_sent{eth2�,evpn}_0 frond_bgp_prefixes_sent{eth2�,ipv4}_0 frond_bgp_prefixes_sent{eth2�,ipv6}_0
frond_bgp_refused_announcements_total{eth0}_7 frond_bgp_refused_announcements_total{eth1}_0 frond_bgp_refused_announcements_total{eth2�}_0
frond_bgp_session_flaps_total{eth0}_3 frond_bgp_session_flaps_total{eth1}_0 frond_bgp_session_flaps_total{eth2�}_0
frond_bgp_session_up{eth0}_1 frond_bgp_session_up{eth1}_0 frond_bgp_session_up{eth2�}_0
frond_bgp_sessions{connect}_1 frond_bgp_sessions{down}_1 frond_bgp_sessions{established}_1 frond_bgp_sessions{idle}_0 frond_bgp_sessions{open}_0
frond_bgp_wrong_key{eth0}_0 frond_bgp_wrong_key{eth1}_1 frond_bgp_wrong_key{eth2�}_0
frond_conditions_standing{failure}_2 frond_conditions_standing{warning}_1
frond_conditions{port-no-carrier,warning}_1 frond_conditions{session-down,failure}_2
frond_dhcp_failures_total{exhausted}_6 frond_dhcp_messages_total{ack}_5
frond_dhcp_pool_addresses{blue}_100 frond_dhcp_pool_used_addresses{blue}_91
frond_dhcp_unwritten_leases{}_2 frond_dhcp_waiting_clients{}_1
frond_document_loaded_time_seconds{}_2 frond_document_refused{}_1
frond_gateway_has_holder{red}_1 frond_gateway_held{blue,anycast}_1 frond_gateway_held{red,elected}_0 frond_gateway_term{red}_9
frond_guard_dropped_packets_total{gateway,tap0,blue}_99
frond_guard_refused_routes{eth0,so}_2 frond_guard_refused_routes{eth0,thus}_1
frond_info{apollo,edge1,exit,v1,native}_1
frond_kernel_refused_operations{guard}_0 frond_kernel_refused_operations{routes}_2
frond_ready{}_1 frond_routes_desired{}_5 frond_routes_installed{}_4
frond_segment_macs{blue,local}_3 frond_segment_macs{blue,remote}_4 frond_segment_pending_entries{blue}_5
frond_segment_problems{blue}_1 frond_segment_ready{blue}_1 frond_segment_vteps{blue}_2 frond_segments{}_1
frond_start_time_seconds{}_1.5
frond_store_majority{}_1 frond_store_member_database_bytes{spine1}_1000 frond_store_member_database_bytes{spine2}_0
frond_store_member_leads{spine1}_1 frond_store_member_leads{spine2}_0 frond_store_member_up{spine1}_1 frond_store_member_up{spine2}_0
frond_uplink_works{ipv4}_1 frond_uplink_works{ipv6}_0
`, "\n", " "))
	for i := range want {
		at := strings.LastIndex(want[i], "_")
		want[i] = want[i][:at] + " " + want[i][at+1:]
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("metrics differ (-want +got):\n%s", diff)
	}
}

// TestDefined has all samples be of a metric with just their labels, and no
// metric without a sample.
func TestDefined(t *testing.T) {
	used := make(map[string]bool)
	for _, s := range Of(everything()) {
		used[s.Metric] = true
		i := slices.IndexFunc(definitions(), func(d definition) bool { return d.name == s.Metric })
		if i < 0 || len(definitions()[i].labels) != len(s.Labels) {
			t.Errorf("%v is not defined so", s)
		}
	}
	for _, d := range definitions() {
		if !used[d.name] {
			t.Errorf("%s has no sample", d.name)
		}
		if d.counter != strings.HasSuffix(d.name, "_total") {
			t.Errorf("%s: a counter ends with _total, and nothing else does", d.name)
		}
	}
}

// TestScrape reads them as Prometheus does; a registry that is pedantic finds
// what is not consistent.
func TestScrape(t *testing.T) {
	for name, v := range map[string]status.Vitals{"everything": everything(), "nothing": {}} {
		registry := prometheus.NewPedanticRegistry()
		registry.MustRegister(newCollector(func() status.Vitals { return v }))
		families, err := registry.Gather()
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if name == "everything" && len(families) != len(definitions()) {
			t.Errorf("%d metrics, want %d", len(families), len(definitions()))
		}
	}
}

// TestDocumented holds docs/metrics.md to the code.
func TestDocumented(t *testing.T) {
	const file, head = "../../docs/metrics.md", "| metric | kind | labels | meaning |\n|---|---|---|---|\n"
	var table strings.Builder
	for _, d := range definitions() {
		kind, labels := "gauge", "–"
		if d.counter {
			kind = "counter"
		}
		if len(d.labels) > 0 {
			labels = "`" + strings.Join(d.labels, "`, `") + "`"
		}
		fmt.Fprintf(&table, "| `%s` | %s | %s | %s |\n", d.name, kind, labels, d.help)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, after, ok := strings.Cut(string(text), head)
	if !ok {
		t.Fatalf("%s has no table %q", file, head)
	}
	rows, rest, _ := strings.Cut(after, "\n\n")
	if *update {
		if rest != "" {
			rest = "\n" + rest
		}
		if err := os.WriteFile(file, []byte(before+head+table.String()+rest), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(strings.TrimSpace(rows), strings.TrimSpace(table.String())); diff != "" {
		t.Errorf("%s differs (go test ./internal/metrics -update):\n%s", file, diff)
	}
}
