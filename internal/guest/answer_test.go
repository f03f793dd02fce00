package guest

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"frond/internal/dataplane"
)

var compareAddrs = cmpopts.EquateComparable(netip.Addr{})

// recorded is the answer of a real LXD 5.0.2.
func recorded(t *testing.T, name string) []byte {
	t.Helper()
	body, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	metadata, err := open(body)
	if err != nil {
		t.Fatal(err)
	}
	return metadata
}

func mac(t *testing.T, text string) dataplane.MAC {
	t.Helper()
	m, err := dataplane.ParseMAC(text)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestDecodeInstances(t *testing.T) {
	known, unknown, err := decodeInstances(recorded(t, "instances.json"), maxInstances)
	if err != nil || len(unknown) > 0 {
		t.Fatal(unknown, err)
	}
	want := []Instance{
		{Key: Key{"default", "c1"}, Kind: "container", State: "Running", Location: "lx1", NICs: []NIC{
			{Device: "eth0", MAC: mac(t, "00:16:3e:25:c0:7a"), Port: "veth4f21aaa3", Parent: "br-blue", Addresses: []netip.Addr{netip.MustParseAddr("10.9.9.77")}},
			{Device: "eth1", MAC: mac(t, "00:16:3e:aa:bb:cc"), Port: "c1-one", Parent: "br-blue"},
		}},
		{Key: Key{"default", "c2"}, Kind: "container", State: "Running", Location: "lx1", NICs: []NIC{
			{Device: "eth0", MAC: mac(t, "00:16:3e:fd:72:4a"), Port: "vethd97c3ab8", Parent: "br-blue"},
		}},
		{Key: Key{"blue", "c4"}, Kind: "container", State: "Stopped", Location: "lx1", NICs: []NIC{
			{Device: "eth0", MAC: mac(t, "00:16:3e:0a:90:13"), Parent: "br-blue"},
		}},
		{Key: Key{"blue", "c5"}, Kind: "container", State: "Stopped", Location: "lx1", NICs: []NIC{
			{Device: "eth0", MAC: mac(t, "00:16:3e:ee:cc:3c"), Parent: "br-blue"},
		}},
	}
	if diff := cmp.Diff(want, known, compareAddrs); diff != "" {
		t.Error(diff)
	}
}

func TestDecodeOther(t *testing.T) {
	i, err := decodeInstance(recorded(t, "instance.json"))
	if err != nil || i.Key != (Key{"default", "c2"}) || len(i.NICs) != 1 {
		t.Errorf("one instance: %+v, %v", i, err)
	}
	keys, err := decodeKeys(recorded(t, "keys.json"), maxInstances)
	if diff := cmp.Diff([]Key{{"default", "c1"}, {"default", "c2"}, {"blue", "c4"}, {"blue", "c5"}}, keys); diff != "" || err != nil {
		t.Error(err, diff)
	}
	server, err := decodeServer(recorded(t, "server.json"))
	if want := (Server{Product: "LXD", Version: "5.0.2", Member: "lx1", Cluster: true, Address: "10.9.9.1:8443"}); server != want || err != nil {
		t.Errorf("server: %+v, %v", server, err)
	}
	body, err := os.ReadFile("testdata/gone.json")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := open(body); !errors.Is(err, ErrGone) {
		t.Errorf("an instance that is gone: %v", err)
	}
}

func TestDecodeEvents(t *testing.T) {
	text, err := os.ReadFile("testdata/events.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	var told []Event
	for line := range bytes.Lines(text) {
		if e, ok := decodeEvent(line); ok {
			told = append(told, e)
		}
	}
	c9 := Event{Key: Key{"blue", "c9"}, Location: "lx1"}
	if diff := cmp.Diff([]Event{c9, c9, c9, c9}, told); diff != "" { // created, started, stopped, deleted; a project and an operation are none
		t.Error(diff)
	}
}

// TestDecodeUnusual has answers that the recorded ones do not show.
func TestDecodeUnusual(t *testing.T) {
	const devices = `"expanded_devices": {"eth0": {"type": "nic", "parent": "br-blue"}}`
	for _, test := range []struct {
		name, list string
		known      int
		nics       int
		unknown    int
	}{
		{"none", `[]`, 0, 0, 0},
		{"null", `null`, 0, 0, 0},
		{"on a member that is away", `[{"name": "c1", "status": "Error", "expanded_config": null, "expanded_devices": null}]`, 0, 0, 1},
		{"without a name", `[{"expanded_config": {}, "expanded_devices": {}}]`, 0, 0, 0},
		{"with a name that is too long", `[{"name": "` + strings.Repeat("x", 64) + `", "expanded_config": {}, "expanded_devices": {}}]`, 0, 0, 0},
		{"without NICs", `[{"name": "c1", "expanded_config": {}, "expanded_devices": {}}]`, 1, 0, 0},
		{"no MAC yet", `[{"name": "c1", "expanded_config": {}, ` + devices + `}]`, 1, 0, 0},
		{"a group's MAC", `[{"name": "c1", "expanded_config": {"volatile.eth0.hwaddr": "01:00:5e:00:00:01"}, ` + devices + `}]`, 1, 0, 0},
		{"no MAC at all", `[{"name": "c1", "expanded_config": {"volatile.eth0.hwaddr": "garbage"}, ` + devices + `}]`, 1, 0, 0},
		{"a MAC, not started", `[{"name": "c1", "expanded_config": {"volatile.eth0.hwaddr": "00:16:3e:00:00:01"}, ` + devices + `}]`, 1, 1, 0},
	} {
		known, unknown, err := decodeInstances([]byte(test.list), maxInstances)
		nics := 0
		for _, i := range known {
			nics += len(i.NICs)
		}
		if err != nil || len(known) != test.known || len(unknown) != test.unknown || nics != test.nics {
			t.Errorf("%s: known %+v, unknown %+v, %v", test.name, known, unknown, err)
		}
	}
	for _, body := range []string{``, `{}`, `[]`, `<html>`, `{"type": "async"}`, `{"type": "error", "error_code": 503, "error": "not started yet"}`} {
		if _, err := open([]byte(body)); err == nil || errors.Is(err, ErrGone) {
			t.Errorf("%q is taken for an answer: %v", body, err)
		}
	}
	for _, source := range []string{"", "/1.0/instances/", "/1.0/instances/c1/snapshots/s", "/1.0/profiles/default", "::", "/1.0/instances/c1?project=" + strings.Repeat("p", 99)} {
		if key, ok := keyOf(source); ok {
			t.Errorf("%q names %v", source, key)
		}
	}
	managed, _, err := decodeInstances([]byte(`[{"name": "v1", "type": "virtual-machine", "expanded_config": {"volatile.nic.host_name": "tap1", "volatile.nic.hwaddr": "00:16:3e:00:00:02"},
		"expanded_devices": {"nic": {"type": "nic", "network": "lxdbr0", "ipv4.address": "none", "ipv6.address": "fd00::2"}}}]`), maxInstances)
	want := []Instance{{Key: Key{"default", "v1"}, Kind: "virtual-machine", NICs: []NIC{{
		Device: "nic", MAC: mac(t, "00:16:3e:00:00:02"), Port: "tap1", Parent: "lxdbr0", Addresses: []netip.Addr{netip.MustParseAddr("fd00::2")},
	}}}}
	if diff := cmp.Diff(want, managed, compareAddrs); diff != "" || err != nil {
		t.Error(err, diff)
	}
}

func FuzzDecode(f *testing.F) {
	for _, name := range []string{"instances.json", "keys.json", "server.json", "gone.json"} {
		body, err := os.ReadFile("testdata/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		_, _ = decodeEvent(body)
		metadata, err := open(body)
		if err != nil {
			return
		}
		known, _, _ := decodeInstances(metadata, maxInstances)
		for _, i := range known {
			if !validName(i.Name) || len(i.NICs) > maxNICs {
				t.Errorf("%+v", i)
			}
		}
		_, _ = decodeKeys(metadata, maxInstances)
		_, _ = decodeServer(metadata)
	})
}
