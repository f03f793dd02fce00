// Package bfd watches the cables of a fabric: Bidirectional Forwarding
// Detection in asynchronous mode (RFC 5880) over a single hop (RFC 5881),
// between IPv6 link-local addresses.
//
// Sessions live in a small process of their own ([Serve]), which outlives the
// agent and therefore sets the C bit: its packets say something about the
// forwarding path, nothing about the control plane (RFC 5882 §4.3). The agent
// talks to it by a [Client] over a unix socket; when the agent goes away the
// sessions go on.
//
// # What a state means to BGP
//
//   - "unanswered": the peer never sent a valid packet. It may not speak BFD at
//     all, so this must never hold back or end a BGP session (RFC 5882 §4.1).
//   - "up": packets pass in both directions.
//   - "down": with [State.EverUp] a failure, whether the detection time passed
//     or the peer said so; without it no more than "init".
//   - "init": the peer is heard but has not said that it hears us.
//   - "admin-down": the peer's operator switched BFD off, or the peer is about
//     to end; not a failure, even with EverUp (RFC 5882 §3.2). Nor is what
//     follows, until the session is up again.
//
// States are coalesced for a slow reader; [State.Flaps] counts every loss of
// the up state, so that a short one is not missed.
//
// Echo, demand mode and authentication are not used.
package bfd
