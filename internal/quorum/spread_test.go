package quorum

import (
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"frond/internal/gateway"
)

func TestOnline(t *testing.T) {
	r := register{members: []registered{
		{"lx1", "10.0.200.1:8443", 1000, ""},
		{"lx2", "10.0.200.2:8443", 981, ""},
		{"lx3", "10.0.200.3:8443", 980, ""},         // for too long
		{"lx4", "10.0.200.4:8443", 1000, "drained"}, // whatever is noted
		{"lx5", "192.0.2.5:8443", 1000, ""},
		{"LX6", "10.9.9.6:8443", 1000, ""},
	}}
	names := map[string]string{"10.0.200.1": "leaf1", "10.0.200.2": "leaf2", "10.0.200.3": "leaf3", "10.0.200.4": "leaf4"}
	node := func(m registered) string { return nodeOf(m, names) }
	var online []string
	for _, m := range r.online() {
		online = append(online, node(m))
	}
	if want := []string{"leaf1", "leaf2", "lx5", "lx6"}; !slices.Equal(online, want) {
		t.Errorf("online are %v, want %v", online, want)
	}
	for _, test := range []struct {
		nodes []string
		want  string
	}{
		{[]string{"leaf1"}, "10.0.200.1:8443"},
		{[]string{"leaf3", "leaf4", "leaf9"}, ""},
		{[]string{"lx6", "leaf4"}, "10.9.9.6:8443"},
	} {
		if got := r.owner(gateway.Segment{Name: "blue", Nodes: test.nodes}, node); got != test.want {
			t.Errorf("of %v the owner is %q, want %q", test.nodes, got, test.want)
		}
	}
	if got := (register{}).owners([]gateway.Segment{{Name: "blue", Nodes: []string{"leaf1"}}}, names); got["blue"] != "" {
		t.Errorf("without members, the owner is %v", got)
	}
}

func TestProven(t *testing.T) {
	r := register{from: "a", sent: 5, received: 7}
	for _, test := range []struct {
		by   round
		want bool
	}{
		{round{"a", 7}, true},
		{round{"a", 6}, false}, // another may have been elected before it was read
		{round{"b", 9}, false},
		{round{}, false},
	} {
		if got := r.proven(test.by); got != test.want {
			t.Errorf("%+v proves it: %t", test.by, got)
		}
	}
	if (register{}).proven(round{}) {
		t.Error("nothing is proven")
	}
}

func TestRowsThatAreNone(t *testing.T) {
	head := [][]byte{number(4), text("a"), text("b"), text("c"), text("d")}
	member := [][]byte{number(0x3133), text("lx1"), text("x"), number(1), text("")}
	var many [][]byte
	for range maxMembers + 1 {
		many = append(many, member...)
	}
	for _, test := range []struct {
		words [][]byte
		want  string
	}{
		{nil, "too short"},
		{[][]byte{number(3)}, "3 columns"},
		{head, "too short"},
		{append(slices.Clone(head), number(0x3333)), "types 3333"},
		{append(slices.Clone(head), number(0xee)), "do not fit"},
		{append(slices.Clone(head), member[:3]...), "too short"},
		{append(slices.Clone(head), many...), "so many"},
	} {
		_, err := readRegistered(&response{rest: slices.Concat(test.words...)})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v, want %q", err, test.want)
		}
	}
}

// TestMark notes on members by LXD's API, and tells what it says against it.
func TestMark(t *testing.T) {
	i := Identity{t.TempDir()}
	listener, err := net.Listen("unix", filepath.Join(i.Dir, "unix.socket"))
	must(t, err)
	var asked []string
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch {
		case strings.HasSuffix(r.URL.Path, "/lx9"):
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"error": "not found"}`)
		case r.Method == http.MethodGet:
			w.Header().Set("ETag", "seven")
			_, _ = io.WriteString(w, `{"type": "sync", "metadata": {"roles": ["database"], "failure_domain": "here", "description": "",
				"config": {"user.frond.gateways": "away", "user.other": "1"}, "groups": ["default"], "server_name": "lx1", "status": "Online"}}`)
		default:
			asked = append(asked, r.Method+" "+r.URL.Path+" "+r.Header.Get("If-Match")+" "+string(body))
		}
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	must(t, newDialer(i).mark(t.Context(), "lx1", markDrained))
	must(t, newDialer(i).mark(t.Context(), "lx1", ""))
	if err := newDialer(i).mark(t.Context(), "lx9", ""); err == nil || !strings.Contains(err.Error(), "not found") {
		t.Errorf("a member that is none: %v", err)
	}
	must(t, server.Close())
	<-done
	want := []string{
		`PUT /1.0/cluster/members/lx1 seven {"description":"","config":{"user.frond.gateways":"drained","user.other":"1"},"failure_domain":"here","groups":["default"],"roles":["database"]}`,
		`PUT /1.0/cluster/members/lx1 seven {"description":"","config":{"user.other":"1"},"failure_domain":"here","groups":["default"],"roles":["database"]}`,
	}
	if diff := cmp.Diff(want, asked); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
	if err := newDialer(i).mark(t.Context(), "lx1", ""); err == nil {
		t.Error("nobody takes it, and that is no error")
	}
}

func TestOwnNote(t *testing.T) {
	for _, test := range []struct {
		noted            string
		drained, leaving bool
		want             string
		is               bool
	}{
		{"", false, false, "", false},
		{"", true, false, "drained", true},
		{"", false, true, "away", true},
		{"drained", true, true, "", false},
		{"away", false, false, "", true},
		{"drained", false, false, "", true},
		{"by the operator", false, false, "", false},
		{"by the operator", true, false, "drained", true},
	} {
		a := newAlone(t)
		a.drained, a.leaving = test.drained, test.leaving
		got, is := a.ownNote(register{members: []registered{{"lx2", "b", 0, ""}, {"lx1", "a", 0, test.noted}}})
		if is != test.is || got.text != test.want {
			t.Errorf("%+v: %+v, %t", test, got, is)
		}
	}
}
