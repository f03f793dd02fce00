// Package quorum lets each elected gateway be on exactly one node by what the
// database of LXD or Incus says: the hypervisors' own cluster decides, and no
// store is needed.
//
// # Whom the voters name
//
// That database is dqlite: SQLite, replicated by Raft among a few of the
// members, its voters. Asked for the leader, a voter says whom it takes for it
// at that moment. One answer proves nothing. A leader that was cut off goes on
// to claim to be one for 3.2 to 5.6 s, another may be elected after 4.2 s, and
// in 2 of 10 cuts two members claimed it at once, for half a second and more. A
// voter that stood still, for however long, claims when it goes on what was true
// when it stopped. The vote that a voter has written to its disk (voted_for)
// says even less: it is a vote, not its outcome, and a leader that was cut off
// keeps it for as long as it is alone.
//
// A majority of the voters, each of which names the same leader, does prove
// something, to begin with as long as the same members vote. Let S be the moment
// when the first of these questions was sent. Had another leader, of a later term,
// been elected before S, then by votes of a majority, and somebody is in both
// majorities. By giving that vote, before S, it entered the later term and forgot
// the leader before; in that term it can name nobody but the one who was elected
// in it. So it would not have named this one after S. That holds whatever the
// timeouts of Raft are, whatever stood still, and whatever came late: at S, nobody
// had been elected after this leader.
//
// # While other members come to vote
//
// Who votes is an entry in the database's own log, and other members do while
// the cluster runs: LXD gives the vote of one that is away to another. Who asks
// can have an old list. With {1,2,3} on it, two members that have lost their
// votes without having heard of it would prove that 3 leads, when 4 was elected
// by {3,4,5}. So the list of who asks does not matter. Each voter is asked whom it
// takes for the voters (CLUSTER) and then for the leader, and a majority is one of
// the voters that its own members name, all of them the same.
//
// Let V be these, in the latest entry of the log by which one of the majority
// names them, and T the latest term in which one of it names the leader. Had
// another been elected before S in a term after T, then take the first one, and
// let W be the voters of its log, of whom a majority has voted for it. Raft
// changes one voter at a time, and each change only when the one before is
// committed:
//
//   - W is V or differs in one: their majorities share a member, as above.
//   - W is further on. The change that follows V was committed before W was
//     begun, so before S a majority of its voters had it, and somebody in that
//     majority is also in the one that was asked. It would have named voters of
//     that change or a later one.
//   - W is further back. The change before V was committed before V was written,
//     in T at the latest, for a member asked for the voters first has no entry of a
//     later term than that in which it then names the leader. Nobody without a
//     committed entry is elected in a later term (Raft §5.4, leader completeness).
//
// So again, at S, nobody had been elected after this leader. While a change is
// on its way, which takes milliseconds, voters differ and prove nothing; that is
// an answer that is lost. A member that was removed from the cluster counts as
// little as any other that is not named.
//
// # The lease
//
// Each such proof is a lease that lasts from S for Timing.Lease. A node whose
// member is named holds its gateways while a lease of its own lasts. A node whose
// member comes to be named waits for a Lease from when the first proof came, if
// it was named all the time: every proof of anybody who was leader before has an
// S before that. 3 s is what the kernel makes necessary, and nothing else: a
// lifetime of one second, the 1.1 s by which it may be late (see package
// gateway), and 0.9 s for an answer to come, so that one lost does no harm.
//
// The kernel gets addresses with a lifetime that ends, with its lateness, before
// the lease does. So an agent that is killed, stands still or is cut off loses
// them by the kernel's own clock, CLOCK_BOOTTIME.
//
// # Being named all the time
//
// Between two proofs another one may have been leader, and this one again after
// it. That does not matter if it cannot have held anything: nobody acts before
// its own claim is longestGap old. So a claim begins anew after a gap of that
// length. For the same reason, who holds a gateway already, and comes to be named
// again after another can have been, prolongs nothing before it has been named
// for longestGap: the other, which waits since it was named, has noticed by then
// and begins anew. Beyond that it has to fear only a node that waited for
// the end of its lease, which acts a Lease after that, with a proof that still
// lets the kernel have a lifetime: it was leader for shortestTenure at least.
//
// # Letting go
//
// Waiting costs 3 s, so whoever comes to be named asks the one who was named
// before, once its own claim is longestGap old. That one takes the addresses out
// of the kernel and answers how long ago its last proof was sent: a token, given
// once, to the one who asked. Nobody else's lease can last when it is used
// before shortestTenure has passed since that proof: those before the giver
// had ended when it took the gateway; one who was elected after that proof and
// waits for leases to end does not act so early; and no one else got a token.
// The agents speak by TLS, on either side with the cluster's certificate, whose
// key all members have and nobody else.
//
// Until it is asked, the giver goes on: there is no address for as long as one
// question and its answer take. So it is where leadership is transferred, where
// LXD is stopped on the leader's node, and even where it is killed there: the
// other voters name its member until they elect another one.
//
// # Who leads, and has no agent
//
// Where the leader's node does not run an agent, has no part in the segments, or
// is drained, the gateways would be nowhere. Agents beside other voters ask it
// each second whether it is ready; the first of them for whom it was not for
// some seconds has the leader transfer to itself.
//
// # By hash
//
// With many segments, gateways may be spread over the members (Spread). Who is
// online, and so who should have which, is a pure function of the database: of
// its rows alone, and of no reader's clock. The leader reads them, and if a
// majority names it when asked after that, nobody had been elected before it
// read: it read what was true then. So each proof says, for each segment, that
// it was this node's at some moment after S, as a leader's does, and all that
// follows from it is the same, for each segment by itself.
//
// That the node beside a member is drained, or has no agent, has to be in the
// database too. It is noted on the member, in its configuration.
//
// # What remains
//
// What package gateway says remains: an agent that is stopped between its look
// at the clock and the system call, nodes with different documents. A member that
// was removed from the cluster and added again with an empty database has no
// memory of its votes; LXD gives it another identity, by which it is another
// voter. All that is said of voters that change is as true as Raft's own proof:
// a leader has to commit an entry of its term before it changes voters, and
// nobody may take a majority from the others by force ("lxd cluster
// recover-from-quorum-loss" on a node while the others live).
package quorum
