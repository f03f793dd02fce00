package guest

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/websocket"
)

// serve answers on a socket until the test ends.
func serve(t *testing.T, handler http.Handler) *Client {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	c := NewClient(socket)
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return c
}

// replay has the answers that were recorded.
func replay(t *testing.T) http.Handler {
	t.Helper()
	mux := http.NewServeMux()
	answer := func(pattern, file string) {
		body, err := os.ReadFile("testdata/" + file)
		if err != nil {
			t.Fatal(err)
		}
		list := strings.HasSuffix(pattern, "/instances")
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			answer := body
			if r.URL.Query().Has("recursion") {
				answer, _ = os.ReadFile("testdata/instances.json")
			}
			if own := r.UserAgent() == "lxd-cluster-notifier"; list != own {
				t.Errorf("%s is asked for with User-Agent %s", r.URL, r.UserAgent())
			}
			_, _ = w.Write(answer)
		})
	}
	answer("GET /1.0", "server.json")
	answer("GET /1.0/instances", "keys.json")
	answer("GET /1.0/instances/c2", "instance.json")
	answer("GET /1.0/instances/{name}", "gone.json")
	events, err := os.ReadFile("testdata/events.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	mux.Handle("GET /1.0/events", websocket.Handler(func(ws *websocket.Conn) {
		for line := range strings.Lines(string(events)) {
			_ = websocket.Message.Send(ws, line)
		}
	}))
	return mux
}

func TestClient(t *testing.T) {
	defer goleak.VerifyNone(t)
	t.Run("recorded", func(t *testing.T) {
		c := serve(t, replay(t))
		server, err := c.Server(t.Context())
		if err != nil || server.Member != "lx1" || c.agent != "lxd-cluster-notifier" {
			t.Error(server, c.agent, err)
		}
		if list, err := c.Keys(t.Context()); err != nil || len(list) != 4 {
			t.Error(list, err)
		}
		if known, _, err := c.Instances(t.Context()); err != nil || len(known) != 4 {
			t.Error(known, err)
		}
		if i, err := c.Instance(t.Context(), Key{"default", "c2"}); err != nil || i.Name != "c2" {
			t.Error(i, err)
		}
		if _, err := c.Instance(t.Context(), Key{"default", "nope"}); !errors.Is(err, ErrGone) {
			t.Error(err)
		}
		heard, ready := 0, false
		err = c.Events(t.Context(), func() { ready = true }, func(Event) { heard++ })
		if !errors.Is(err, io.EOF) || !ready || heard != 4 {
			t.Errorf("heard %d events, ready %t, then %v", heard, ready, err)
		}
	})
}

// TestClientBad has sockets that nobody, or the wrong one, answers on.
func TestClientBad(t *testing.T) {
	defer goleak.VerifyNone(t)
	raw := func(t *testing.T, answer string) *Client {
		socket := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = conn.Read(make([]byte, 4096))
				_, _ = conn.Write([]byte(answer))
				_ = conn.Close()
			}
		}()
		c := NewClient(socket)
		t.Cleanup(func() { _ = l.Close(); <-done })
		return c
	}
	for name, begin := range map[string]func(t *testing.T) *Client{
		"nobody": func(t *testing.T) *Client { return NewClient(filepath.Join(t.TempDir(), "s")) },
		"silence": func(t *testing.T) *Client {
			return serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
		},
		"garbage": func(t *testing.T) *Client { return raw(t, strings.Repeat("\x00\xff", 4096)) },
		"end":     func(t *testing.T) *Client { return raw(t, "") },
		"other":   func(t *testing.T) *Client { return serve(t, http.NotFoundHandler()) },
		"half": func(t *testing.T) *Client {
			return raw(t, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"type\": \"sync\"")
		},
		"other JSON": func(t *testing.T) *Client {
			return raw(t, "HTTP/1.1 200 OK\r\nContent-Length: 36\r\n\r\n{\"type\": \"sync\", \"metadata\": [1,2]}\n ")
		},
		"endless": func(t *testing.T) *Client {
			return serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				zeros := strings.Repeat("0", 1<<20)
				for range largestAnswer>>20 + 1 {
					_, _ = io.WriteString(w, zeros)
				}
			}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "endless" {
				if _, err := begin(t).Server(t.Context()); err == nil || !strings.Contains(err.Error(), "longer than") {
					t.Errorf("an endless answer: %v", err)
				}
				return
			}
			c := begin(t)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if s, err := c.Server(ctx); err == nil {
				t.Errorf("takes %+v for a hypervisor", s)
			}
			if known, unknown, err := c.Instances(ctx); err == nil {
				t.Errorf("takes %v, %v for instances", known, unknown)
			}
			if err := c.Events(ctx, func() { t.Error("is ready") }, func(e Event) { t.Error("tells", e) }); err == nil {
				t.Error("events end without an error")
			}
		})
	}
}
