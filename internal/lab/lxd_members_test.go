package lab

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"frond/internal/status"
)

// What members of LXD's cluster do in its database, as LXD calls it: one that
// does nothing there is a spare.
const (
	voterRole   = "database"
	standByRole = "database-standby"
	spareRole   = ""
)

// roles are the nodes of the cluster's members, by what they do
// in the database, as the LXD of a node has it.
func (w *world) roles(ctx context.Context, from string) (map[string][]string, error) {
	out, err := w.LXC(ctx, from, "query", "/1.0/cluster/members?recursion=1")
	if err != nil {
		return nil, err
	}
	var members []struct {
		Name  string   `json:"server_name"`
		Roles []string `json:"roles"`
	}
	if err := json.Unmarshal([]byte(out), &members); err != nil {
		return nil, err
	}
	roles := make(map[string][]string)
	for _, m := range members {
		role := spareRole
		for _, r := range []string{voterRole, standByRole} {
			if slices.Contains(m.Roles, r) {
				role = r
			}
		}
		roles[role] = append(roles[role], m.Name)
	}
	return roles, nil
}

// votes waits until members have roles in such numbers, and one has no vote.
func (w *world) votes(from, besides string, voters, standBys int) map[string][]string {
	w.t.Helper()
	var roles map[string][]string
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	err := poll(ctx, func() bool {
		asking, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		var err error
		roles, err = w.roles(asking, from)
		return err == nil && len(roles[voterRole]) == voters && len(roles[standByRole]) >= standBys &&
			!slices.Contains(roles[voterRole], besides)
	}, "members do not get their roles")
	if err != nil {
		w.t.Fatalf("%v: %v", err, roles)
	}
	return roles
}

// rejoins has a node whose member was removed join the cluster as a new one, as
// an operator would: LXD begins with nothing.
func (w *world) rejoins(node, first string) {
	w.t.Helper()
	must(w.t, w.StopLXD(w.t.Context(), node))
	entries, err := os.ReadDir(w.LXDDir(node))
	must(w.t, err)
	for _, e := range entries {
		if e.Name() != "pid" { // of the machine, which lives on
			must(w.t, os.RemoveAll(filepath.Join(w.LXDDir(node), e.Name())))
		}
	}
	must(w.t, w.StartLXD(w.t.Context(), node))
	f, err := w.Fabric()
	must(w.t, err)
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	must(w.t, w.joinCluster(ctx, f, node, first))
}

// TestElectedBySomeOfLXD has a cluster with members that have no vote: all
// agents follow those that have, whoever these are, and never do two nodes have
// the gateway, or one that is no member any more.
func TestElectedBySomeOfLXD(t *testing.T) {
	w := votingWorld(t, "some", 6, 6)
	nodes := w.LXDNodes()
	w.lxc("config set cluster.offline_threshold 11") // the least that LXD takes
	holder := w.watchHolders(electedAddress)
	roles := w.votes("leaf1", "", 3, 2)
	before := w.agree(nodes...)
	spare := roles[spareRole][0]
	guest := w.guestOn(spare, true)
	w.reachesOut(guest)

	// The leader's member is removed, and its agent lives on.
	others := slices.DeleteFunc(slices.Clone(nodes), func(node string) bool { return node == before })
	removed, stranger := before, w.guestOn(before, true)
	w.reachesOut(stranger)
	_, err := w.LXC(t.Context(), others[0], "cluster", "remove", removed, "--force", "--yes")
	must(t, err)
	after := holder.one(t, 40*time.Second, removed)
	w.eventually(removed, "says that it is no member", func(s status.Snapshot) bool {
		return slices.ContainsFunc(s.Conditions, func(c status.Condition) bool {
			return c.Name == "gateway-election-away" && strings.Contains(c.Text, "no member of a cluster")
		})
	})
	w.knowsGateway(after, guest, stranger)
	w.reachesOut(guest)
	w.reachesOut(stranger)
	if said := w.agree(others...); said != after {
		t.Errorf("the gateway is on %s, and the agents say on %s", after, said)
	}
	w.votes(after, removed, 3, 2) // LXD does not like to give out a vote for two reasons at once
	w.rejoins(removed, after)
	if said := w.agree(nodes...); said != after {
		t.Errorf("the gateway is on %s, and the agents say on %s", after, said)
	}
	w.eventually(removed, "is a member again", func(s status.Snapshot) bool { return len(s.Conditions) == 0 })

	// A voter dies that does not lead.
	roles = w.votes(after, "", 3, 2)
	dead := roles[voterRole][slices.IndexFunc(roles[voterRole], func(node string) bool { return node != after })]
	moves := holder.handovers()
	must(t, w.StopLXD(t.Context(), dead))
	must(t, w.Kill(t.Context(), dead))
	w.votes(after, dead, 3, 0)
	living := slices.DeleteFunc(slices.Clone(nodes), func(node string) bool { return node == dead })
	if said := w.agree(living...); said != after || holder.handovers() != moves {
		t.Errorf("it moved from %s to %s when %s died", after, said, dead)
	}
	if spare == dead {
		guest = w.guestOn(roles[spareRole][0], true)
	}
	w.reachesOut(guest)

	// The leader dies: the others have a majority by the voter that is new.
	must(t, w.StopLXD(t.Context(), after))
	must(t, w.Kill(t.Context(), after))
	last := holder.one(t, 40*time.Second, after)
	living = slices.DeleteFunc(living, func(node string) bool { return node == after })
	if said := w.agree(living...); said != last {
		t.Errorf("the gateway is on %s, and the agents say on %s", last, said)
	}
	if w.guestOn(after, true) != guest {
		w.knowsGateway(last, guest)
		w.reachesOut(guest)
	}
	holder.never(t)
}
