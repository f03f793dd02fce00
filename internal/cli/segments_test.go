package cli

import (
	"testing"
	"time"

	"frond/internal/api"
	"frond/internal/status"
)

func someSegments() api.Segments {
	return api.Segments{Segments: []status.Segment{
		{Name: "blue", VNI: 100, Bridge: "br-blue", VXLAN: "vx-blue", MTU: 8950, Ready: true,
			VTEPs: []string{"10.0.200.2", "10.0.200.3"}, LocalMACs: 2, RemoteMACs: 4, Problems: []string{}},
		{Name: "red", VNI: 200, Bridge: "br-red", VXLAN: "vx-red", MTU: 1450, VTEPs: []string{},
			Problems: []string{"port tap3 has brought 1000 MACs, which is its limit: further ones are not told of"}},
		{Name: "green", VNI: 300, Bridge: "br-green", VXLAN: "vx-green", MTU: 1450, Ready: true, Pending: 3, VTEPs: []string{"10.0.200.2"},
			Problems: []string{"02:67:00:00:00:02 has moved too often", "port tap4 is full"}},
	}}
}

func someMACs() api.MACs {
	silent, frozen := ago(11*time.Minute), noon.Add(3*time.Minute)
	return api.MACs{MACs: []status.MAC{
		{Segment: "blue", VNI: 100, MAC: "02:67:00:00:00:01", Name: "web1", IPs: []string{"172.16.0.11", "fd00:172::11"}, Local: true, Port: "tap0",
			VTEP: "10.0.200.1", Since: ago(26 * time.Hour), Silent: &silent},
		{Segment: "blue", VNI: 100, MAC: "02:67:00:00:00:02", IPs: []string{"172.16.0.12"}, VTEP: "10.0.200.2", Sequence: 6,
			Since: ago(3 * time.Second), Frozen: &frozen},
		{Segment: "blue", VNI: 100, MAC: "02:67:00:00:00:03", IPs: []string{}, Local: true, Port: "tap1", VTEP: "10.0.200.1",
			Sticky: true, Since: ago(time.Minute)},
	}}
}

func someEVPN() api.EVPN {
	since := ago(time.Minute)
	return api.EVPN{Routes: []status.EVPNRoute{
		{Route: "[2]:[0]:[48]:[02:67:00:00:00:01]:[32]:[172.16.0.11]", Type: 2, RD: "10.0.200.1:100", VNI: 100, VTEP: "10.0.200.1",
			Local: true, Used: true},
		{Route: "[2]:[0]:[48]:[02:67:00:00:00:02]", Type: 2, RD: "10.0.200.2:100", VNI: 100, VTEP: "10.0.200.2", Sequence: 6,
			Peer: "spine1", Used: true, Since: &since},
		{Route: "[3]:[0]:[32]:[10.0.200.1]", Type: 3, RD: "10.0.200.1:100", VNI: 100, VTEP: "10.0.200.1", Local: true, Used: true},
		{Route: "[5]:[0]:[24]:[192.0.2.0]", Type: 5, RD: "10.0.100.1:7", VNI: 7, VTEP: "10.0.100.1", Peer: "spine2", Since: &since},
	}}
}

func someHypervisor() status.Hypervisor {
	since := ago(26 * time.Hour)
	return status.Hypervisor{Contact: "connected", Socket: "/var/lib/lxd/unix.socket", Product: "LXD", Version: "5.0.2", Member: "leaf1", Since: &since,
		Instances: []status.Instance{
			{Name: "web1", Project: "default", Kind: "container", State: "Running", NICs: []status.NIC{
				{Device: "eth0", MAC: "00:16:3e:00:00:01", Port: "veth7f0ff70a", Bridge: "br-blue", Segment: "blue", IPs: []string{"172.16.0.11", "fd00:172::11"}},
				{Device: "eth1", MAC: "00:16:3e:00:00:02", Port: "veth9dd463b5", Bridge: "lxdbr0", IPs: []string{}},
			}},
			{Name: "db1", Project: "shop", Kind: "virtual-machine", State: "Stopped", NICs: []status.NIC{
				{Device: "eth0", MAC: "00:16:3e:00:00:03", Bridge: "br-blue", Segment: "blue", IPs: []string{}},
			}},
			{Name: "alone", Project: "default", Kind: "container", State: "Running", NICs: []status.NIC{}},
		}}
}

func hangingHypervisor() status.Hypervisor {
	h := someHypervisor()
	since := ago(20 * time.Second)
	h.Contact, h.Trouble, h.Since, h.Instances = "away", "context deadline exceeded", &since, h.Instances[2:]
	return h
}

func someGateways() api.Gateways {
	since := ago(26 * time.Hour)
	return api.Gateways{Gateways: []status.Gateway{
		{Segment: "blue", VNI: 100, Mode: "anycast", Addresses: []string{"172.16.0.1", "fd00:172::1"}, Here: true},
		{Segment: "red", VNI: 200, Mode: "elected", Addresses: []string{"172.17.0.1"}, Holder: "leaf2", Next: "leaf1", Since: &since,
			LeftSeconds: 1.78, Why: "first by hash", Score: 1.4426, Weight: 3, Term: 12},
		{Segment: "green", VNI: 300, Mode: "elected", Addresses: []string{"172.18.0.1"}, Why: "no eligible node"},
	}}
}

func someGuard() status.Guard {
	return status.Guard{
		Routes: []status.RefusedRoute{
			{Port: "eth1", Peer: "leaf1", Route: "10.0.200.2/32", Origin: 4200051201, Node: "leaf1", Owner: "leaf2", Reason: "it belongs to another node"},
			{Port: "eth1", Peer: "leaf1", Route: "203.0.113.0/24", Origin: 65530, Reason: "its AS path leads through an AS of no node"},
		},
		Drops: []status.GuardDrop{
			{Rule: "address", Port: "tap0", Segment: "blue", MACs: []string{"02:67:00:00:00:01"}, Packets: 12345},
			{Rule: "service", Port: "br-blue", Segment: "blue", MACs: []string{}, Packets: 2},
			{Rule: "vxlan", Port: "eth1", MACs: []string{}, Packets: 1},
		},
	}
}

func someLeases() api.Leases {
	since, ends := ago(26*time.Hour), ago(-7*time.Minute)
	return api.Leases{Leases: []status.Lease{
		{Segment: "blue", Address: "172.16.0.11", Client: "01020000000001", MAC: "02:00:00:00:00:01", Hostname: "web1", State: "leased",
			Node: "leaf1", Port: "vg1", Since: &since, Ends: &ends, KeptSeconds: 4020.5},
		{Segment: "blue", Address: "172.16.0.12", Client: "ff0000000001", MAC: "02:00:00:00:00:02", Name: "build/web2", Hostname: "localhost", State: "ended",
			Node: "leaf2", Port: "vg2", Since: &since, Ends: &since},
		{Segment: "blue", Address: "172.16.0.13", MAC: "02:00:00:00:00:03", State: "declined", Node: "leaf2", KeptSeconds: 1700},
		{Segment: "blue", Address: "fd00:172:16::1:11", Client: "0003000102000000000100000001", MAC: "02:00:00:00:00:01", Hostname: "web1", State: "leased",
			Node: "leaf1", Port: "vg1", Since: &since, Ends: &ends, KeptSeconds: 4020.5},
	}}
}

// overlayBackend is a healthy agent with guests.
func overlayBackend() backend {
	return backend{snapshot: healthyNode(), routes: someRouteList().Routes,
		segments: someSegments().Segments, macs: someMACs().MACs, evpn: someEVPN().Routes, gateways: someGateways().Gateways, guard: someGuard(),
		leases: someLeases().Leases, lxd: hangingHypervisor()}
}

func TestOverlayJSON(t *testing.T) {
	socket := serve(t, overlayBackend())
	for _, verb := range []string{"segments", "macs", "evpn", "gateways", "guard", "leases"} {
		code, stdout, stderr := command(t, testRoot(), verb, "-o", "json", "--socket", socket)
		if code != 0 || stderr != "" {
			t.Errorf("frond %s: exit code %d, %s", verb, code, stderr)
		}
		golden(t, verb+".json", stdout)
	}
}
