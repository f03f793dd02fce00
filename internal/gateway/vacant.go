package gateway

import (
	"fmt"
	"slices"
	"time"
)

// patience is how many leases after the holder's has run out a gateway should
// have been taken long since: to end a session and to take what it had are two
// transactions.
const patience = 3

// watchVacant notes since when the gateways of this node's segments are
// nobody's. Who has no lease knows nothing of others'.
func (a *agent) watchVacant(now time.Duration) {
	before := a.vacant
	a.vacant = make(map[string]time.Duration)
	if !a.holds(now) {
		return
	}
	for _, s := range a.segments {
		if a.isHeld(s.Name, now) || !slices.Contains(s.Nodes, a.node) {
			continue
		}
		since, known := before[s.Name]
		if !known {
			since = now
		}
		a.vacant[s.Name] = since
	}
}

// isHeld tells that somebody holds a gateway, as far as this node knows.
func (a *agent) isHeld(segment string, now time.Duration) bool {
	t := a.view.tenures[segment]
	return a.isMine(t) || a.view.alive(t.value.Node, t.value.Session) && now < a.view.seen[t.value.Node].at+a.timing.Lease
}

// notTaken tells that nobody has taken a gateway though its time was over long
// ago, in words; empty: all is in order, or there is nobody who could.
func (a *agent) notTaken(segment string, now time.Duration) string {
	since, vacant := a.vacant[segment]
	if !vacant || now < since+patience*a.timing.Lease || a.choice[segment].Node == "" {
		return ""
	}
	span := int((now - since).Seconds())
	text := fmt.Sprintf("nobody has taken the gateway of %s for %d s", segment, span)
	if holder := a.view.tenures[segment].value.Node; holder != "" {
		text = fmt.Sprintf("nobody has taken the gateway of %s since the lease of %s ran out %d s ago", segment, holder, span)
	}
	if reason := a.waitsFor(segment, now); reason != "" {
		text += ": " + reason
	}
	return text + "; see frond store status"
}

// waitsFor is why this node does not end the session of a gateway's holder and
// take the gateway, empty if it cannot tell.
func (a *agent) waitsFor(segment string, now time.Duration) string {
	t, choice := a.view.tenures[segment].value, a.choice[segment].Node
	lifetime, _ := a.timing.Lifetime(a.session.confirmed, now)
	switch {
	case !a.isVisible(now):
		return "this node's own beats are not seen, the store's watch tells nothing"
	case choice != a.node && !a.view.alive(t.Node, t.Session):
		return choice + " is chosen, and does not take it"
	case a.busy:
		return "a transaction of this node is under way"
	case now < a.retryAt:
		return "the store did not answer this node's last transaction"
	case a.view.revision < a.behind:
		return "the store's watch does not show this node's last transaction yet"
	case lifetime == 0:
		return "this node's beats take too long to be stored"
	case choice != a.node:
		return choice + " is chosen, and waits for the end of that session"
	}
	return ""
}
