// Package gateway lets each elected gateway be on exactly one node: it elects,
// and holds the gateways that fall to this node.
//
// # The lease
//
// A node that is alive changes its record in the store every Timing.Renew: a
// beat. The record's create revision is the node's session, and a tenure (the
// record that says who has a segment's gateway) names the holder's session.
// For each beat the node notes when it began to send it. It holds its
// gateways until
//
//	(when the last beat that is stored was sent) + Lease − Margin
//
// by CLOCK_BOOTTIME, which nobody can set and which counts suspends. Every
// other node notes when it saw the last change of the record, and when that
// is a Lease ago, it deletes the record, on condition that it is still at the
// revision that it saw. Only when the store shows that session gone is a
// tenure taken over, on condition that it is unchanged.
//
// # Why there are never two
//
//  1. A beat is sent before it is stored, and stored before it is seen. So an
//     observer's Lease ends after the holder's, by at least the time that the
//     beat took.
//  2. Had another beat been stored meanwhile, the deletion would fail: its
//     condition is the revision. An observer that was frozen, or whose watch
//     is late, errs on the safe side only.
//  3. After the deletion no beat of that session can be stored: it has the
//     create revision as its condition. So no holder prolongs what is over.
//  4. The kernel gets addresses with valid_lft. It is rounded down to whole
//     seconds, and is given only while the moment of giving + valid_lft +
//     Slack lies before the end of the lease: the kernel removes the address
//     itself in time, if the agent is stopped (SIGSTOP), killed, starved of
//     processor time, or cut off from the store. The time is looked at
//     directly before the system call (Holding.Before).
//  5. What a node gives up, it gives up at a revision of the tenure, and it
//     never holds it at that revision again. If it wants it back, because the
//     heir is dead or the answer was lost, it first writes the tenure anew:
//     whatever is still on its way to the store then fails.
//  6. A hand-over is one transaction, begun after the kernel has acknowledged
//     that the address is gone. The heir adds it when it sees the transaction.
//
// A change of the store's leader only delays beats: holders then let go early.
// A step of the wall clock changes nothing: it is only ever shown.
//
// # The kernel's slack
//
// The kernel removes an address at most 0.25 s after its lifetime, and up to
// 1 s after it if somebody else sets an address in the same network namespace
// (before Linux 6.14: IPv4 in any) during the last second of that lifetime.
// BenchmarkLifetime in internal/kernel, Linux 6.18 on two busy processors, 10
// each, how late:
//
//	                       median     longest
//	IPv4                    32 ms      252 ms
//	IPv6                    26 ms      226 ms
//	IPv4, another was set  536 ms    1,048 ms
//	IPv6, another was set  604 ms    1,046 ms
//
//	go test ./internal/kernel -run - -bench Lifetime -benchtime 10x
//
// DefaultTiming's slack of 500 ms covers the first case twice over. It does
// not cover the second, which needs an agent that is dead or stopped and an
// address that somebody else sets within that second; nor a processor that
// sleeps through, since the kernel's timer is deferrable. A fabric that rather
// waits takes a slack of 1.1 s and a lease of 2.5 s. A node's addresses are
// refreshed together, so that they do not disturb each other.
//
// # What remains
//
// An agent that is stopped between its look at the clock and the system call
// after it puts the addresses there when it goes on, and takes them away with
// its next system calls. The system call itself waits for the kernel's lock and
// takes some 50 µs for each address, so they go in batches, each with a look of
// its own. And a machine that was suspended as a whole comes back with its
// addresses, since the kernel's jiffies stood still, until the agent runs
// again: within Renew, or, where a hypervisor has stopped CLOCK_BOOTTIME too,
// when the store refuses its next beat.
//
// Nodes that have different documents may disagree on what a gateway is: one
// that is on every node in the one and elected in the other, one whose segment
// has another name, one whose leases are kept in another store. That lasts as
// long as the difference.
//
// Two machines of one name have one record. The second one waits until the
// first one's lease is over (agent.isDoubled).
//
// # Why the leases are not etcd's
//
// Those last whole seconds, are looked at every 500 ms (lease/lessor.go), and
// cannot be shorter than one and a half election timeouts. A lifetime of one
// second and the kernel's slack do not fit into one of 1 s; one of 2 s ends
// 2.0 to 2.5 s after the last beat. These leases last 1.9 s, to the
// millisecond, for one small write per node and beat.
//
// # Planned moves
//
// The node that should have a gateway instead of its holder (because that one
// is drained or leaves, holds too many, or has fewer guests) says so with a
// wish, when it is ready. The holder takes its addresses out of the kernel and
// hands the tenure over. There is no address for the time of one transaction
// and of one watch event; everything else, EVPN routes and neighbour entries,
// can be prepared by the wish.
//
// An agent that is restarted finds its session and goes on with it. It
// reclaims each tenure first, by rule 5, and the addresses stay where they
// are meanwhile.
package gateway
