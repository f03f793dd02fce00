package dataplane

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
)

// maxProblems bounds what a report lists.
const maxProblems = 64

// Report is how far the kernel is as desired.
type Report struct {
	Desired   int // routes
	Installed int // routes that the kernel holds exactly as desired, over the next hops that work
	NextHops  int // nexthop objects
	Groups    int // nexthop groups
	Complete  bool
	// Problems are what the kernel refused when it was last tried.
	Problems []Problem
	// MissingSysctls are desired but do not exist in this kernel or network
	// namespace.
	MissingSysctls []string
}

// Problem is one reason for which the kernel refused something.
type Problem struct {
	Text  string // what was done, the first of its kind, and why it failed
	Count int    // how many operations failed in this way
	Since time.Time
}

// Report returns how far the kernel is as desired.
func (r *Reconciler) Report() Report {
	r.mu.RLock()
	defer r.mu.RUnlock()
	report := r.summary
	report.Installed = r.right
	report.NextHops, report.Groups = len(r.state.NextHops), len(r.state.Groups)
	report.MissingSysctls = slices.Clone(r.missing)
	report.Problems = slices.SortedFunc(maps.Values(r.problems), func(a, b Problem) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Text, b.Text))
	})
	return report
}

// setRight notes what the last comparison found.
func (r *Reconciler) setRight(right int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.right = right
	r.summary.Desired = len(r.intent.routes.routes)
	r.summary.Complete = r.intent.complete
}

func (r *Reconciler) setMissing(paths []string) {
	slices.Sort(paths)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.missing = paths
}

// noteProblems turns what the kernel refused into problems, and logs those
// that are new and those that are over.
func (r *Reconciler) noteProblems() {
	now := make(map[string]Problem)
	for _, key := range sortedKeys(r.intent.refused) {
		err := r.intent.refused[key]
		reason := problemReason(key, err)
		problem, ok := now[reason]
		if !ok {
			if len(now) == maxProblems {
				continue
			}
			problem = Problem{Text: fmt.Sprintf("%s: %v", key, err), Since: time.Now()}
		}
		problem.Count++
		now[reason] = problem
	}
	r.mu.Lock()
	before := r.problems
	for reason, problem := range now {
		if old, ok := before[reason]; ok {
			problem.Since = old.Since
			now[reason] = problem
		}
	}
	r.problems = now
	r.mu.Unlock()
	for reason, problem := range now {
		if _, old := before[reason]; !old {
			r.pause = resyncFirst
			r.nextDump = time.Now().Add(r.pause)
			r.log.Warn("the kernel refused", "problem", problem.Text, "count", problem.Count)
		}
	}
	for reason, problem := range before {
		if _, still := now[reason]; !still {
			r.log.Info("the kernel no longer refuses", "problem", problem.Text)
		}
	}
}

// problemReason tells distinct problems apart: routes and groups are many
// and fail alike, everything else is a problem of its own.
func problemReason(key opKey, err error) string {
	switch key.kind {
	case kindSetRoute, kindDeleteRoute, kindSetGroup, kindDeleteNextHop:
		return fmt.Sprintf("%s: %v", key.kind, err)
	}
	return fmt.Sprintf("%s: %v", key, err)
}

func sortedKeys(refused map[opKey]error) []opKey {
	return slices.SortedFunc(maps.Keys(refused), func(a, b opKey) int {
		return cmp.Compare(a.String(), b.String())
	})
}
