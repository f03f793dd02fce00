package store

import (
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// wantListeners wants a member to listen on its loopback and nowhere else.
func wantListeners(t *testing.T, m *machine) {
	t.Helper()
	out, err := exec.Command("ip", "netns", "exec", m.netns, "ss", "-Hltn").Output()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(string(out)) {
		got = append(got, strings.Fields(line)[3])
	}
	slices.Sort(got)
	want := []string{fmt.Sprintf("%s:%d", m.Address, ClientPort), fmt.Sprintf("%s:%d", m.Address, PeerPort)}
	if !slices.Equal(got, want) {
		t.Errorf("it listens on %v, want %v", got, want)
	}
}

// wantOnlyTLS wants a member not to answer what is no TLS.
func wantOnlyTLS(t *testing.T, m *machine) {
	t.Helper()
	for _, port := range []int{ClientPort, PeerPort} {
		conn, err := net.DialTimeout("tcp", fmt.Sprintf("%s:%d", m.Address, port), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		_, _ = conn.Write([]byte("GET /version HTTP/1.1\r\nHost: x\r\n\r\n"))
		answer := make([]byte, 64)
		n, _ := conn.Read(answer)
		if strings.Contains(string(answer[:n]), "200") {
			t.Errorf("port %d answers without TLS: %q", port, answer[:n])
		}
		_ = conn.Close()
	}
}
