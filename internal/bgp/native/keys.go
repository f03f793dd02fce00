package native

import (
	"context"
	"net"
	"net/netip"

	seam "frond/internal/bgp"
)

// setKeys has all that comes into being from now on signed with these keys.
// The kernel has one key per socket and peer, so who listens has the current
// one, and who dials tries both: of any two nodes of which one has the key of
// the other as its previous one, that one finds the other.
func (s *Speaker) setKeys(before, now seam.Keys) {
	s.keys.Store(&now)
	if before.Current == now.Current {
		return
	}
	s.strangers.closeAll() // they came under the one before
	if err := s.sign(string(now.Current)); err != nil {
		s.log.Error("cannot require TCP-MD5 on incoming sessions", "error", err)
	}
}

// endure tells whether sessions outlive a change of the keys. None does that
// has no signature where there is to be one now.
func endure(before, now seam.Keys) bool {
	switch before.Current {
	case now.Current:
		return true
	case "":
		return false
	}
	return now.Previous == before.Current || now.Current != "" && now.Current == before.Previous
}

// dialWith connects to a peer with the key that it answers to. It listens with
// one and is silent to all others, so at most one connection comes about.
func dialWith(ctx context.Context, to netip.AddrPort, keys seam.Keys) (*net.TCPConn, error) {
	if keys.Previous == "" {
		return dial(ctx, to, string(keys.Current))
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type attempt struct {
		conn *net.TCPConn
		err  error
	}
	previous := make(chan attempt, 1)
	go func() {
		conn, err := dial(ctx, to, string(keys.Previous))
		if err == nil {
			cancel()
		}
		previous <- attempt{conn, err}
	}()
	conn, err := dial(ctx, to, string(keys.Current))
	if err == nil {
		cancel()
	}
	other := <-previous
	switch {
	case err == nil && other.err == nil: // a peer that answers to anything
		_ = other.conn.Close()
	case other.err == nil:
		return other.conn, nil
	}
	return conn, err
}
