package native

import (
	"errors"
	"net"
	"net/netip"
	"time"
)

// strangers are incoming connections from addresses that are no peers yet:
// the far side has often found us before we have found it. They wait for a
// moment, few at a time.
type strangers map[netip.Addr]stranger

type stranger struct {
	conn *net.TCPConn
	at   time.Time
}

const (
	strangersMax  = 32
	strangersWait = 2 * time.Second
)

// keep holds a connection back, or closes it when too many wait already.
func (s strangers) keep(from netip.Addr, conn *net.TCPConn, now time.Time) {
	for addr, waiting := range s {
		if addr == from || now.Sub(waiting.at) > strangersWait {
			waiting.conn.Close()
			delete(s, addr)
		}
	}
	if len(s) >= strangersMax {
		conn.Close()
		return
	}
	s[from] = stranger{conn, now}
}

// take returns the connection that waits from that address, if it is not too old.
func (s strangers) take(from netip.Addr, now time.Time) *net.TCPConn {
	waiting, ok := s[from]
	if !ok {
		return nil
	}
	delete(s, from)
	if now.Sub(waiting.at) > strangersWait {
		waiting.conn.Close()
		return nil
	}
	return waiting.conn
}

func (s strangers) closeAll() {
	for addr, waiting := range s {
		waiting.conn.Close()
		delete(s, addr)
	}
}

// accept takes connections in until the listener is closed.
func (s *Speaker) accept() {
	for {
		conn, err := s.listener.AcceptTCP()
		if err != nil {
			if isClosed(err) {
				return
			}
			s.log.Warn("cannot accept BGP connections", "error", err)
			select { // such as too many open files: others may let go of some
			case <-time.After(time.Second):
				continue
			case <-s.ended:
				return
			}
		}
		s.post(accepted{conn})
	}
}

// accepted is an incoming connection.
type accepted struct{ conn *net.TCPConn }

func (a accepted) apply(s *Speaker) {
	from, err := remoteAddr(a.conn)
	if err != nil || !linkLocal.Contains(from.WithZone("")) {
		a.conn.Close()
		return
	}
	if err := signConn(a.conn, from, string(s.desired.Keys.Current)); err != nil {
		s.log.Error("cannot require TCP-MD5 on an incoming session", "peer", from, "error", err)
		a.conn.Close()
		return
	}
	n, ok := s.neighbors[from]
	if !ok {
		s.strangers.keep(from, a.conn, time.Now())
		return
	}
	n.offer(a.conn)
}

// offer hands an incoming connection to the machine, which may have enough.
func (n *neighbor) offer(conn *net.TCPConn) {
	select {
	case n.machine.inbound <- conn:
	default:
		conn.Close()
	}
}

func linkLocalOf(a net.Addr) netip.Addr {
	return a.(*net.TCPAddr).AddrPort().Addr().WithZone("")
}

// signConn has the rest of a connection signed with the key that is in force
// now: it may have come about when another was, or none.
func signConn(conn *net.TCPConn, from netip.Addr, password string) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	return control(raw, func(fd int) error {
		return setSignature(fd, netip.PrefixFrom(from.WithZone(""), 128), password)
	})
}

// sign sets or takes away the key that incoming connections must be signed
// with.
func (s *Speaker) sign(password string) error {
	raw, err := s.listener.SyscallConn()
	if err != nil {
		return err
	}
	return control(raw, func(fd int) error { return setSignature(fd, linkLocal, password) })
}

func isClosed(err error) bool { return errors.Is(err, net.ErrClosed) }
