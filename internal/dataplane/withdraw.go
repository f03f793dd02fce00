package dataplane

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Withdraw removes all that is frond's from the kernel: routes, nexthop
// objects and addresses. Nothing is added any more afterwards. Ports stay up,
// and values below /proc/sys as they are.
func (r *Reconciler) Withdraw(ctx context.Context) error {
	r.work.Lock()
	defer r.work.Unlock()
	r.withdrawn = true
	state, err := r.target.Dump(ctx)
	if err != nil {
		return fmt.Errorf("read the kernel's state to withdraw it: %w", err)
	}
	state.whole()
	r.takeInbox()
	r.mu.Lock()
	r.state = &state
	r.right = 0
	clear(r.failing.legs)
	r.sharings = nil
	r.mu.Unlock()
	return r.removeAll(ctx)
}

// removeAll removes everything of the state from the kernel.
func (r *Reconciler) removeAll(ctx context.Context) error {
	var problems []error
	for chunk := range slices.Chunk(removals(r.state, r.intent.desired), batch) {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("withdraw: not everything is removed: %w", err)
		}
		for _, failed := range r.target.Apply(ctx, chunk) {
			problems = append(problems, failed)
		}
	}
	if len(problems) > maxProblems {
		more := fmt.Errorf("and %d more", len(problems)-maxProblems)
		problems = append(problems[:maxProblems], more)
	}
	return errors.Join(problems...)
}

// removals lists what takes all of a state away, routes first.
func removals(now *State, desired Desired) []Op {
	var ops []Op
	for prefix := range now.Routes {
		ops = append(ops, DeleteRoute{Prefix: prefix})
	}
	for _, id := range slices.Sorted(maps.Keys(now.Groups)) {
		ops = append(ops, DeleteNextHop{ID: id})
	}
	for _, id := range slices.Sorted(maps.Keys(now.NextHops)) {
		ops = append(ops, DeleteNextHop{ID: id})
	}
	for prefix := range now.Addresses {
		ops = append(ops, DeleteAddress{Prefix: prefix})
	}
	for _, a := range slices.SortedFunc(maps.Keys(now.PortAddresses), comparePortAddresses) {
		if now.PortAddresses[a] || now.UnmarkedAddresses && desired.Uplink.wants(a) {
			ops = append(ops, DeletePortAddress{a})
		}
	}
	if !now.UnmarkedAddresses {
		return ops
	}
	for _, prefix := range desired.Addresses {
		if _, there := now.ForeignAddresses[prefix]; there {
			ops = append(ops, DeleteAddress{Prefix: prefix})
		}
	}
	return ops
}
