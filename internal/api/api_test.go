package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"frond/internal/status"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// agent is a Backend with fixed answers.
type agent struct {
	snapshot status.Snapshot
	routes   []status.Route
	reload   func(context.Context) error
	down     func(context.Context) error
	thaw     func(station, segment string) error
	drain    func(node string, drained bool) error

	nodes      []status.Host
	forwarding func(status.Destination) (status.Forwarding, error)
}

func (a *agent) Status() status.Snapshot          { return a.snapshot }
func (a *agent) Reload(ctx context.Context) error { return a.reload(ctx) }
func (a *agent) Down(ctx context.Context) error   { return a.down(ctx) }

func (a *agent) Thaw(_ context.Context, station, segment string) error {
	return a.thaw(station, segment)
}

func (a *agent) Leases(_ context.Context, segment string) []status.Lease {
	if segment == "" {
		return nil
	}
	return []status.Lease{{Segment: segment, Address: "172.16.0.11"}}
}

func (a *agent) Release(_ context.Context, address netip.Addr) error {
	return errors.New(address.String())
}

func (a *agent) Drain(_ context.Context, node string, drained bool) error {
	return a.drain(node, drained)
}

func (a *agent) Vitals() status.Vitals { return status.Vitals{Status: a.snapshot} }

func (a *agent) Gateways() []status.Gateway { return nil }
func (a *agent) Hypervisor() status.Hypervisor {
	return status.Hypervisor{Contact: "absent", Instances: []status.Instance{}}
}

func (a *agent) Routes(prefix netip.Prefix) []status.Route {
	var inside []status.Route
	for _, r := range a.routes {
		p := netip.MustParsePrefix(r.Prefix)
		if prefix == all || prefix.Bits() <= p.Bits() && prefix.Contains(p.Addr()) {
			inside = append(inside, r)
		}
	}
	return inside
}

var quiet = slog.New(slog.DiscardHandler)

// serve runs the API until the test ends and returns its socket and the
// function that ends it early.
func serve(t *testing.T, b Backend) (socket string, stop func() error) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "run", "frond.sock")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, socket, b, quiet) }()
	var result error
	stopped := false
	stop = func() error {
		if !stopped {
			cancel()
			result, stopped = <-ended, true
		}
		return result
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	client := NewClient(socket)
	for {
		_, err := client.Status(t.Context())
		if err == nil {
			return socket, stop
		}
		if !errors.Is(err, ErrNoAgent) {
			t.Fatal(err)
		}
		select {
		case err := <-ended:
			t.Fatalf("Serve ended: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
}

func TestQuestions(t *testing.T) {
	since := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	a := &agent{
		snapshot: status.Snapshot{
			Fabric: "apollo", Node: "leaf1", Started: since, Ready: true, ASN: 4200051201,
			Peers: []status.Peer{{Port: "eth0", Name: "spine1", State: "established", Since: since,
				Received: map[string]int{"ipv4": 2}, Sent: map[string]int{"ipv4": 1}}},
			Conditions: []status.Condition{{Name: "port-no-carrier", Subject: "eth1", Severity: status.Warning, Since: since}},
		},
		routes: []status.Route{
			{Prefix: "10.0.200.1/32", Local: true, ASPath: []uint32{}, NextHops: []status.NextHop{}, Installed: true},
			{Prefix: "10.0.200.2/32", ASPath: []uint32{4200065025, 4200051202}, NextHops: []status.NextHop{{Port: "eth0", Address: "fe80::1"}}},
			{Prefix: "fd00::2/128", ASPath: []uint32{4200051202}, NextHops: []status.NextHop{{Port: "eth0", Address: "fe80::1"}}},
		},
	}
	socket, _ := serve(t, a)
	client := NewClient(socket)

	snapshot, err := client.Status(t.Context())
	if diff := cmp.Diff(a.snapshot, snapshot); err != nil || diff != "" {
		t.Errorf("Status: %v\n%s", err, diff)
	}
	peers, err := client.Peers(t.Context())
	if diff := cmp.Diff(a.snapshot.Peers, peers); err != nil || diff != "" {
		t.Errorf("Peers: %v\n%s", err, diff)
	}
	for _, test := range []struct {
		prefix string
		want   []status.Route
	}{
		{"", a.routes},
		{"10.0.0.0/16", a.routes[:2]},
		{"10.0.200.2", a.routes[1:2]},
		{"::/0", a.routes[2:]},
		{"192.0.2.0/24", []status.Route{}},
	} {
		var prefix netip.Prefix
		if test.prefix != "" {
			prefix, err = ParsePrefix(test.prefix)
			if err != nil {
				t.Fatal(err)
			}
		}
		routes, err := client.Routes(t.Context(), prefix)
		if diff := cmp.Diff(test.want, routes); err != nil || diff != "" {
			t.Errorf("Routes(%s): %v\n%s", test.prefix, err, diff)
		}
	}
}

func TestParsePrefix(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"10.0.200.1", "10.0.200.1/32"},
		{"10.0.200.1/16", "10.0.0.0/16"},
		{"fd00::1", "fd00::1/128"},
		{"fe80::1%eth0", "fe80::1/128"},
		{"0.0.0.0/0", "0.0.0.0/0"},
		{"", ""}, {"leaf1", ""}, {"10.0.0.0/33", ""}, {"10.0.0/8", ""},
	} {
		got, err := ParsePrefix(test.text)
		if (err != nil) != (test.want == "") || err == nil && got.String() != test.want {
			t.Errorf("ParsePrefix(%q) = %v, %v; want %q", test.text, got, err, test.want)
		}
	}
}

func TestRaw(t *testing.T) {
	refused := errors.New("fabric.yaml:3:5: nodes: none")
	h := Handler(&agent{
		reload: func(context.Context) error { return refused },
		down:   func(context.Context) error { return nil },
		thaw:   func(station, segment string) error { return fmt.Errorf("%s on %s", station, segment) },
		drain:  func(node string, drained bool) error { return fmt.Errorf("%s %t", node, drained) },
	}, quiet)
	for _, test := range []struct {
		method, target string
		code           int
		body           string
	}{
		{"GET", "/v1/peers", 200, `{"peers":[]}`},
		{"GET", "/v1/routes", 200, `{"routes":[]}`},
		{"GET", "/v1/routes?prefix=ten", 400, `{"error":"prefix \"ten\" is none: write it as 10.0.0.0/16 or 10.0.200.1"}`},
		{"POST", "/v1/reload", 422, `{"error":"fabric.yaml:3:5: nodes: none"}`},
		{"POST", "/v1/down", 204, ""},
		{"POST", "/v1/macs/thaw?station=172.16.0.11&segment=blue", 422, `{"error":"172.16.0.11 on blue"}`},
		{"GET", "/v1/macs/thaw", 404, `{"error":"this agent does not know GET /v1/macs/thaw"}`},
		{"GET", "/v1/leases", 200, `{"leases":[]}`},
		{"GET", "/v1/leases?segment=blue", 200, `{"leases":[{"segment":"blue","address":"172.16.0.11","mac":"","state":"","node":"","keptSeconds":0}]}`},
		{"POST", "/v1/leases/release?address=172.16.0.11", 422, `{"error":"172.16.0.11"}`},
		{"POST", "/v1/leases/release?address=x", 400, `{"error":"address \"x\" is none: write it as 172.16.0.11"}`},
		{"GET", "/v1/gateways", 200, `{"gateways":[]}`},
		{"GET", "/v1/hypervisor", 200, `{"contact":"absent","instances":[]}`},
		{"POST", "/v1/gateways/drain?node=leaf1", 422, `{"error":"leaf1 true"}`},
		{"POST", "/v1/gateways/undrain?node=leaf1", 422, `{"error":"leaf1 false"}`},
		{"POST", "/v1/status", 404, `{"error":"this agent does not know POST /v1/status"}`},
		{"GET", "/v2/status", 404, `{"error":"this agent does not know GET /v2/status"}`},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(test.method, test.target, nil))
		if got := strings.TrimSpace(w.Body.String()); w.Code != test.code || got != test.body {
			t.Errorf("%s %s: %d %s; want %d %s", test.method, test.target, w.Code, got, test.code, test.body)
		}
	}
}

// A status is never null where a list is promised.
func TestStatusOfNothing(t *testing.T) {
	w := httptest.NewRecorder()
	Handler(&agent{}, quiet).ServeHTTP(w, httptest.NewRequest("GET", "/v1/status", nil))
	if body := w.Body.String(); !strings.Contains(body, `"peers":[]`) || !strings.Contains(body, `"conditions":[]`) {
		t.Error(body)
	}
}

func TestChanges(t *testing.T) {
	refused := errors.New("fabric.yaml:3:5: nodes: none")
	var thawed, drained string
	socket, _ := serve(t, &agent{
		reload: func(context.Context) error { return refused },
		down:   func(context.Context) error { return nil },
		thaw: func(station, segment string) error {
			thawed = station + " on " + segment
			return nil
		},
		drain: func(node string, on bool) error {
			drained = fmt.Sprint(node, " ", on)
			return nil
		},
	})
	client := NewClient(socket)
	if err := client.Reload(t.Context()); err == nil || err.Error() != refused.Error() {
		t.Errorf("Reload = %v, want %v", err, refused)
	}
	if err := client.Down(t.Context()); err != nil {
		t.Errorf("Down = %v", err)
	}
	if err := client.Thaw(t.Context(), "02:00:00:00:00:01", "blue"); err != nil || thawed != "02:00:00:00:00:01 on blue" {
		t.Errorf("Thaw = %v, thawed %s", err, thawed)
	}
	for _, on := range []bool{true, false} {
		if err := client.Drain(t.Context(), "leaf1", on); err != nil || drained != fmt.Sprint("leaf1 ", on) {
			t.Errorf("Drain = %v, drained %s", err, drained)
		}
	}
}

// What was asked for is done although the asker has gone, and its answer
// leaves although the server ends.
func TestAnswerOutlivesAskerAndServer(t *testing.T) {
	began, done := make(chan context.Context), make(chan struct{})
	socket, stop := serve(t, &agent{down: func(ctx context.Context) error {
		began <- ctx
		<-done
		return ctx.Err()
	}})
	answers := make(chan error, 2)
	ask := func(ctx context.Context) { answers <- NewClient(socket).Down(ctx) }

	impatient, leave := context.WithCancel(t.Context())
	go ask(impatient)
	first := <-began
	leave()
	if err := <-answers; !errors.Is(err, context.Canceled) {
		t.Errorf("impatient Down = %v", err)
	}
	go ask(t.Context())
	<-began
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	for _, err := os.Lstat(socket); err == nil; _, err = os.Lstat(socket) {
		time.Sleep(time.Millisecond)
	}
	if first.Err() != nil {
		t.Errorf("the asker's leaving ended the work: %v", first.Err())
	}
	close(done)
	if err := <-answers; err != nil {
		t.Errorf("Down while the server ends = %v", err)
	}
	if err := <-stopped; err != nil {
		t.Errorf("Serve = %v", err)
	}
}

func TestSocket(t *testing.T) {
	socket, stop := serve(t, &agent{})
	info, err := os.Stat(socket)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o660 {
		t.Errorf("mode of socket is %v", info.Mode())
	}
	if err := Serve(t.Context(), socket, &agent{}, quiet); !errors.Is(err, ErrInUse) {
		t.Errorf("second Serve = %v, want ErrInUse", err)
	}
	if _, err := NewClient(socket).Status(t.Context()); err != nil {
		t.Errorf("after the second Serve: %v", err)
	}
	if err := stop(); err != nil {
		t.Errorf("Serve = %v", err)
	}
	left, err := os.ReadDir(filepath.Dir(socket))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// The group may use the socket and nobody else but its owner: daemon is one
// that all systems have.
func TestSocketsGroup(t *testing.T) {
	path := filepath.Join(t.TempDir(), "frond.sock")
	l, err := listenAs(path, "daemon")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	want, ok := groupID("daemon")
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil || !ok || int(st.Gid) != want || st.Uid != 0 || st.Mode&0o777 != 0o660 {
		t.Errorf("the socket is of %d:%d with mode %o, %v; want 0:%d with 660", st.Uid, st.Gid, st.Mode&0o777, err, want)
	}
}

func TestDeadSocketIsReplaced(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "frond.sock")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

// A closing agent leaves the socket alone that its successor has put there.
func TestSuccessorsSocketStays(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "frond.sock")
	first, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(socket); err != nil {
		t.Fatal(err)
	}
	second, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(socket); err != nil {
		t.Error(err)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
}

func TestPathsThatCannotBe(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		file:                                   "is no socket",
		filepath.Join(file, "frond.sock"):      "make room for socket",
		"/tmp/" + strings.Repeat("long", 30):   "too long",
		filepath.Join(dir, "sub", "frond.soc"): "",
	} {
		l, err := Listen(path)
		if want == "" && err == nil {
			err = l.Close()
		}
		if (err != nil) != (want != "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("Listen(%s) = %v, want %q", path, err, want)
		}
	}
	if content, err := os.ReadFile(file); err != nil || string(content) != "precious" {
		t.Errorf("the file that was in the way: %q, %v", content, err)
	}
}

func TestClientErrors(t *testing.T) {
	dir := t.TempDir()
	babble := filepath.Join(dir, "babble.sock")
	l, err := net.Listen("unix", babble)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			w.WriteHeader(http.StatusTeapot)
		}
		_, _ = io.WriteString(w, "<html>")
	}))
	server.Listener = l
	server.Start()
	defer server.Close()

	missing := filepath.Join(dir, "frond.sock")
	_, err = NewClient(missing).Status(t.Context())
	if want := "no agent answers on " + missing + ": is it running? (systemctl status frond)"; err == nil || err.Error() != want || !errors.Is(err, ErrNoAgent) {
		t.Errorf("Status without agent = %v, want %s", err, want)
	}
	if _, err = NewClient(babble).Status(t.Context()); err == nil || !strings.Contains(err.Error(), "another version") {
		t.Errorf("Status of a babbler = %v", err)
	}
	if err = NewClient(babble).Reload(t.Context()); err == nil || err.Error() != "the agent answered 418 I'm a teapot" {
		t.Errorf("Reload of a babbler = %v", err)
	}
	ctx, cancel := context.WithDeadline(t.Context(), time.Unix(0, 0))
	defer cancel()
	if _, err = NewClient(babble).Status(ctx); err == nil || !strings.Contains(err.Error(), "does not answer in time") {
		t.Errorf("Status out of time = %v", err)
	}
}

func (a *agent) Segments() []status.Segment { return nil }
func (a *agent) MACs(string) []status.MAC   { return nil }
func (a *agent) EVPN() []status.EVPNRoute   { return nil }

func (a *agent) Guard() status.Guard { return status.Guard{} }
