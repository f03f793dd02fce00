package guest

import (
	"encoding/json"
	"fmt"
	"testing"

	"frond/internal/dataplane"
)

// many is a member with so many instances, all running.
func many(n int) ([]Instance, map[string]dataplane.Link) {
	links := map[string]dataplane.Link{"br-blue": {Name: "br-blue", Kind: "bridge"}}
	all := make([]Instance, n)
	for i := range all {
		port := fmt.Sprintf("veth%d", i)
		all[i] = Instance{Key: Key{"default", fmt.Sprintf("c%d", i)}, NICs: []NIC{
			{Device: "eth0", MAC: dataplane.MAC{0, 0x16, 0x3e, 0, byte(i >> 8), byte(i)}, Port: port, Parent: "br-blue"},
		}}
		links[port] = dataplane.Link{Name: port, Kind: "veth", Master: "br-blue"}
	}
	return all, links
}

// BenchmarkPlugs is what each change of a link or an instance costs with 200 of them.
func BenchmarkPlugs(b *testing.B) {
	all, links := many(200)
	for b.Loop() {
		if len(Plugs(all, links)) != len(all) {
			b.Fatal("not all are plugged in")
		}
	}
}

// BenchmarkDecode is what a list of 200 instances costs, once for each connection.
func BenchmarkDecode(b *testing.B) {
	list := make([]json.RawMessage, 200)
	for i := range list {
		list[i] = json.RawMessage(fmt.Sprintf(`{"name": "c%d", "project": "default", "status": "Running", "location": "lx1", "type": "container",
			"expanded_config": {"volatile.eth0.host_name": "veth%d", "volatile.eth0.hwaddr": "00:16:3e:00:00:%02x", "image.os": "busybox", "volatile.uuid": "51b04ee9-c4fa-445f-ad05-bb432456d0b7"},
			"expanded_devices": {"eth0": {"type": "nic", "nictype": "bridged", "parent": "br-blue", "name": "eth0"}, "root": {"type": "disk", "path": "/", "pool": "default"}}}`, i, i, i))
	}
	body, err := json.Marshal(map[string]any{"type": "sync", "metadata": list})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		metadata, err := open(body)
		if err != nil {
			b.Fatal(err)
		}
		if known, _, err := decodeInstances(metadata, maxInstances); err != nil || len(known) != 200 {
			b.Fatal(len(known), err)
		}
	}
}
