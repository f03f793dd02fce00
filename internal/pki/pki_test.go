package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var (
	now   = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	leaf1 = Node{"leaf1", []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("fd00::1")}}
)

// made is a directory with a CA and leaf1's certificate.
func made(t *testing.T, at time.Time) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "pki")
	if _, err := Init(dir, "apollo", at); err != nil {
		t.Fatal(err)
	}
	if _, err := Issue(dir, leaf1, at); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestFilesArePrivate(t *testing.T) {
	dir := made(t, now)
	for name, want := range map[string]os.FileMode{".": 0o700, "ca.key": 0o600, "leaf1.key": 0o600, "ca.crt": 0o600, "leaf1.crt": 0o600} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %04o, want %04o", name, got, want)
		}
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 4 {
		t.Errorf("there are %v", entries)
	}
}

func TestCertificateOfNode(t *testing.T) {
	dir := made(t, now)
	c, err := readCertificate(FilesIn(dir, "leaf1").Cert)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"leaf1", "127.0.0.1", "fd00::1"} {
		if err := c.VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}
	if c.VerifyHostname("leaf2") == nil || c.IsCA || len(c.ExtKeyUsage) != 2 {
		t.Errorf("it is good for too much or too little: %+v", c)
	}
}

func TestCertificateOfOperator(t *testing.T) {
	dir := made(t, now)
	node, err := readCertificate(FilesIn(dir, "leaf1").Cert)
	if err != nil {
		t.Fatal(err)
	}
	c, err := IssueOperator(dir, "alice", now)
	if err != nil {
		t.Fatal(err)
	}
	if !IsOperator(c) || IsOperator(node) {
		t.Errorf("an operator: %v %t, a node: %v %t", c.URIs, IsOperator(c), node.URIs, IsOperator(node))
	}
	if c.VerifyHostname("alice") == nil || len(c.ExtKeyUsage) != 1 || c.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth {
		t.Errorf("it is good for being a node: %+v", c)
	}
	if err := FilesIn(dir, "alice").Check(now); err != nil {
		t.Error(err)
	}
}

func TestAbsent(t *testing.T) {
	dir := made(t, now)
	if FilesIn(dir, "leaf1").Absent() || FilesIn(dir, "leaf2").Absent() || !FilesIn(t.TempDir(), "leaf1").Absent() {
		t.Error("files count as absent only if none is there")
	}
	if err := os.Remove(filepath.Join(dir, "ca.crt")); err != nil {
		t.Fatal(err)
	}
	if FilesIn(dir, "leaf1").Absent() {
		t.Error("a node's own files are there")
	}
}

func TestWhatIsRefused(t *testing.T) {
	other := made(t, now)
	copyFile := func(t *testing.T, from, to string) {
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]struct {
		spoil func(t *testing.T, dir string) error
		want  string
	}{
		"whole": {func(_ *testing.T, dir string) error { return FilesIn(dir, "leaf1").Check(now) }, ""},
		"CA twice": {func(_ *testing.T, dir string) error { _, err := Init(dir, "apollo", now); return err },
			"ca.crt is there already"},
		"no CA": {func(t *testing.T, _ string) error { _, err := Issue(t.TempDir(), leaf1, now); return err },
			`"frond pki init" makes it`},
		"no key of the CA": {func(_ *testing.T, dir string) error {
			_ = os.Remove(filepath.Join(dir, "ca.key"))
			_, err := Issue(dir, leaf1, now)
			return err
		}, "issue certificates on the machine that has the CA's key"},
		"another CA's key": {func(t *testing.T, dir string) error {
			copyFile(t, filepath.Join(other, "ca.key"), filepath.Join(dir, "ca.key"))
			_, err := Issue(dir, leaf1, now)
			return err
		}, "is not the key of"},
		"CA expired": {func(_ *testing.T, dir string) error {
			_, err := Issue(dir, leaf1, now.Add(ValidityOfCA+time.Hour))
			return err
		}, "ca.crt expired 2046-"},
		"a node named ca": {func(_ *testing.T, dir string) error { _, err := Issue(dir, Node{Name: "ca"}, now); return err },
			"would be the CA's"},
		"an operator named ca": {func(_ *testing.T, dir string) error { _, err := IssueOperator(dir, "ca", now); return err },
			"would be the CA's"},
		"an operator elsewhere": {func(_ *testing.T, dir string) error { _, err := IssueOperator(dir, "../alice", now); return err },
			"letters, digits, dots"},
		"an operator's expired": {func(_ *testing.T, dir string) error {
			if _, err := IssueOperator(dir, "alice", now); err != nil {
				return err
			}
			return FilesIn(dir, "alice").Check(now.Add(ValidityOfOperator + time.Hour))
		}, "alice.crt expired 2027-"},
		"missing": {func(_ *testing.T, dir string) error { return FilesIn(dir, "leaf2").Check(now) }, "leaf2.crt is missing"},
		"expired": {func(_ *testing.T, dir string) error {
			return FilesIn(dir, "leaf1").Check(now.Add(ValidityOfNode + time.Hour))
		}, "leaf1.crt expired 2028-"},
		"not yet valid": {func(_ *testing.T, dir string) error {
			return FilesIn(dir, "leaf1").Check(now.Add(-25 * time.Hour))
		}, "is the clock right?"},
		"another CA": {func(t *testing.T, dir string) error {
			copyFile(t, filepath.Join(other, "ca.crt"), filepath.Join(dir, "ca.crt"))
			return FilesIn(dir, "leaf1").Check(now)
		}, "is not signed by"},
		"another key": {func(t *testing.T, dir string) error {
			copyFile(t, filepath.Join(other, "leaf1.key"), filepath.Join(dir, "leaf1.key"))
			return FilesIn(dir, "leaf1").Check(now)
		}, "do not belong together"},
		"readable key": {func(t *testing.T, dir string) error {
			if err := os.Chmod(filepath.Join(dir, "leaf1.key"), 0o644); err != nil {
				t.Fatal(err)
			}
			return FilesIn(dir, "leaf1").Check(now)
		}, "set it to 0600"},
		"no certificate": {func(t *testing.T, dir string) error {
			copyFile(t, filepath.Join(dir, "leaf1.key"), filepath.Join(dir, "leaf1.crt"))
			return FilesIn(dir, "leaf1").Check(now)
		}, "leaf1.crt is no PEM file of a certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			err := test.spoil(t, made(t, now))
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v\nwant %q", err, test.want)
			}
		})
	}
}

// shake connects a client of one directory to a server of another.
func shake(t *testing.T, server, client *tls.Config) error {
	t.Helper()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", server)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		_, _ = conn.Write([]byte("hello"))
		_ = conn.Close()
	}()
	defer func() { _ = listener.Close(); <-served }()
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", listener.Addr().String(), client)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	text, err := io.ReadAll(conn)
	if err == nil && string(text) != "hello" {
		err = errors.New("heard " + string(text))
	}
	return err
}

func TestHandshake(t *testing.T) {
	at := time.Now()
	ours, theirs := made(t, at), made(t, at)
	server, err := FilesIn(ours, "leaf1").Server(at)
	if err != nil {
		t.Fatal(err)
	}
	for dir, fits := range map[string]bool{ours: true, theirs: false} {
		client, err := FilesIn(dir, "leaf1").Client(at)
		if err != nil {
			t.Fatal(err)
		}
		if err := shake(t, server, client); (err == nil) != fits {
			t.Errorf("same CA %t: %v", fits, err)
		}
		client.RootCAs = server.ClientCAs // believes the server; the server does not believe it
		if err := shake(t, server, client); (err == nil) != fits {
			t.Errorf("certificate of the same CA %t: %v", fits, err)
		}
	}
	if err := shake(t, server, &tls.Config{RootCAs: server.ClientCAs}); err == nil {
		t.Error("a client without a certificate is let in")
	}
}

func TestList(t *testing.T) {
	dir := made(t, now)
	if _, err := Issue(dir, Node{Name: "a"}, now); err != nil {
		t.Fatal(err)
	}
	list, err := List(dir, now.Add(ValidityOfNode+time.Hour))
	if err != nil || len(list) != 3 {
		t.Fatalf("%v, %v", list, err)
	}
	for i, want := range []string{"ca.crt", "a.crt", "leaf1.crt"} {
		if filepath.Base(list[i].File) != want || (list[i].Err == nil) != (i == 0) {
			t.Errorf("%d: %s: %v, want %s", i, list[i].File, list[i].Err, want)
		}
	}
}
