package guest

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"frond/internal/dataplane"
)

func named(names ...string) (all []Instance) {
	for _, name := range names {
		all = append(all, Instance{Key: Key{"default", name}, Location: "leaf1"})
	}
	return all
}

func keys(names ...string) (all []Key) {
	for _, name := range names {
		all = append(all, Key{"default", name})
	}
	return all
}

// TestBook says what each answer makes of two instances that are known.
func TestBook(t *testing.T) {
	elsewhere := Instance{Key: Key{"default", "a"}, Location: "leaf2"}
	for _, test := range []struct {
		name string
		do   func(*book)
		want []string
		ask  []string // at the next comparison with the names a, b and c
	}{
		{"nothing", func(*book) {}, []string{"a", "b"}, []string{"c"}},
		{"the same list", func(b *book) { b.replace(named("a", "b"), nil) }, []string{"a", "b"}, []string{"c"}},
		{"one less", func(b *book) { b.replace(named("b"), nil) }, []string{"b"}, []string{"a", "c"}},
		{"one unknown", func(b *book) { b.replace(named("b"), keys("a")) }, []string{"a", "b"}, []string{"a", "c"}},
		{"all unknown", func(b *book) { b.replace(nil, keys("a", "b")) }, []string{"a", "b"}, []string{"a", "b", "c"}},
		{"one unknown that never was", func(b *book) { b.replace(named("a", "b"), keys("c")) }, []string{"a", "b"}, []string{"c"}},
		{"one unknown when asked", func(b *book) { b.doubt(Key{"default", "a"}) }, []string{"a", "b"}, []string{"a", "c"}},
		{"known again", func(b *book) { b.doubt(Key{"default", "a"}); b.put(named("a")[0]) }, []string{"a", "b"}, []string{"c"}},
		{"one more", func(b *book) { b.put(named("c")[0]) }, []string{"a", "b", "c"}, nil},
		{"one moved away", func(b *book) { b.put(elsewhere) }, []string{"b"}, []string{"a", "c"}},
		{"one moved away, by the list", func(b *book) { b.replace(append(named("b"), elsewhere), nil) }, []string{"b"}, []string{"a", "c"}},
		{"one gone", func(b *book) { b.forget(Key{"default", "a"}) }, []string{"b"}, []string{"a", "c"}},
		{"one gone, by its name", func(b *book) { b.compare(keys("b")) }, []string{"b"}, []string{"a", "c"}},
		{"a server of its own", func(b *book) { b.server = Server{}; b.put(elsewhere) }, []string{"a", "b"}, []string{"c"}},
	} {
		b := newBook()
		b.server = Server{Member: "leaf1", Cluster: true}
		b.replace(named("a", "b"), nil)
		test.do(b)
		var got []string
		for _, i := range b.list() {
			got = append(got, i.Name)
		}
		ask := b.compare(keys("a", "b", "c"))
		if !slices.Equal(got, test.want) || !slices.Equal(ask, keys(test.ask...)) {
			t.Errorf("%s: known %v, to be asked for %v", test.name, got, ask)
		}
	}
}

func TestPlugs(t *testing.T) {
	nic := NIC{Device: "eth0", MAC: mac(t, "00:16:3e:00:00:01")}
	running := nic
	running.Port = "veth1"
	c1 := Key{"default", "c1"}
	bridge := dataplane.Link{Name: "br-blue", Kind: "bridge"}
	port := dataplane.Link{Name: "veth1", Master: "br-blue", Kind: "veth"}
	starting := dataplane.Link{Name: "veth1", Master: "br-blue", Kind: "veth", Peer: "veth2"}
	inside := dataplane.Link{Name: "veth2", Kind: "veth", Peer: "veth1", MAC: "00:16:3e:00:00:01"}
	bridged := inside
	bridged.Master = "br-red"
	stranger := inside
	stranger.MAC = "02:00:00:00:00:01"
	for _, test := range []struct {
		name  string
		nic   NIC
		links []dataplane.Link
		want  bool
	}{
		{"not started", nic, nil, false},
		{"named by the hypervisor", running, []dataplane.Link{port}, true},
		{"named, but there is no such port", running, nil, false},
		{"named, but no port of a bridge", running, []dataplane.Link{{Name: "veth1", Kind: "veth"}}, false},
		{"not yet named, not yet taken inside", nic, []dataplane.Link{starting, inside}, true},
		{"not yet named, taken inside", nic, []dataplane.Link{port}, false},
		{"the other end is a stranger's", nic, []dataplane.Link{starting, stranger}, false},
		{"the other end is plugged into a bridge", nic, []dataplane.Link{starting, bridged}, false},
	} {
		links := map[string]dataplane.Link{bridge.Name: bridge}
		for _, l := range test.links {
			links[l.Name] = l
		}
		var want []Plug
		if test.want {
			want = []Plug{{Instance: c1, NIC: test.nic, Port: "veth1", Bridge: "br-blue"}}
		}
		if diff := cmp.Diff(want, Plugs([]Instance{{Key: c1, NICs: []NIC{test.nic}}}, links)); diff != "" {
			t.Errorf("%s: %s", test.name, diff)
		}
	}
}
