package guest

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestOnto has every state of a profile come onto bridge br-blue, of MTU 1450.
func TestOnto(t *testing.T) {
	type device = map[string]string
	disk := device{"type": "disk", "path": "/", "pool": "default"}
	nic := device{"type": "nic", "nictype": "bridged", "parent": "br-blue", "name": "eth0"}
	for _, test := range []struct {
		name          string
		before, after map[string]device // after: nil where nothing is to be changed
		changes       []string
	}{
		{"no devices", nil, map[string]device{"eth0": nic}, []string{"device eth0 is added: name=eth0, nictype=bridged, parent=br-blue, type=nic"}},
		{"a disk alone", map[string]device{"root": disk}, map[string]device{"root": disk, "eth0": nic},
			[]string{"device eth0 is added: name=eth0, nictype=bridged, parent=br-blue, type=nic"}},
		{"as it should be", map[string]device{"root": disk, "eth0": nic}, nil, nil},
		{"by another name", map[string]device{"lan": nic}, nil, nil},
		{"beside another", map[string]device{"eth0": {"type": "nic", "network": "lxdbr0"}, "eth1": nic}, nil, nil},
		{"of a network", map[string]device{"eth0": {"type": "nic", "network": "lxdbr0", "name": "eth0"}}, map[string]device{"eth0": nic},
			[]string{"device eth0: network=lxdbr0 is removed", "device eth0: nictype=bridged is added", "device eth0: parent=br-blue is added"}},
		{"on another bridge", map[string]device{"eth0": {"type": "nic", "nictype": "bridged", "parent": "br0", "name": "eth0", "hwaddr": "00:16:3e:00:00:01"}},
			map[string]device{"eth0": {"type": "nic", "nictype": "bridged", "parent": "br-blue", "name": "eth0", "hwaddr": "00:16:3e:00:00:01"}},
			[]string{"device eth0: parent=br0 becomes br-blue"}},
		{"macvlan", map[string]device{"eth0": {"type": "nic", "nictype": "macvlan", "parent": "br-blue", "name": "eth0"}}, map[string]device{"eth0": nic},
			[]string{"device eth0: nictype=macvlan becomes bridged"}},
		{"too large an MTU", map[string]device{"eth0": {"type": "nic", "nictype": "bridged", "parent": "br-blue", "name": "eth0", "mtu": "1500"}},
			map[string]device{"eth0": nic}, []string{"device eth0: mtu=1500 is removed"}},
		{"a smaller MTU", map[string]device{"eth0": {"type": "nic", "nictype": "bridged", "parent": "br-blue", "mtu": "1400"}}, nil, nil},
	} {
		p, changes := Profile{Name: "default", Devices: test.before}.Onto("br-blue", 1450)
		want := test.after
		if want == nil {
			want = test.before
		}
		if diff := cmp.Diff(want, p.Devices); diff != "" {
			t.Errorf("%s: %s", test.name, diff)
		}
		if diff := cmp.Diff(test.changes, changes); diff != "" {
			t.Errorf("%s: changes: %s", test.name, diff)
		}
		if _, again := p.Onto("br-blue", 1450); len(again) > 0 {
			t.Errorf("%s: and then again %q", test.name, again)
		}
	}
}

func TestProfile(t *testing.T) {
	var put profileJSON
	mux := http.NewServeMux()
	mux.HandleFunc("GET /1.0/profiles/default", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("ETag", "e1")
		_, _ = io.WriteString(w, `{"type":"sync","metadata":{"config":{"limits.cpu":"2"},"description":"d","devices":{"root":{"type":"disk"}},"name":"default","used_by":["/1.0/instances/c1"]}}`)
	})
	mux.HandleFunc("PUT /1.0/profiles/default", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("If-Match") != "e1" || r.URL.Query().Get("project") != "blue" {
			_, _ = io.WriteString(w, `{"type":"error","error_code":412,"error":"ETag doesn't match"}`)
			return
		}
		_ = json.NewDecoder(r.Body).Decode(&put)
		_, _ = io.WriteString(w, `{"type":"sync","metadata":null}`)
	})
	mux.HandleFunc("GET /1.0/profiles/none", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"type":"error","error_code":404,"error":"Profile not found"}`)
	})
	c := serve(t, mux)
	if _, err := c.Profile(t.Context(), "blue", "none"); !errors.Is(err, ErrGone) {
		t.Error(err)
	}
	p, err := c.Profile(t.Context(), "blue", "default")
	if err != nil || p.Users != 1 {
		t.Fatal(p, err)
	}
	p, _ = p.Onto("br-blue", 1450)
	if err := c.SetProfile(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	want := profileJSON{Description: "d", Config: map[string]string{"limits.cpu": "2"}, Devices: map[string]map[string]string{
		"root": {"type": "disk"}, "eth0": {"type": "nic", "nictype": "bridged", "parent": "br-blue", "name": "eth0"},
	}}
	if diff := cmp.Diff(want, put); diff != "" {
		t.Error(diff)
	}
	p.etag = "e0"
	if err := c.SetProfile(t.Context(), p); err == nil {
		t.Error("a profile that somebody else has changed is replaced")
	}
}
