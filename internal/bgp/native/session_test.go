package native

import (
	"net"
	"testing"
	"time"
)

// TestEndsThoughNobodyReads ends a session whose peer stands still with full
// buffers.
func TestEndsThoughNobodyReads(t *testing.T) {
	l, err := net.ListenTCP("tcp6", &net.TCPAddr{IP: net.IPv6loopback})
	must(t, err)
	defer l.Close()
	conn, err := net.DialTCP("tcp6", nil, l.Addr().(*net.TCPAddr))
	must(t, err)
	defer conn.Close()
	c := newCandidate(conn, true)
	c.agreement = &agreement{hold: time.Hour, families: everything.families}
	s := newSession(c)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = s.serve(t.Context(), func(message) {}, nil)
	}()
	s.out <- make([]byte, 64<<20)
	s.out <- nil // waits until the writer has taken the first
	s.end(nil)
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Error("the session does not end")
	}
}
