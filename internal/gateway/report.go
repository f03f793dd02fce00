package gateway

import (
	"fmt"
	"time"

	"frond/internal/status"
)

// Names of the conditions that Report gives.
const (
	ConditionStoreAway = "gateway-store-away"
	ConditionNoNode    = "gateway-no-node"
	ConditionNotTaken  = "gateway-not-taken"
	ConditionAddress   = "gateway-address"
	ConditionNameTwice = "gateway-name-twice"
)

// Report is what a node knows of the elected gateways. It is not changed
// after it was returned.
type Report struct {
	Gateways   []Elected
	Holdings   []Holding     // of this node
	Left       time.Duration // of this node's lease, 0: none
	Drained    []string
	Conditions []status.Condition
}

// Elected is the gateway of a segment.
type Elected struct {
	Segment string
	Holder  string // empty: nobody
	Term    uint64
	Since   time.Time
	Why     string
	Next    string // who should have it; another than the holder while it moves
	Score   float64
	Weight  float64
	// Left is how long the holder's lease lasts without another beat, as far
	// as this node knows: its own by its own clock, others' from when their
	// last beat was seen.
	Left time.Duration
}

func (a *agent) report(now time.Duration) Report {
	r := Report{Gateways: make([]Elected, 0, len(a.segments))}
	if a.holds(now) {
		r.Left = a.session.confirmed + a.timing.Lease - now
		r.Holdings = a.holdings(now)
	}
	for _, s := range a.segments {
		choice, t := a.choice[s.Name], a.view.tenures[s.Name].value
		e := Elected{
			Segment: s.Name, Term: t.Term, Next: choice.Node, Why: choice.Why,
			Score: choice.Score, Weight: choice.Weight,
		}
		if a.view.alive(t.Node, t.Session) {
			e.Holder, e.Since, e.Why = t.Node, t.Since, t.Why
			e.Left = max(0, a.view.seen[t.Node].at+a.timing.Lease-now)
		}
		if t.Node == a.node {
			e.Left = r.Left
		}
		r.Gateways = append(r.Gateways, e)
	}
	for node := range a.view.drained {
		r.Drained = append(r.Drained, node)
	}
	r.Conditions = a.conditions(now)
	return r
}

func (a *agent) conditions(now time.Duration) []status.Condition {
	var list []status.Condition
	own := false
	for _, s := range a.segments {
		if !a.takesPart(s.Name) {
			continue
		}
		own = true
		t := a.view.tenures[s.Name].value
		choice, known := a.choice[s.Name]
		if known && choice.Node == "" && !a.view.alive(t.Node, t.Session) {
			list = append(list, status.Condition{
				Name: ConditionNoNode, Subject: s.Name, Severity: status.Failure,
				Text: "no node can hold the segment's gateway: all that take part are dead or drained; frond undrain one",
			})
		}
		if text := a.notTaken(s.Name, now); text != "" {
			list = append(list, status.Condition{Name: ConditionNotTaken, Subject: s.Name, Severity: status.Failure, Text: text})
		}
	}
	if a.isDoubled(now) {
		list = append(list, status.Condition{
			Name: ConditionNameTwice, Subject: a.node, Severity: status.Failure,
			Text: "another machine goes by the name " + a.node + ": this one holds no elected gateway while that lives; give each machine a name of its own (--node)",
		})
	}
	if own && !a.holds(now) && !a.isDoubled(now) {
		list = append(list, status.Condition{
			Name: ConditionStoreAway, Subject: "store", Severity: status.Failure,
			Text: fmt.Sprintf("the store did not take a beat for %s: this node holds no elected gateway until it does; see frond store status", a.timing.Lease),
		})
	}
	if err := a.kernel.Failed(); err != nil {
		list = append(list, status.Condition{
			Name: ConditionAddress, Subject: a.node, Severity: status.Failure,
			Text: "addresses of elected gateways cannot be set: " + err.Error(),
		})
	}
	return list
}
