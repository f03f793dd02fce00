package quorum

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// issue writes a certificate that nobody has signed, as LXD's are, and its key.
func issue(t testing.TB, dir, name string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(t, err)
	private, err := x509.MarshalECPrivateKey(key)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, name+".crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, name+".key"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private}), 0o600))
}

// identities is the directory of a member of a cluster.
func identities(t testing.TB) Identity {
	t.Helper()
	dir := t.TempDir()
	issue(t, dir, "server")
	issue(t, dir, "cluster")
	return Identity{dir}
}

// endpoint is a member's port, on which something like dqlite is spoken.
type endpoint struct {
	address string

	mu     sync.Mutex
	leader string
	shown  []byte // the certificate that was shown last
	talk   func(net.Conn, *bufio.Reader)
}

// serve is an endpoint with a cluster's certificate. Without talk, it speaks
// dqlite's protocol.
func serve(t testing.TB, i Identity, talk func(net.Conn, *bufio.Reader)) *endpoint {
	t.Helper()
	certificate, err := tls.LoadX509KeyPair(filepath.Join(i.Dir, "cluster.crt"), filepath.Join(i.Dir, "cluster.key"))
	must(t, err)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{certificate}, ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13,
	})
	must(t, err)
	e := &endpoint{address: listener.Addr().String(), talk: talk}
	if talk == nil {
		e.talk = e.dqlite
	}
	var work sync.WaitGroup
	work.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			work.Go(func() {
				defer func() { _ = conn.Close() }()
				_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
				if conn.(*tls.Conn).Handshake() != nil {
					return
				}
				e.mu.Lock()
				e.shown = conn.(*tls.Conn).ConnectionState().PeerCertificates[0].Raw
				e.mu.Unlock()
				e.talk(conn, bufio.NewReader(conn))
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		work.Wait()
	})
	return e
}

// switched takes the question for dqlite.
func switched(conn net.Conn, r *bufio.Reader) bool {
	request, err := http.ReadRequest(r)
	if err != nil || request.Method != http.MethodPost || request.URL.Path != "/internal/database" ||
		request.Header.Get("Upgrade") != "dqlite" || request.Header.Get("X-Dqlite-Version") != "1" {
		_, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
		return false
	}
	_, err = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: dqlite\r\n\r\n")
	return err == nil
}

// dqlite answers LEADER and CLUSTER (canonical.com/dqlite/docs/reference/wire-protocol).
func (e *endpoint) dqlite(conn net.Conn, r *bufio.Reader) {
	if !switched(conn, r) {
		return
	}
	version := make([]byte, 8)
	if _, err := io.ReadFull(r, version); err != nil || version[0] != 1 {
		return
	}
	for {
		header := make([]byte, 8)
		if _, err := io.ReadFull(r, header); err != nil {
			return
		}
		if _, err := io.CopyN(io.Discard, r, 8*int64(binary.LittleEndian.Uint32(header))); err != nil {
			return
		}
		e.mu.Lock()
		leader := e.leader
		e.mu.Unlock()
		var err error
		switch header[4] {
		case 0: // LEADER
			_, err = conn.Write(message(1, number(1), text(leader)))
		case 16: // CLUSTER
			_, err = conn.Write(message(3, number(2), number(7), text(e.address), number(0), number(8), text("10.0.200.2:8443"), number(2)))
		case 3: // OPEN
			_, err = conn.Write(message(4, number(1<<32)))
		case 9: // QUERY
			_, err = conn.Write(message(7, number(4), text("name"), text("address"), text("heartbeat"), text("mark"),
				number(0x3133), text("lx1"), text(e.address), number(1000), text(""),
				number(0x3133), text("lx2"), text("10.0.200.2:8443"), number(980), text("drained"), number(0xffffffffffffffff)))
		default:
			_, err = conn.Write(message(0, number(1), text("what is that?")))
		}
		if err != nil {
			return
		}
	}
}

func (e *endpoint) lead(leader string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.leader = leader
}

func message(kind byte, words ...[]byte) []byte {
	var body []byte
	for _, w := range words {
		body = append(body, w...)
	}
	header := binary.LittleEndian.AppendUint32(nil, uint32(len(body)/8))
	return append(append(header, kind, 0, 0, 0), body...)
}

func text(s string) []byte {
	b := append([]byte(s), 0)
	for len(b)%8 != 0 {
		b = append(b, 0)
	}
	return b
}
