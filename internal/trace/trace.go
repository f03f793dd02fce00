// Package trace finds the way that a packet takes through the fabric: it asks
// node after node what its kernel does with the packet, and follows every leg.
package trace

import (
	"context"

	"frond/internal/status"
)

// Asker asks nodes.
type Asker interface {
	// Forwarding tells what the kernel of a node does with a packet. An error
	// says why it is not known.
	Forwarding(ctx context.Context, node string, to status.Destination) (status.Forwarding, error)
}

// maxHops bounds what one trace asks: more than the nodes that a packet's TTL
// lets it pass, on all legs together.
const maxHops = 512

// Outcome is what becomes of the packets, over all legs together.
type Outcome string

// The outcomes.
const (
	Delivered Outcome = "delivered" // over every leg
	Partly    Outcome = "partly"    // some legs lose them
	Lost      Outcome = "lost"      // over every leg
	Unknown   Outcome = "unknown"   // nothing is known to be lost, but not every node could be asked
)

// Trace is the way of a packet.
type Trace struct {
	From    Endpoint `json:"from"`
	To      Endpoint `json:"to"`
	Outcome Outcome  `json:"outcome"`
	Hops    []Hop    `json:"hops"` // by ID; the first is where the way begins
}

// Hop is a node that has the packet, and what its kernel does with it. Legs
// that meet again lead to the same hop.
type Hop struct {
	ID   int                `json:"id"`
	Node string             `json:"node"`
	To   status.Destination `json:"to"`
	// Outer tells that the packet is one of VXLAN, which carries the traced one.
	Outer  bool               `json:"outer,omitempty"`
	Answer *status.Forwarding `json:"answer,omitempty"` // nil: see Problem
	Next   []Next             `json:"next"`
	// Problem says why the way ends here although it should not.
	Problem string `json:"problem,omitempty"`
}

// Next is how a packet goes on from a hop.
type Next struct {
	// Leg is nil where the packet stays on the node: packed into VXLAN or unpacked.
	Leg *status.Leg `json:"leg,omitempty"`
	// Hop is the ID of the hop that it leads to, absent where it ends.
	Hop *int `json:"hop,omitempty"`
	// Problem says why it ends; a way out of the fabric ends without one.
	Problem string `json:"problem,omitempty"`
}

// Walk follows a packet from an endpoint to another, both of which a Directory
// has found.
func Walk(ctx context.Context, ask Asker, from, to Endpoint) (Trace, error) {
	packet, err := destination(from, to)
	if err != nil {
		return Trace{}, err
	}
	w := &walk{ask: ask, seen: make(map[place]int), done: make(map[int]fate)}
	t := Trace{From: w.locate(ctx, from), To: to}
	w.visit(ctx, place{node: from.Node, to: packet})
	t.Hops, t.Outcome = w.hops, w.done[0].outcome()
	return t, ctx.Err()
}

// place is a packet on a node.
type place struct {
	node  string
	to    status.Destination
	inner status.Destination // what is inside, if the packet is one of VXLAN
	// unpacked: it came in VXLAN. A bridge does not send it back there.
	unpacked bool
}

func (p place) isOuter() bool { return p.inner != status.Destination{} }

// fate is what becomes of packets over all the legs from a hop on.
type fate struct{ arrive, lost, unknown bool }

func (f fate) and(other fate) fate {
	return fate{f.arrive || other.arrive, f.lost || other.lost, f.unknown || other.unknown}
}

func (f fate) outcome() Outcome {
	switch {
	case f.lost && (f.arrive || f.unknown):
		return Partly
	case f.lost:
		return Lost
	case f.unknown:
		return Unknown
	}
	return Delivered
}

// walk is one search through the fabric, depth first. A place that is entered
// again before its fate is known is a loop; after that it is where legs meet.
type walk struct {
	ask  Asker
	hops []Hop
	seen map[place]int
	done map[int]fate
}

// locate asks the node of a guest for the port that the guest is behind.
func (w *walk) locate(ctx context.Context, from Endpoint) Endpoint {
	if from.MAC == "" {
		return from
	}
	answer, err := w.ask.Forwarding(ctx, from.Node, status.Destination{Segment: from.Segment, MAC: from.MAC})
	switch {
	case err != nil: // the first hop says so
	case answer.Action == status.Deliver:
		from.Port = answer.Port
	default:
		from.Problem = "the kernel of " + from.Node + " does not have it on a port"
	}
	return from
}

// visit notes the hop at a place and all that follow, and returns its ID.
func (w *walk) visit(ctx context.Context, p place) int {
	id := len(w.hops)
	w.seen[p] = id
	w.hops = append(w.hops, Hop{ID: id, Node: p.node, To: p.to, Outer: p.isOuter(), Next: []Next{}})
	answer, err := w.ask.Forwarding(ctx, p.node, p.to)
	if err != nil {
		w.done[id] = w.end(id, fate{unknown: true}, err.Error())
		return id
	}
	w.hops[id].Answer = &answer
	w.done[id] = w.follow(ctx, id, p, answer)
	return id
}

// follow goes on as a kernel says.
func (w *walk) follow(ctx context.Context, id int, p place, answer status.Forwarding) fate {
	switch answer.Action {
	case status.Deliver:
		if p.isOuter() {
			return w.proceed(ctx, id, Next{}, place{node: p.node, to: p.inner, unpacked: true})
		}
		return fate{arrive: true}
	case status.Encapsulate:
		if p.unpacked {
			return w.end(id, fate{lost: true}, "it came in VXLAN, and a bridge sends nothing back where it came from")
		}
		if p.isOuter() {
			return w.end(id, fate{lost: true}, "the way to a VTEP leads through a segment")
		}
		return w.proceed(ctx, id, Next{}, place{node: p.node, to: status.Destination{Address: answer.VTEP}, inner: p.to})
	case status.Forward:
		return w.fork(ctx, id, p, answer.Legs)
	case status.Flood:
		return w.end(id, fate{lost: true}, "nobody is known by this MAC: frames to it are flooded")
	case status.Drop:
		return w.end(id, fate{lost: true}, answer.Reason)
	}
	return w.end(id, fate{unknown: true}, "its answer is not understood, is it an agent of another version?")
}

// fork follows every leg. One that the kernel knows to be dead is not used,
// which loses packets only if there is no other.
func (w *walk) fork(ctx context.Context, id int, p place, legs []status.Leg) fate {
	var all fate
	for _, leg := range legs {
		switch {
		case leg.Problem != "":
			w.next(id, Next{Leg: &leg, Problem: leg.Problem})
		case leg.Outside:
			w.next(id, Next{Leg: &leg})
			all.arrive = true
		case leg.Segment != "" && leg.MAC == "":
			w.next(id, Next{Leg: &leg, Problem: "the kernel has no neighbour entry for it yet: it asks for its MAC first"})
			all.unknown = true
		case leg.Segment != "":
			frame := place{node: p.node, to: status.Destination{Segment: leg.Segment, MAC: leg.MAC}, inner: p.inner}
			all = all.and(w.proceed(ctx, id, Next{Leg: &leg}, frame))
		case leg.Node == "":
			w.next(id, Next{Leg: &leg, Problem: "who is behind this port is not known"})
			all.unknown = true
		default:
			all = all.and(w.proceed(ctx, id, Next{Leg: &leg}, p.forwarded(leg.Node)))
		}
	}
	if all == (fate{}) {
		all.lost = true
	}
	return all
}

// forwarded is the packet at the next node, where it is nobody's guest's.
func (p place) forwarded(node string) place {
	return place{node: node, to: status.Destination{Address: p.to.Address}, inner: p.inner}
}

// proceed goes on to a place.
func (w *walk) proceed(ctx context.Context, id int, next Next, p place) fate {
	to, been := w.seen[p]
	if !been && len(w.hops) >= maxHops {
		next.Problem = "too many hops: the trace ends here"
		w.next(id, next)
		return fate{unknown: true}
	}
	if !been {
		to = w.visit(ctx, p)
	}
	next.Hop = &to
	f, known := w.done[to]
	if !known {
		next.Problem = "a loop: the packet was here before"
		f = fate{lost: true}
	}
	w.next(id, next)
	return f
}

// next notes how a hop goes on.
func (w *walk) next(id int, next Next) { w.hops[id].Next = append(w.hops[id].Next, next) }

// end notes why the way ends at a hop.
func (w *walk) end(id int, f fate, problem string) fate {
	w.hops[id].Problem = problem
	return f
}
