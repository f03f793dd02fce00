package quorum

import (
	"bufio"
	"bytes"
	"context"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestMember asks a member over one connection.
func TestMember(t *testing.T) {
	i := identities(t)
	e := serve(t, i, nil)
	e.lead("10.0.200.1:8443")
	m, err := newDialer(i).open(t.Context(), e.address)
	must(t, err)
	defer func() { must(t, m.Close()) }()
	for _, want := range []string{"10.0.200.1:8443", "", "10.0.200.2:8443"} {
		e.lead(want)
		if got, err := m.Leader(t.Context()); err != nil || got != want {
			t.Errorf("the leader is %q (%v), want %q", got, err, want)
		}
	}
	members, err := m.Members(t.Context())
	must(t, err)
	if diff := cmp.Diff([]Member{{7, e.address, Voter}, {8, "10.0.200.2:8443", Spare}}, members); diff != "" {
		t.Errorf("members (-want +got):\n%s", diff)
	}
	for range 2 { // the database is opened once
		read, err := m.Registered(t.Context())
		must(t, err)
		want := []registered{{"lx1", e.address, 1000, ""}, {"lx2", "10.0.200.2:8443", 980, "drained"}}
		if diff := cmp.Diff(want, read, cmp.AllowUnexported(registered{})); diff != "" {
			t.Errorf("registered (-want +got):\n%s", diff)
		}
	}
	if err := m.Transfer(t.Context(), 8); err == nil || !strings.Contains(err.Error(), "what is that?") {
		t.Errorf("a transfer that is refused: %v", err)
	}
	own, err := os.ReadFile(filepath.Join(i.Dir, "server.crt"))
	must(t, err)
	block, _ := pem.Decode(own)
	e.mu.Lock()
	defer e.mu.Unlock()
	if !bytes.Equal(block.Bytes, e.shown) {
		t.Error("it was not asked with the member's own certificate")
	}
}

// TestFind has a member's LXD find out who leads, and says what it says against it.
func TestFind(t *testing.T) {
	i := identities(t)
	for _, test := range []struct{ answer, want, err string }{
		{"200 OK\r\nContent-Length: 28\r\n\r\n{\"leader\":\"10.0.200.2:8443\"}", "10.0.200.2:8443", ""},
		{"500 Internal Server Error\r\nContent-Length: 4\r\n\r\nnone", "", "500 Internal Server Error: none"},
		{"200 OK\r\nContent-Length: 3\r\n\r\n{[}", "", "invalid character"},
	} {
		e := serve(t, i, func(conn net.Conn, r *bufio.Reader) {
			request, err := http.ReadRequest(r)
			if err == nil && request.Method == http.MethodGet && request.URL.Path == "/internal/database" && request.Header.Get("X-Dqlite-Version") == "1" {
				_, _ = io.WriteString(conn, "HTTP/1.1 "+test.answer)
			}
		})
		got, err := newDialer(i).find(t.Context(), e.address)
		if got != test.want || (err != nil || test.err != "") && (err == nil || !strings.Contains(err.Error(), test.err)) {
			t.Errorf("%q, %v; want %q, %q", got, err, test.want, test.err)
		}
	}
}

// TestMembersThatAreNone gives up on everything that is not a member as it
// should be, and says why.
func TestMembersThatAreNone(t *testing.T) {
	upgraded := func(talk string) func(net.Conn, *bufio.Reader) {
		return func(conn net.Conn, r *bufio.Reader) {
			if switched(conn, r) {
				_, _ = io.CopyN(io.Discard, r, 8+16) // version, LEADER
				_, _ = io.WriteString(conn, talk)
			}
		}
	}
	says := func(talk string) func(net.Conn, *bufio.Reader) {
		return func(conn net.Conn, _ *bufio.Reader) { _, _ = io.WriteString(conn, talk) }
	}
	for _, test := range []struct {
		name, want string
		talk       func(net.Conn, *bufio.Reader)
	}{
		{"closes", "EOF", says("")},
		{"is no HTTP", "malformed HTTP", says("SSH-2.0-OpenSSH_9.2\r\n")},
		{"never ends its headers", "too long", says("HTTP/1.1 101 Switching Protocols\r\nX: " + strings.Repeat("x", 64<<10))},
		{"refuses", "403 Forbidden", says("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")},
		{"upgrades to something else", "101 Switching", says("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n")},
		{"speaks unasked", "before it is asked", says("HTTP/1.1 101 Switching Protocols\r\nUpgrade: dqlite\r\n\r\nhello")},
		{"closes later", "EOF", upgraded("")},
		{"another message", "of kind 7", upgraded(string(message(7, number(1), text("x"))))},
		{"garbage", "that is none", upgraded(strings.Repeat("garbage ", 100))},
		{"a length without end", "that is none", upgraded("\xff\xff\xff\xff\x01\x00\x00\x00")},
		{"a text without end", "too short", upgraded(string(message(1, number(1), []byte("xxxxxxxx"))))},
		{"an empty message", "too short", upgraded(string(message(1)))},
		{"hangs", "in time", func(_ net.Conn, r *bufio.Reader) { _, _ = io.Copy(io.Discard, r) }},
		{"hangs later", "in time", func(conn net.Conn, r *bufio.Reader) {
			if switched(conn, r) {
				_, _ = io.Copy(io.Discard, r)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			i := identities(t)
			e := serve(t, i, test.talk)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			m, err := newDialer(i).open(ctx, e.address)
			if err == nil {
				defer func() { _ = m.Close() }()
				var leader string
				if leader, err = m.Leader(ctx); err == nil {
					t.Fatalf("it takes %q for the leader", leader)
				}
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("it says %q, want %q", err, test.want)
			}
		})
	}
}

// TestCertificates speaks to nobody but who has the cluster's certificate.
func TestCertificates(t *testing.T) {
	i := identities(t)
	e := serve(t, identities(t), nil)
	if _, err := newDialer(i).open(t.Context(), e.address); err == nil || !strings.Contains(err.Error(), "cluster.crt") {
		t.Errorf("another cluster's: %v", err)
	}
	e = serve(t, i, nil)
	m, err := newDialer(i).open(t.Context(), e.address)
	must(t, err)
	must(t, m.Close())
	issue(t, i.Dir, "cluster") // is replaced, and the member does not know yet
	if _, err := newDialer(i).open(t.Context(), e.address); err == nil || !strings.Contains(err.Error(), "cluster.crt") {
		t.Errorf("the one before: %v", err)
	}
	must(t, os.WriteFile(filepath.Join(i.Dir, "cluster.crt"), []byte("nothing"), 0o600))
	if _, err := newDialer(i).open(t.Context(), e.address); err == nil || !strings.Contains(err.Error(), "is no certificate") {
		t.Errorf("none: %v", err)
	}
	must(t, os.Remove(filepath.Join(i.Dir, "server.key")))
	if _, err := newDialer(i).open(t.Context(), e.address); err == nil || !strings.Contains(err.Error(), "server.key") {
		t.Errorf("no key: %v", err)
	}
}

// FuzzReceive wants whatever a member says to be an error or what was asked for.
func FuzzReceive(f *testing.F) {
	f.Add(message(1, number(1), text("10.0.200.1:8443")))
	f.Add(message(3, number(1), number(7), text("10.0.200.2:8443"), number(2)))
	f.Add(message(0, number(1), text("no")))
	f.Add(message(7, number(4), text("a"), text("b"), text("c"), text("d"), number(0x3133), text("lx1"), text("x"), number(1), text(""), number(0xff)))
	f.Add([]byte("\xff\xff\xff\xff\x01\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, said []byte) {
		if r, err := receive(bytes.NewReader(said), responseRows); err == nil {
			if all, err := readRegistered(r); err != nil && all != nil {
				t.Fatalf("%v and %v", all, err)
			}
		}
		for _, want := range []byte{responseNode, responseNodes, responseEmpty} {
			r, err := receive(bytes.NewReader(said), want)
			if (r == nil) != (err != nil) {
				t.Fatalf("%v and %v", r, err)
			}
			for r != nil && r.err == nil {
				r.number()
				if r.text(); len(r.rest) > len(said) {
					t.Fatal("it has more than was said")
				}
			}
		}
	})
}
