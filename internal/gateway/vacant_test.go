package gateway

import (
	"testing"
	"time"

	"frond/internal/status"
)

// TestNotTaken has a node see, for ten seconds, that a gateway is nobody's.
func TestNotTaken(t *testing.T) {
	const began, end = 100 * time.Second, 110 * time.Second
	const lease = "nobody has taken the gateway of blue since the lease of leaf1 ran out 8 s ago"
	const see = "; see frond store status"
	dead := func(a *agent) { // its session too
		delete(a.view.beats, "leaf1")
		delete(a.view.seen, "leaf1")
	}
	choose := func(node string) func(*agent) {
		return func(a *agent) { a.choice["blue"] = Choice{Node: node} }
	}
	for _, test := range []struct {
		name string
		set  []func(*agent)    // at the beginning
		each func(*agent)      // in each moment
		last func(a *agent)    // in the last one
		want map[string]string // text by condition
		at   time.Duration     // that is looked at; 0: the end
	}{
		{name: "its holder lives", each: func(a *agent) { a.view.seen["leaf1"] = a.view.seen["leaf2"] }},
		{name: "it is held here", set: []func(*agent){func(a *agent) { a.view.tenures["blue"] = entry[tenure]{value: tenure{Node: "leaf2", Session: 3}} }}},
		{name: "it is time enough", at: began + 4*DefaultTiming.Lease - 100*time.Millisecond},
		{name: "it is not", at: began + 4*DefaultTiming.Lease + 100*time.Millisecond, want: map[string]string{
			ConditionNotTaken: "nobody has taken the gateway of blue since the lease of leaf1 ran out 5 s ago" + see}},
		{name: "the watch tells nothing", each: func(a *agent) { a.visible = began }, want: map[string]string{
			ConditionNotTaken: lease + ": this node's own beats are not seen, the store's watch tells nothing" + see}},
		{name: "another is chosen, and its session has ended", set: []func(*agent){choose("leaf3")}, last: dead, want: map[string]string{
			ConditionNotTaken: lease + ": leaf3 is chosen, and does not take it" + see}},
		{name: "another is chosen", set: []func(*agent){choose("leaf3")}, want: map[string]string{
			ConditionNotTaken: lease + ": leaf3 is chosen, and waits for the end of that session" + see}},
		{name: "a transaction is under way", set: []func(*agent){func(a *agent) { a.busy = true }}, want: map[string]string{
			ConditionNotTaken: lease + ": a transaction of this node is under way" + see}},
		{name: "the store does not answer", last: func(a *agent) { a.retryAt = end + 1 }, want: map[string]string{
			ConditionNotTaken: lease + ": the store did not answer this node's last transaction" + see}},
		{name: "the watch is behind", set: []func(*agent){func(a *agent) { a.behind = 99 }}, want: map[string]string{
			ConditionNotTaken: lease + ": the store's watch does not show this node's last transaction yet" + see}},
		{name: "beats are slow", each: func(a *agent) { a.session.confirmed -= time.Second }, want: map[string]string{
			ConditionNotTaken: lease + ": this node's beats take too long to be stored" + see}},
		{name: "nobody ever had it", set: []func(*agent){func(a *agent) { clear(a.view.tenures) }}, want: map[string]string{
			ConditionNotTaken: "nobody has taken the gateway of blue for 10 s" + see}},
		{name: "nobody can take it", set: []func(*agent){choose(""), dead}, want: map[string]string{
			ConditionNoNode: "no node can hold the segment's gateway: all that take part are dead or drained; frond undrain one"}},
		{name: "the node takes no part", set: []func(*agent){func(a *agent) { a.segments[0].Nodes = []string{"leaf1", "leaf3"} }}},
		{name: "the store is away", last: func(a *agent) { a.session.confirmed = began }, want: map[string]string{
			ConditionStoreAway: "the store did not take a beat for 1.9s: this node holds no elected gateway until it does; see frond store status"}},
		{name: "the store was away", each: func(a *agent) {
			if a.session.confirmed < began+5*time.Second {
				a.session.confirmed = began - time.Minute
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := newAgent("leaf2", "machine", "run", DefaultTiming, time.Now)
			a.setSegments([]Segment{{Name: "blue", Nodes: []string{"leaf1", "leaf2", "leaf3"}}})
			a.synced, a.session.id, a.view.revision = true, 3, 50
			for i, node := range []string{"leaf1", "leaf2", "leaf3"} {
				a.view.beats[node] = entry[beat]{value: beat{Machine: "machine"}, created: int64(i + 2)}
				a.view.seen[node] = sighting{at: began}
			}
			a.view.tenures["blue"] = entry[tenure]{value: tenure{Node: "leaf1", Session: 2}}
			a.choice = map[string]Choice{"blue": {Node: "leaf2"}}
			for _, set := range test.set {
				set(a)
			}
			until := end
			if test.at != 0 {
				until = test.at
			}
			for now := began; now <= until; now += 100 * time.Millisecond {
				a.session.confirmed, a.visible = now-50*time.Millisecond, now
				a.view.seen["leaf2"] = sighting{at: now}
				if test.each != nil {
					test.each(a)
				}
				if test.last != nil && now == until {
					test.last(a)
				}
				a.watchVacant(now)
			}
			got := make(map[string]string)
			for _, c := range a.conditions(until) {
				if c.Severity != status.Failure || c.Subject != "blue" && c.Name != ConditionStoreAway {
					t.Errorf("%+v", c)
				}
				got[c.Name] = c.Text
			}
			if len(got) != len(test.want) {
				t.Errorf("conditions %q", got)
			}
			for name, text := range test.want {
				if got[name] != text {
					t.Errorf("%s: %q, want %q", name, got[name], text)
				}
			}
		})
	}
}
