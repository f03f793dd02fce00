package quorum

import (
	"fmt"
	"time"

	"frond/internal/gateway"
	"frond/internal/status"
)

// ConditionAway tells that the hypervisors' database does not say who leads.
const ConditionAway = "gateway-election-away"

// report is what there is to say of the gateways now; who has one that is not
// here it does not know. name is the node at a member's address.
func (a *agent) report(now time.Duration, name func(string) string, trouble string) gateway.Report {
	r := gateway.Report{Gateways: make([]gateway.Elected, 0, len(a.segments)), Holdings: a.holdings(now)}
	for _, s := range a.segments {
		e := gateway.Elected{Segment: s.Name}
		fresh := a.heard.leader != "" && now < a.heard.sent+a.timing.Lease
		owner := a.owner(s.Name)
		if fresh = fresh && owner != ""; fresh {
			e.Next, e.Why = name(owner), a.why()
		}
		c := a.claims[s.Name]
		switch {
		case c != nil && c.held:
			e.Holder, e.Term, e.Since, e.Why = a.node, c.term, c.since, c.why
			e.Left = max(0, c.sent+a.timing.Lease-now)
			r.Left = max(r.Left, e.Left)
		case c != nil:
			e.Why = fmt.Sprintf(a.why()+", waits %.1f s for a lease that may last", max(0, c.first+a.timing.Lease-now).Seconds())
		case fresh && owner != a.self:
			e.Left = a.heard.sent + a.timing.Lease - now // of whoever it is
		}
		r.Gateways = append(r.Gateways, e)
	}
	if a.drained {
		r.Drained = []string{a.node}
	}
	r.Conditions = a.conditions(now, name, trouble)
	return r
}

func (a *agent) conditions(now time.Duration, name func(string) string, trouble string) []status.Condition {
	var list []status.Condition
	add := func(condition, subject, text string) {
		list = append(list, status.Condition{Name: condition, Subject: subject, Severity: status.Failure, Text: text})
	}
	if !a.takesPartInAny() {
		return nil
	}
	switch {
	case a.self == "":
		add(ConditionAway, "lxd", "this node's hypervisor is no member of a cluster, or has never said so: this node gets no elected gateway until it is one "+
			"(\"lxc cluster list\" there; \"lxd init\" has it join)")
	case a.removed:
		add(ConditionAway, "lxd", "the member at "+a.self+" is not in the hypervisors' cluster any more: this node gets no elected gateway until it has joined again")
	case a.heard.leader == "" || now >= a.heard.sent+a.timing.Lease:
		text := "the hypervisors' database names no leader: this node gets no elected gateway until it does"
		if trouble != "" {
			text += "; " + trouble
		}
		add(ConditionAway, "lxd", text)
	}
	for _, s := range a.segments {
		switch owner := a.owner(s.Name); {
		case a.spread == ByHash && a.heard.leader != "" && owner == "" && a.takesPart(s.Name):
			add(gateway.ConditionNoNode, s.Name, "no node can hold the segment's gateway: those that take part are no members of the hypervisors' cluster, "+
				"or away from it, or drained; frond undrain one")
		case a.spread != ByHash && owner == a.self && a.self != "" && !a.takesPart(s.Name):
			add(gateway.ConditionNoNode, s.Name, "no node holds the segment's gateway: the leader of the hypervisors' database, "+
				name(a.self)+", takes no part in the segment; name it in the segment's nodes, or choose gateways: hash")
		}
	}
	if err := a.kernel.Failed(); err != nil {
		add(gateway.ConditionAddress, a.node, "addresses of elected gateways cannot be set: "+err.Error())
	}
	return list
}
