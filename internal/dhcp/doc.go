// Package dhcp gives guests their addresses (RFC 2131, RFC 8415): each node
// answers its own, from leases in the store.
//
// # The lease
//
// There is one record per address. Every change of it is a compare-and-swap:
// its condition is the revision that the writer has seen, or that there is no
// record. So of two nodes that give one address to two clients one is refused,
// and chooses another. Many changes share a transaction; when one is refused
// all are, and each is looked at again when the watch has told what is so.
//
// A record says who its client is and how long it holds: the lease and a time
// of grace. Nobody takes an address from its client before he has seen the
// record unchanged for that long, on his own clock (CLOCK_BOOTTIME). No clocks
// are compared, and none has to be right, only to run at the right speed. An
// agent that was restarted begins to count anew: what is long over is given
// again a little later then, never too early.
//
// # What a node may promise without the store
//
// Each record says which run of which agent wrote it, and when that run began
// to send it, by its own clock. That run, and no other, lets the client use
// the address until
//
//	Sent + Hold − margin
//
// without another word from the store. A client of which this node wrote the
// record is therefore answered at once, for a whole lease as long as the rest
// is not shorter, and what was promised is written back afterwards. While the
// store is away the rest shrinks: with a lease of 10 m and a grace of 1 h,
// guests are renewed for more than an hour. What is shorter than
// leastPromise is not promised, and the client is not answered: it keeps its
// address to the end of its lease, and asks on.
//
// # Why there are never two
//
//  1. A record is sent before it is stored, and stored before it is seen. So an
//     observer's Hold ends after the writer's, by at least the time that the
//     transaction took; the margin covers clocks of different speed.
//  2. Had another record been stored meanwhile, the observer's transaction
//     would fail: its condition is the revision.
//  3. What follows a record for the same client holds no less than what is
//     left of it (keep), so that a shorter lease in the document does not cut
//     what was promised.
//  4. A guest that moves is another node's: that one writes the record anew
//     before it answers. The node before may still promise what it could, to
//     the same client; so the record is marked (Moved), and when the client
//     releases the address it is kept for its time all the same. A node that
//     has always been the only one deletes it, and others have it at once.
//  5. What a node releases or sets aside it surrenders at that revision, and
//     promises nothing by it again, whatever becomes of the transaction: one
//     whose answer is lost may still be carried out.
//  6. That a record is gone is believed of the watch alone. The answer to a
//     transaction may be faster than what the watch tells of the time before,
//     which would bring a released lease back.
//  7. A run ends with its agent: there is one agent on a node, and what the run
//     before has sent and was not yet carried out changes nothing, as it
//     promised by records that it had seen. The next run writes them anew,
//     all at once when it begins, and only then promises by them.
//
// The client counts from when it sent its request (RFC 2131 §4.4.1), which is
// before it was answered.
//
// # Who is asked
//
// Requests are heard on the guests' ports and nowhere else, so that what comes
// from other nodes by VXLAN is never answered; and they are kept from leaving by
// it. Answers leave by the port, as whole frames to the client's MAC (§4.1):
// the bridge needs no address. The server identifier is the gateway's address,
// the same on every node; where it is on another node, or there is none, the
// guest's own node hears what is sent to it all the same.
//
// An offer is written down before it is made: 300 guests that begin at once
// would else get many offers of one address. Then the address is probed, on
// this node's ports (RFC 5227); of guests on other nodes, EVPN knows. What
// somebody has without a lease is set aside for half an hour.
//
// # IPv6
//
// What is decided is decided once, for both protocols: DHCPv6's messages are put
// in the terms of DHCPv4 (classify), and only what is said differs. The client's
// identifier is its DUID and IAID; the server's is made of the gateway's MAC, and
// so the same on every node. Of several identities in a message the first is
// given an address. None is probed: clients do that themselves, and decline.
//
// # Which address
//
// The one that is reserved for the client, else the one that it has or had
// last: records stay when they are over, until somebody else needs the
// address. Else the one that the client asks for, or that a hash of its
// identifier says, so that it gets the same if the store is lost. Addresses
// that nobody ever had come before those that somebody had.
//
// # What remains
//
// Until a client has a lease, whoever says its identifier first is it (RFC 2131
// has no proof of it); then others with the identifier are known by their MACs
// (identify). And an agent that begins while the store is away knows no leases:
// it answers nobody until the store is back.
package dhcp
