package api

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"frond/internal/pki"
	"frond/internal/status"
)

// leaf1At is a loopback of this machine's that no other test listens on.
var leaf1At = netip.MustParseAddr("127.71.79.1")

// certify makes a CA and the certificates of leaf1, leaf2 and of alice, who is an operator.
func certify(t *testing.T) string {
	t.Helper()
	dir := t.TempDir() + "/pki"
	begin := time.Now().Add(-2 * pki.ValidityOfNode)
	_, err := pki.Init(dir, "apollo", begin)
	must(t, err)
	for _, name := range []string{"leaf1", "leaf2"} {
		_, err := pki.Issue(dir, pki.Node{Name: name}, time.Now())
		must(t, err)
	}
	_, err = pki.Issue(dir, pki.Node{Name: "old"}, begin)
	must(t, err)
	_, err = pki.IssueOperator(dir, "alice", time.Now())
	must(t, err)
	return dir
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// network runs an agent's API over the network until the test ends.
func network(t *testing.T, b Backend, r Reach) *Network {
	t.Helper()
	n := NewNetwork(b, quiet)
	n.Set(r)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return n
}

// eventually waits until it is so.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

// reachable runs leaf1's agent, and waits until leaf2 gets an answer.
func reachable(t *testing.T, dir string, b Backend) *Network {
	t.Helper()
	n := network(t, b, Reach{Addresses: []netip.Addr{leaf1At}, Files: pki.FilesIn(dir, "leaf1")})
	eventually(t, "leaf1 does not answer", func() bool {
		_, err := as(t, dir, "leaf2").Status(t.Context())
		return err == nil
	})
	return n
}

// as is leaf1's agent asked by the holder of a certificate.
func as(t *testing.T, dir, name string) *Client {
	t.Helper()
	c, err := NewRemoteClient(Remote{Node: "leaf1", Address: leaf1At, Files: pki.FilesIn(dir, name)})
	must(t, err)
	return c
}

func TestWhoMayWhatOverTheNetwork(t *testing.T) {
	dir, foreign := certify(t), certify(t)
	changes := 0
	reachable(t, dir, &agent{
		snapshot: status.Snapshot{Node: "leaf1"},
		reload:   func(context.Context) error { changes++; return nil },
	})
	configOf := func(dir, name string) *tls.Config {
		c, err := pki.FilesIn(dir, name).Client(time.Now())
		must(t, err)
		return c
	}
	ours := configOf(dir, "leaf2")
	with := func(change func(*tls.Config)) *tls.Config {
		c := ours.Clone()
		change(c)
		return c
	}
	expired := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		files := pki.FilesIn(dir, "old")
		pair, err := tls.LoadX509KeyPair(files.Cert, files.Key)
		return &pair, err
	}
	const refused = "leaf1 refuses|leaf1 has hung up" // the alert, if it comes before the connection's end
	for name, test := range map[string]struct {
		config *tls.Config
		node   string
		read   string // the error, or one of two; empty: an answer
		write  string
	}{
		"a node":                   {ours, "leaf1", "", "the certificate of leaf2 may ask, not change: show an operator's"},
		"an operator":              {configOf(dir, "alice"), "leaf1", "", ""},
		"no certificate":           {with(func(c *tls.Config) { c.GetClientCertificate = nil }), "leaf1", refused, refused},
		"another CA's":             {with(func(c *tls.Config) { c.GetClientCertificate = configOf(foreign, "alice").GetClientCertificate }), "leaf1", refused, refused},
		"expired":                  {with(func(c *tls.Config) { c.GetClientCertificate = expired }), "leaf1", refused, refused},
		"TLS 1.2":                  {with(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }), "leaf1", refused, refused},
		"does not believe leaf1":   {configOf(foreign, "alice"), "leaf1", "is not of the CA of", "is not of the CA of"},
		"expected somebody else's": {configOf(dir, "alice"), "leaf2", "is not leaf2 but leaf1", "is not leaf2 but leaf1"},
	} {
		before := changes
		c := Remote{Node: test.node, Address: leaf1At, Files: pki.FilesIn(dir, "leaf2")}.client(test.config)
		s, err := c.Status(t.Context())
		if !fits(err, test.read) || err == nil && s.Node != "leaf1" {
			t.Errorf("%s reads: %v, want %q", name, err, test.read)
		}
		if err := c.Reload(t.Context()); !fits(err, test.write) {
			t.Errorf("%s writes: %v, want %q", name, err, test.write)
		}
		if (changes > before) != (test.write == "") {
			t.Errorf("%s: %d changes, then %d", name, before, changes)
		}
	}
}

// fits tells whether an error has one of the texts; none: whether there is none.
func fits(err error, texts string) bool {
	if texts == "" || err == nil {
		return texts == "" && err == nil
	}
	for text := range strings.SplitSeq(texts, "|") {
		if strings.Contains(err.Error(), text) {
			return true
		}
	}
	return false
}

// Only GET asks, whatever else somebody may think of; and without a verified
// certificate nothing is answered, should TLS ever let one in.
func TestRestricted(t *testing.T) {
	h := Restricted(&agent{}, quiet)
	for _, method := range []string{"GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"} {
		request, err := http.NewRequestWithContext(t.Context(), method, "http://leaf1/v1/status", http.NoBody)
		must(t, err)
		w := &answerSeen{header: http.Header{}}
		h.ServeHTTP(w, request)
		if w.code != http.StatusForbidden {
			t.Errorf("%s by nobody: %d", method, w.code)
		}
	}
}

type answerSeen struct {
	header http.Header
	code   int
}

func (a *answerSeen) Header() http.Header         { return a.header }
func (a *answerSeen) WriteHeader(code int)        { a.code = code }
func (a *answerSeen) Write(b []byte) (int, error) { return len(b), nil }

// An operator's certificate is good for asking only: nobody can be an agent with it.
func TestOperatorIsNoAgent(t *testing.T) {
	dir := certify(t)
	network(t, &agent{}, Reach{Addresses: []netip.Addr{leaf1At}, Files: pki.FilesIn(dir, "alice")})
	var err error
	eventually(t, "nothing listens", func() bool {
		_, err = as(t, dir, "leaf2").Status(t.Context())
		return !errors.Is(err, ErrNoAgent)
	})
	if !fits(err, "is of no use|is not leaf1") {
		t.Errorf("Status = %v", err)
	}
}

func TestRemoteClientErrors(t *testing.T) {
	dir := certify(t)
	if _, err := as(t, dir, "alice").Status(t.Context()); !errors.Is(err, ErrNoAgent) || !fits(err, "127.71.79.1:7179 of leaf1: is it running") {
		t.Errorf("without an agent: %v", err)
	}
	for name, want := range map[string]string{"leaf9": "leaf9.crt is missing", "old": "old.crt expired"} {
		if _, err := NewRemoteClient(Remote{Node: "leaf1", Address: leaf1At, Files: pki.FilesIn(dir, name)}); !fits(err, want) {
			t.Errorf("as %s: %v", name, err)
		}
	}
}

func TestFilesOfNetwork(t *testing.T) {
	dir := certify(t)
	files := pki.FilesIn(dir, "leaf1")
	n := reachable(t, dir, &agent{})
	serial := func() string {
		config, err := pki.FilesIn(dir, "leaf2").Client(time.Now())
		must(t, err)
		config.ServerName = "leaf1"
		conn, err := tls.Dial("tcp", netip.AddrPortFrom(leaf1At, Port).String(), config)
		must(t, err)
		defer func() { _ = conn.Close() }()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	first := serial()
	_, err := pki.Issue(dir, pki.Node{Name: "leaf1"}, time.Now())
	must(t, err)
	if serial() == first {
		t.Error("the renewed certificate is not taken up")
	}
	must(t, os.Rename(files.Key, files.Key+".away"))
	if _, err := as(t, dir, "alice").Status(t.Context()); !fits(err, "cannot use its own certificate|hung up") {
		t.Errorf("without its key: %v", err)
	}
	eventually(t, "a missing file is no problem", func() bool { return strings.Contains(n.Problem(), "leaf1.key is missing") })
	must(t, os.Rename(files.Key+".away", files.Key))
	eventually(t, "the problem stays", func() bool { return n.Problem() == "" })
	asks := as(t, dir, "alice")
	must(t, os.Rename(dir, dir+".away"))
	eventually(t, "it answers without any files", func() bool {
		_, err := asks.Status(t.Context())
		return errors.Is(err, ErrNoAgent)
	})
	if n.Problem() != "" {
		t.Errorf("no files are a problem: %s", n.Problem())
	}
}

func TestPortIsTaken(t *testing.T) {
	dir := certify(t)
	other, err := net.Listen("tcp", netip.AddrPortFrom(leaf1At, Port).String())
	must(t, err)
	n := network(t, &agent{}, Reach{Addresses: []netip.Addr{netip.MustParseAddr("127.71.79.2"), leaf1At}, Files: pki.FilesIn(dir, "leaf1")})
	eventually(t, "it is no problem", func() bool { return strings.Contains(n.Problem(), "is another program's") })
	must(t, other.Close())
	eventually(t, "the port is not taken when it is free", func() bool { return n.Problem() == "" })
	n.Set(Reach{})
	eventually(t, "it goes on listening", func() bool {
		_, err := as(t, dir, "leaf2").Status(t.Context())
		return errors.Is(err, ErrNoAgent)
	})
}

// serving is how many connections are being served; one that ends counts for
// a moment longer.
func serving() int {
	stacks := make([]byte, 8<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	return bytes.Count(stacks, []byte("net/http.(*conn).serve("))
}

// Who says nothing, little, or nonsense holds a place for a while, and no more
// than there are; then others have their turn.
func TestNonsenseOverTheNetwork(t *testing.T) {
	dir := certify(t)
	reachable(t, dir, &agent{})
	at := netip.AddrPortFrom(leaf1At, Port).String()
	for i := range 4 * maxConnections {
		conn, err := net.Dial("tcp", at)
		must(t, err)
		defer func() { _ = conn.Close() }()
		switch i % 3 {
		case 0: // says nothing
		case 1:
			_, _ = conn.Write([]byte{22, 3, 1, 2, 0, 1, 0, 1}) // the beginning of a ClientHello (RFC 8446 §5.1)
		case 2:
			_, _ = conn.Write([]byte(strings.Repeat("GET / HTTP/1.1\r\n", 1000)))
		}
	}
	most := 0
	eventually(t, "nobody gets an answer any more", func() bool {
		most = max(most, serving())
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := as(t, dir, "leaf2").Status(ctx)
		return err == nil
	})
	if most > maxConnections+maxConnections/2 {
		t.Errorf("%d connections are served at a time, want at most %d", most, maxConnections)
	}

	config, err := pki.FilesIn(dir, "leaf2").Client(time.Now())
	must(t, err)
	config.ServerName = "leaf1"
	for name, test := range map[string]struct{ request, want string }{
		"a header without an end": {"GET /v1/status HTTP/1.1\r\nHost: leaf1\r\nX: ", ""},
		"a header too long":       {"GET /v1/status HTTP/1.1\r\nHost: leaf1\r\nX: " + strings.Repeat("x", 8*maxHeader) + "\r\n\r\n", "431"},
		"no HTTP":                 {"\x00\xff\r\n\r\n", "400"},
	} {
		conn, err := tls.Dial("tcp", at, config)
		must(t, err)
		must(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
		_, err = io.WriteString(conn, test.request)
		must(t, err)
		answer, err := bufio.NewReader(conn).ReadString('\n')
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s is not cut off", name)
		}
		if (test.want == "") != (answer == "") || !strings.Contains(answer, test.want) {
			t.Errorf("%s is answered by %q, want %q", name, answer, test.want)
		}
		_ = conn.Close()
	}
	if _, err := as(t, dir, "leaf2").Status(t.Context()); err != nil {
		t.Error(err)
	}
}

// What is changed is logged with who did, and what they may not too.
func TestChangesAreLogged(t *testing.T) {
	dir := certify(t)
	var log strings.Builder
	n := NewNetwork(&agent{drain: func(string, bool) error { return nil }}, slog.New(slog.NewTextHandler(&log, nil)))
	n.Set(Reach{Addresses: []netip.Addr{leaf1At}, Files: pki.FilesIn(dir, "leaf1")})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	eventually(t, "leaf1 does not answer", func() bool {
		return as(t, dir, "alice").Drain(t.Context(), "leaf1", true) == nil
	})
	if err := as(t, dir, "leaf2").Drain(t.Context(), "leaf1", true); err == nil {
		t.Error("leaf2 may drain leaf1")
	}
	cancel()
	must(t, <-ended)
	for _, want := range []string{`msg="request carried out" request=drain by=alice`, fmt.Sprintf(`msg="request refused" request=%s by=leaf2`, drainPath)} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log has no %s:\n%s", want, log.String())
		}
	}
}
