package guest

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/websocket"
)

// member is a hypervisor on a socket that tells of instances by their names. Those
// that begin with an x it knows nothing of. Its events end when it does.
func member(end <-chan struct{}, names ...string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /1.0", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"type":"sync","metadata":{"environment":{"server":"lxd","server_version":"5.0.2","server_name":"leaf1","server_clustered":true}}}`)
	})
	mux.HandleFunc("GET /1.0/instances", func(w http.ResponseWriter, _ *http.Request) {
		var list []string
		for _, name := range names {
			config := "{}"
			if strings.HasPrefix(name, "x") {
				name, config = name[1:], "null"
			}
			list = append(list, fmt.Sprintf(`{"name":%q,"location":"leaf1","expanded_config":%s,"expanded_devices":%s}`, name, config, config))
		}
		_, _ = fmt.Fprintf(w, `{"type":"sync","metadata":[%s]}`, strings.Join(list, ","))
	})
	mux.Handle("GET /1.0/events", websocket.Handler(func(*websocket.Conn) { <-end }))
	return mux
}

// TestWatcherLivesThroughAll has one socket go through what a hypervisor and its
// machine do to it.
func TestWatcherLivesThroughAll(t *testing.T) {
	defer goleak.VerifyNone(t)
	socket := filepath.Join(t.TempDir(), "s")
	listen := func(serve func(net.Listener)) (stop func()) {
		l, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		var work sync.WaitGroup
		work.Go(func() { serve(l) })
		return func() { _ = l.Close(); work.Wait() }
	}
	hypervisor := func(names ...string) func() {
		end := make(chan struct{})
		server := &http.Server{Handler: member(end, names...), ReadHeaderTimeout: time.Minute}
		stop := listen(func(l net.Listener) { _ = server.Serve(l) })
		return func() { close(end); _ = server.Close(); stop() }
	}
	says := func(text string) func() {
		return listen(func(l net.Listener) {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = conn.Read(make([]byte, 4096)) // else it may be reset before it is read
				_, _ = io.WriteString(conn, text)
				_ = conn.Close()
			}
		})
	}
	w := New(slog.New(slog.DiscardHandler))
	var run sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	run.Go(func() { _ = w.Run(ctx) })
	defer run.Wait()
	defer cancel()
	var s State
	want := func(when string, c Contact, trouble string, names ...string) {
		t.Helper()
		limit := time.After(20 * time.Second)
		for {
			var got []string
			for _, i := range s.Instances {
				got = append(got, i.Name)
			}
			if s.Contact == c && strings.Contains(s.Trouble, trouble) && slices.Equal(got, names) {
				return
			}
			select {
			case s = <-w.Events():
			case <-limit:
				t.Fatalf("%s: %+v", when, s)
			}
		}
	}
	w.Set(Desired{Sockets: []string{socket}})
	want("no socket", Absent, "")
	stop := hypervisor("a", "b")
	want("it starts", Connected, "", "a", "b")
	stop()
	want("it ends, and leaves its socket", Away, "connection refused", "a", "b")
	remove := func() {
		if err := os.Remove(socket); err != nil {
			t.Fatal(err)
		}
	}
	remove()
	want("the socket is gone", Absent, "", "a", "b")
	stop = hypervisor("xa", "b", "c")
	want("it starts, and does not know one yet", Connected, "", "a", "b", "c")
	stop()
	remove()
	stop = says(strings.Repeat("\x00\xff", 100))
	want("garbage", Away, "none of LXD's API", "a", "b", "c")
	stop()
	remove()
	stop = says("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
	want("another server", Away, "none of LXD's API", "a", "b", "c")
	stop()
	remove()
	stop = hypervisor("c")
	want("it is back", Connected, "", "c")
	stop()
}
