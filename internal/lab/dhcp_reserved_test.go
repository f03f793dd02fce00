package lab

import (
	"strings"
	"testing"
)

// reserving is a document without a store, whose first guest has an address
// reserved.
func reserving(document string) string {
	return strings.Replace(document, "prefix: 172.16.0.0/16",
		`prefix: 172.16.0.0/16, gateway: {address: 172.16.0.1}, dhcp: {reservations: {g1: {mac: "02:67:00:00:00:01", address: 172.16.5.5}}}`, 1) +
		"store: {lxd: {}}\n"
}

// TestReservedWithoutStore has nodes that cannot tell each other of leases give a
// guest what is reserved for it, wherever it asks, and nothing to others.
func TestReservedWithoutStore(t *testing.T) {
	w := populate(t, "reserved", SpineLeaf(1, 2), 0, reserving)
	w.steady()
	g := w.ask("leaf1")
	if g.Address.String() != "172.16.5.5/16" {
		t.Errorf("it has %s", g.Address)
	}
	must(t, w.Stop(t.Context(), "leaf1"))
	must(t, w.Start("leaf1"))
	w.steady()
	w.renews(g, "after a restart of its agent")
	must(t, w.MoveGuest(t.Context(), g.Name, "leaf2", false))
	w.renews(g, "on another node")
	if list := w.leases("leaf2"); len(list) != 1 || list[0].Node != "leaf2" || list[0].State != "leased" {
		t.Errorf("leaf2 says of leases: %+v", list)
	}

	stranger, err := w.NextGuest("", "leaf2")
	must(t, err)
	must(t, w.AddGuest(t.Context(), stranger))
	if out, err := w.shell(stranger.Name, "udhcpc -i eth0 -f -q -n -t 3 -T 1 -s /bin/true"); err == nil {
		t.Errorf("a guest without a reservation gets an address:\n%s", out)
	}
}
