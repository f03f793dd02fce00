package node

import (
	"fmt"
	"strings"
	"time"

	"frond/internal/pki"
	"frond/internal/plan"
	"frond/internal/status"
	"frond/internal/store"
)

// storeService is what is used of store.Service.
type storeService interface {
	Set(store.Desired)
	Report() store.ServiceReport
}

// The conditions of the store.
const (
	storeMemberDown = "store-member-down"
	storeAway       = "store-away"
	storeReduced    = "store-reduced"
)

var storeConditions = []string{storeMemberDown, storeAway, storeReduced}

// DesiredStore is what a node is to have of the store; dir is where the
// certificates are that "frond pki issue" makes.
func DesiredStore(p *plan.Plan, dir string) store.Desired {
	if p.Store == nil {
		return store.Desired{}
	}
	d := store.Desired{Fabric: p.Fabric}
	if len(p.Store.Endpoints) > 0 {
		d.Endpoints = store.External(p.Store.Endpoints)
		d.Files = pki.Files{CA: p.Store.CAFile, Cert: p.Store.CertFile, Key: p.Store.KeyFile}
		return d
	}
	for _, m := range p.Store.Members {
		d.Members = append(d.Members, store.Peer{Name: m.Name, Address: m.Address})
	}
	d.Endpoints, d.Files = store.Endpoints(d.Members), pki.FilesIn(dir, p.Node.Name)
	if p.Store.Member {
		d.Member = p.Node.Name
	}
	return d
}

// judgeStore puts on the board what is wrong with the store.
func (l *loop) judgeStore(now time.Time) {
	l.board.Replace(storeConditions, storeProblems(l.store.Report(), now))
}

// storeGrace is how long a store that has just begun may take to be whole:
// its members find each other over the fabric, which begins at the same time.
const storeGrace = 5 * time.Second

func storeProblems(r store.ServiceReport, now time.Time) []status.Condition {
	if now.Sub(r.Since) < storeGrace {
		return nil
	}
	var wrong []status.Condition
	if m := r.Member; m != nil && m.State != store.Serving && m.Text != "" {
		c := status.Condition{Name: storeMemberDown, Subject: r.Desired.Member, Severity: status.Warning, Since: m.Since,
			Text: "this node's member of the store: " + m.Text}
		if m.Trouble != store.NoTrouble {
			c.Severity = status.Failure
		}
		wrong = append(wrong, c)
	}
	away := func(text string) {
		wrong = append(wrong, status.Condition{Name: storeAway, Subject: "store", Severity: status.Failure, Text: text})
	}
	switch {
	case r.Problem != "":
		away("the store cannot be asked: " + r.Problem)
	case r.Health == nil:
	case !r.Health.Majority:
		away("the store has no majority, leases can be neither given nor renewed: " + strings.Join(membersAway(r.Health), ", "))
	case len(membersAway(r.Health)) > 0:
		wrong = append(wrong, status.Condition{Name: storeReduced, Subject: "store", Severity: status.Warning,
			Text: fmt.Sprintf("the store goes on without some of its %d members: %s", len(r.Health.Members), strings.Join(membersAway(r.Health), ", "))})
	}
	return wrong
}

func membersAway(h *store.Health) []string {
	var away []string
	for _, m := range h.Members {
		if m.Problem != "" {
			away = append(away, m.Name+" "+m.Problem)
		}
	}
	return away
}
