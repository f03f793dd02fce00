// Package metrics turns what a node says of itself into Prometheus metrics. Of
// is a pure function; docs/metrics.md says what each metric means.
//
// All label values come from the document, from the node's own interfaces or
// from fixed words, never from what a peer or a guest says: nobody but the
// operator can make the number of time series grow.
package metrics

import (
	"maps"
	"slices"
	"strings"

	"frond/internal/status"
)

// Sample is one value of a metric.
type Sample struct {
	Metric string
	Labels []string // values, in the order of the metric's labels
	Value  float64
}

// samples gathers them. Values of equal labels add up.
type samples struct {
	all []Sample
	at  map[string]int
}

func (s *samples) add(metric string, value float64, labels ...string) {
	for i, l := range labels {
		labels[i] = strings.ToValidUTF8(l, "\uFFFD") // an interface's name may be anything
	}
	key := metric + "\x00" + strings.Join(labels, "\x00")
	if i, ok := s.at[key]; ok {
		s.all[i].Value += value
		return
	}
	s.at[key] = len(s.all)
	s.all = append(s.all, Sample{metric, labels, value})
}

// Of is what the vitals are as metrics, each with its labels once.
func Of(v status.Vitals) []Sample {
	s := &samples{at: make(map[string]int)}
	s.node(v.Status)
	s.peers(v.Status.Peers)
	s.segments(v.Segments)
	s.gateways(v.Gateways)
	s.dhcp(v.DHCP)
	s.guard(v.Guard)
	s.store(v.Store)
	for _, part := range slices.Sorted(maps.Keys(v.Kernel)) {
		s.add("frond_kernel_refused_operations", float64(v.Kernel[part]), part)
	}
	return s.all
}

func (s *samples) node(n status.Snapshot) {
	s.add("frond_info", 1, n.Fabric, n.Node, n.Role, n.Version, n.Engine)
	s.add("frond_ready", truth(n.Ready))
	s.add("frond_start_time_seconds", float64(n.Started.UnixMilli())/1000)
	s.add("frond_document_loaded_time_seconds", float64(n.Document.Loaded.UnixMilli())/1000)
	s.add("frond_document_refused", truth(n.Document.Error != ""))
	s.add("frond_routes_desired", float64(n.Routes.Desired))
	s.add("frond_routes_installed", float64(n.Routes.Installed))
	for _, severity := range []status.Severity{status.Warning, status.Failure} {
		s.add("frond_conditions_standing", 0, string(severity))
	}
	for _, c := range n.Conditions {
		s.add("frond_conditions", 1, c.Name, string(c.Severity))
		s.add("frond_conditions_standing", 1, string(c.Severity))
	}
	if n.Uplink != nil {
		for _, r := range n.Uplink.Routers {
			s.add("frond_uplink_works", truth(r.Works), r.Family)
		}
	}
}

// The states that there always is a number of, so that none is missing when
// the last session leaves it.
var (
	sessionStates = []string{"established", "open", "connect", "idle", "down"}
	bfdStates     = []string{"up", "down", "init", "unanswered", "off"}
	families      = []string{"ipv4", "ipv6", "evpn"}
)

func (s *samples) peers(peers []status.Peer) {
	for _, state := range sessionStates {
		s.add("frond_bgp_sessions", 0, state)
	}
	for _, state := range bfdStates {
		s.add("frond_bfd_sessions", 0, state)
	}
	for _, p := range peers {
		s.add("frond_bgp_sessions", 1, p.State)
		s.add("frond_bfd_sessions", 1, p.BFD)
		s.add("frond_bgp_session_up", truth(p.State == "established"), p.Port)
		s.add("frond_bgp_session_flaps_total", float64(p.Flaps), p.Port)
		for _, family := range families {
			s.add("frond_bgp_prefixes_received", float64(p.Received[family]), p.Port, family)
			s.add("frond_bgp_prefixes_sent", float64(p.Sent[family]), p.Port, family)
		}
		s.add("frond_bgp_malformed_updates_total", float64(p.Malformed), p.Port)
		s.add("frond_bgp_malformed_evpn_routes_total", float64(p.MalformedEVPN), p.Port)
		s.add("frond_bgp_refused_announcements_total", float64(p.Refused), p.Port)
		s.add("frond_bgp_wrong_key", truth(p.Key != ""), p.Port)
	}
}

func (s *samples) segments(segments []status.Segment) {
	s.add("frond_segments", float64(len(segments)))
	for _, g := range segments {
		s.add("frond_segment_ready", truth(g.Ready), g.Name)
		s.add("frond_segment_vteps", float64(len(g.VTEPs)), g.Name)
		s.add("frond_segment_macs", float64(g.LocalMACs), g.Name, "local")
		s.add("frond_segment_macs", float64(g.RemoteMACs), g.Name, "remote")
		s.add("frond_segment_pending_entries", float64(g.Pending), g.Name)
		s.add("frond_segment_problems", float64(len(g.Problems)), g.Name)
	}
}

func (s *samples) gateways(gateways []status.Gateway) {
	for _, g := range gateways {
		s.add("frond_gateway_held", truth(g.Here), g.Segment, g.Mode)
		if g.Mode == "elected" {
			s.add("frond_gateway_has_holder", truth(g.Holder != ""), g.Segment)
			s.add("frond_gateway_term", float64(g.Term), g.Segment)
		}
	}
}

func (s *samples) dhcp(d status.DHCP) {
	for _, p := range d.Pools {
		s.add("frond_dhcp_pool_addresses", float64(p.Size), p.Segment)
		s.add("frond_dhcp_pool_used_addresses", float64(p.Used), p.Segment)
	}
	s.add("frond_dhcp_waiting_clients", float64(d.Waiting))
	s.add("frond_dhcp_unwritten_leases", float64(d.Pending))
	for _, kind := range slices.Sorted(maps.Keys(d.Messages)) {
		s.add("frond_dhcp_messages_total", float64(d.Messages[kind]), kind)
	}
	for _, kind := range slices.Sorted(maps.Keys(d.Failures)) {
		s.add("frond_dhcp_failures_total", float64(d.Failures[kind]), kind)
	}
}

func (s *samples) guard(g status.Guard) {
	for _, r := range g.Routes {
		s.add("frond_guard_refused_routes", 1, r.Port, r.Reason)
	}
	for _, d := range g.Drops {
		s.add("frond_guard_dropped_packets_total", float64(d.Packets), d.Rule, d.Port, d.Segment)
	}
}

func (s *samples) store(store *status.Store) {
	if store == nil {
		return
	}
	s.add("frond_store_majority", truth(store.Majority))
	for _, m := range store.Members {
		s.add("frond_store_member_up", truth(m.Answers), m.Name)
		s.add("frond_store_member_leads", truth(m.Leader), m.Name)
		s.add("frond_store_member_database_bytes", float64(m.Bytes), m.Name)
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// definition is what stays the same of a metric.
type definition struct {
	name, help string
	counter    bool // otherwise a gauge
	labels     []string
}

func gauge(name, help string, labels ...string) definition {
	return definition{name: name, help: help, labels: labels}
}

func counter(name, help string, labels ...string) definition {
	return definition{name: name, help: help, counter: true, labels: labels}
}

// definitions are all metrics that Of gives.
func definitions() []definition {
	return []definition{
		gauge("frond_info", "1; the labels say which agent this is.", "fabric", "node", "role", "version", "engine"),
		gauge("frond_ready", "1 when all best paths of the start are in force."),
		gauge("frond_start_time_seconds", "When the agent started, in seconds since 1970."),
		gauge("frond_document_loaded_time_seconds", "When the document in force was read, in seconds since 1970."),
		gauge("frond_document_refused", "1 when the last document that was read is not valid; the one before is in force."),
		gauge("frond_routes_desired", "Routes that BGP's best paths ask for."),
		gauge("frond_routes_installed", "Routes that the kernel holds just as desired."),
		gauge("frond_conditions", "Conditions that stand, by name.", "name", "severity"),
		gauge("frond_conditions_standing", "All conditions that stand; 0 is healthy.", "severity"),
		gauge("frond_uplink_works", "1 when packets leave an exit by the router of this family.", "family"),
		gauge("frond_bgp_sessions", "Ports of the fabric by the state of their session.", "state"),
		gauge("frond_bfd_sessions", "Ports of the fabric by the state of BFD.", "state"),
		gauge("frond_bgp_session_up", "1 when the session is established.", "port"),
		counter("frond_bgp_session_flaps_total", "Times that the session was lost.", "port"),
		gauge("frond_bgp_prefixes_received", "Routes that are taken in of the peer.", "port", "family"),
		gauge("frond_bgp_prefixes_sent", "Routes that the peer is told.", "port", "family"),
		counter("frond_bgp_malformed_updates_total", "Updates treated as withdrawals (RFC 7606).", "port"),
		counter("frond_bgp_malformed_evpn_routes_total", "EVPN routes that are not as the RFC of their type says.", "port"),
		counter("frond_bgp_refused_announcements_total", "Announcements that the document does not allow.", "port"),
		gauge("frond_bgp_wrong_key", "1 when there is no session because of the peer's TCP-MD5 key.", "port"),
		gauge("frond_segments", "Segments that the node takes part in."),
		gauge("frond_segment_ready", "1 when the segment's devices are there.", "segment"),
		gauge("frond_segment_vteps", "Other nodes that take part in the segment.", "segment"),
		gauge("frond_segment_macs", "MACs of the segment, of this node's guests or of others'.", "segment", "where"),
		gauge("frond_segment_pending_entries", "Forwarding entries that the kernel does not hold as desired.", "segment"),
		gauge("frond_segment_problems", "What is wrong with the segment.", "segment"),
		gauge("frond_gateway_held", "1 when this node has the segment's gateway.", "segment", "mode"),
		gauge("frond_gateway_has_holder", "1 when some node holds the elected gateway, as far as this one knows.", "segment"),
		gauge("frond_gateway_term", "Grows by one when the elected gateway changes its holder.", "segment"),
		gauge("frond_dhcp_pool_addresses", "Addresses that a segment's ranges have for guests.", "segment"),
		gauge("frond_dhcp_pool_used_addresses", "Those that cannot be given to another guest now.", "segment"),
		gauge("frond_dhcp_waiting_clients", "Guests that are being served."),
		gauge("frond_dhcp_unwritten_leases", "Leases that the store has not been told of yet."),
		counter("frond_dhcp_messages_total", "DHCP messages from and to guests.", "kind"),
		counter("frond_dhcp_failures_total", "What kept guests from an address.", "kind"),
		gauge("frond_guard_refused_routes", "Routes that stand refused, at most 256 of a peer.", "port", "reason"),
		counter("frond_guard_dropped_packets_total", "Packets that a rule of the guard has dropped.", "rule", "port", "segment"),
		gauge("frond_store_majority", "1 when the store has a majority."),
		gauge("frond_store_member_up", "1 when the store's member answers this node.", "member"),
		gauge("frond_store_member_leads", "1 when the member is the store's leader.", "member"),
		gauge("frond_store_member_database_bytes", "Size of the member's database.", "member"),
		gauge("frond_kernel_refused_operations", "Operations that the kernel refused when they were last tried.", "part"),
	}
}
