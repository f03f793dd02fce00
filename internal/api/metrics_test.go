package api

import (
	"context"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"frond/internal/pki"
	"frond/internal/status"
)

// scrape asks as Prometheus does, on what the client talks to.
func scrape(t *testing.T, c *Client) (code int, body string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.url+metricsPath, http.NoBody)
	must(t, err)
	answer, err := c.http.Do(request)
	must(t, err)
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	must(t, err)
	return answer.StatusCode, string(text)
}

// TestMetrics scrapes over the socket and, with a node's certificate, over the
// network.
func TestMetrics(t *testing.T) {
	a := &agent{snapshot: status.Snapshot{Node: "leaf1", Ready: true, Peers: []status.Peer{{Port: "eth0", State: "established"}}}}
	socket, _ := serve(t, a)
	dir := certify(t)
	network(t, a, Reach{Addresses: []netip.Addr{leaf1At}, Files: pki.FilesIn(dir, "leaf1")})
	remote := as(t, dir, "leaf2")
	eventually(t, "the network's listener", func() bool {
		_, err := remote.Status(context.Background())
		return err == nil
	})
	for name, client := range map[string]*Client{"socket": NewClient(socket), "network": remote} {
		code, body := scrape(t, client)
		if code != http.StatusOK {
			t.Errorf("%s: %d: %s", name, code, body)
		}
		for _, want := range []string{
			"\nfrond_ready 1\n", "\n# TYPE frond_bgp_sessions gauge\n", "\nfrond_bgp_sessions{state=\"established\"} 1\n",
			"\nfrond_bgp_session_flaps_total{port=\"eth0\"} 0\n", "\nprocess_open_fds ", "\ngo_goroutines ",
		} {
			if !strings.Contains(body, want) {
				t.Errorf("%s: no %q in\n%s", name, want, body)
			}
		}
	}
}
