package trace

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"frond/internal/status"
)

// Endpoint is where a trace begins or ends: a node, a guest of a segment, or
// an IP address that is neither's.
type Endpoint struct {
	Name    string `json:"name,omitempty"` // of a node, or of a guest that has one
	Node    string `json:"node,omitempty"` // where it is; empty: not known
	Segment string `json:"segment,omitempty"`
	MAC     string `json:"mac,omitempty"` // of a guest
	Address string `json:"address,omitempty"`
	Port    string `json:"port,omitempty"` // of the guest that a trace begins at
	// Problem says what is wrong with the place that a trace begins at.
	Problem string `json:"problem,omitempty"`

	routed bool // it was asked for by its IP address
}

// Directory is what is known of who is where.
type Directory struct {
	Nodes []status.Host
	MACs  []status.MAC      // as one node knows them, or many
	Names map[string]string // MACs of guests by name, besides those that MACs say
}

// InputError is about a text that can be nobody's, wherever one asks.
type InputError struct{ text, problem string }

func (e InputError) Error() string { return fmt.Sprintf("%q %s", e.text, e.problem) }

// From finds where a trace begins: a node or a guest, by name, MAC or IP address.
func (d Directory) From(text string) (Endpoint, error) {
	e, err := d.To(text, "")
	if err == nil && e.Node == "" {
		err = fmt.Errorf("no node that was asked knows %s: a trace begins at a guest that has been heard of, or at a node", text)
	}
	return e, err
}

// To finds where a trace ends: a node or a guest, by name, MAC or IP address,
// or any other MAC or IP address. Who is on the named segment comes first.
func (d Directory) To(text, segment string) (Endpoint, error) {
	if i := slices.IndexFunc(d.Nodes, func(n status.Host) bool { return n.Name == text }); i >= 0 {
		return Endpoint{Name: text, Node: text, Address: d.Nodes[i].Loopback}, nil
	}
	if mac, ok := d.named(text); ok {
		return d.guest(mac, segment), nil
	}
	if address, err := netip.ParseAddr(text); err == nil {
		return d.holder(address.Unmap().WithZone("").String(), segment), nil
	}
	if mac, err := net.ParseMAC(text); err == nil && len(mac) == 6 {
		if mac[0]&1 != 0 {
			return Endpoint{}, InputError{text, "stands for many: a trace follows packets to one"}
		}
		return d.guest(mac.String(), segment), nil
	}
	return Endpoint{}, InputError{text, "is no node's or guest's name that is known here, and neither a MAC nor an IP address"}
}

// holder is who has an IP address.
func (d Directory) holder(address, segment string) Endpoint {
	for _, n := range d.Nodes {
		if address == n.Loopback || address == n.Loopback6 {
			return Endpoint{Name: n.Name, Node: n.Name, Address: address}
		}
	}
	station, ok := d.station(segment, func(m status.MAC) bool { return slices.Contains(m.IPs, address) })
	if !ok {
		return Endpoint{Address: address}
	}
	e := d.at(station)
	e.Address, e.routed = address, true
	return e
}

// guest is who has a MAC.
func (d Directory) guest(mac, segment string) Endpoint {
	station, ok := d.station(segment, func(m status.MAC) bool { return m.MAC == mac })
	if !ok {
		return Endpoint{Name: d.name(mac), MAC: mac}
	}
	return d.at(station)
}

// station finds the best word on a station, on the segment if it is there: the node that it is at is right
// about it, and who counts more of its moves has heard more lately.
func (d Directory) station(segment string, is func(status.MAC) bool) (status.MAC, bool) {
	var found []status.MAC
	for _, m := range d.MACs {
		if is(m) {
			found = append(found, m)
		}
	}
	if len(found) == 0 {
		return status.MAC{}, false
	}
	return slices.MaxFunc(found, func(a, b status.MAC) int {
		return cmp.Or(compareBools(a.Segment == segment, b.Segment == segment), cmp.Compare(a.Sequence, b.Sequence), compareBools(a.Local, b.Local), len(a.IPs)-len(b.IPs))
	}), true
}

func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

func (d Directory) at(m status.MAC) Endpoint {
	e := Endpoint{Name: d.name(m.MAC), Segment: m.Segment, MAC: m.MAC}
	if len(m.IPs) > 0 {
		e.Address = m.IPs[0]
	}
	if i := slices.IndexFunc(d.Nodes, func(n status.Host) bool { return n.Loopback == m.VTEP || n.Loopback6 == m.VTEP }); i >= 0 {
		e.Node = d.Nodes[i].Name
	}
	return e
}

// named is the MAC of the guest of that name.
func (d Directory) named(name string) (string, bool) {
	if mac, ok := d.Names[name]; ok {
		return mac, true
	}
	i := slices.IndexFunc(d.MACs, func(m status.MAC) bool { return m.Name != "" && m.Name == name })
	if i < 0 {
		return "", false
	}
	return d.MACs[i].MAC, true
}

// name is the name of the guest that has a MAC, empty if it has none.
func (d Directory) name(mac string) string {
	for name, of := range d.Names {
		if of == mac {
			return name
		}
	}
	i := slices.IndexFunc(d.MACs, func(m status.MAC) bool { return m.Name != "" && m.MAC == mac })
	if i < 0 {
		return ""
	}
	return d.MACs[i].Name
}

// destination is what the packet says of where it is to go. Within a segment
// that is a MAC; what a node sends to an address, and what a guest sends
// elsewhere, is routed.
func destination(from, to Endpoint) (status.Destination, error) {
	sameSegment := from.Segment != "" && (to.Segment == "" || to.Segment == from.Segment)
	switch {
	case to.MAC != "" && sameSegment:
		return status.Destination{Segment: from.Segment, MAC: to.MAC}, nil
	case to.MAC != "" && from.Segment == "" && to.Segment != "" && !to.routed:
		return status.Destination{Segment: to.Segment, MAC: to.MAC}, nil
	case to.Address != "":
		return status.Destination{Segment: from.Segment, Address: to.Address}, nil
	case to.Segment == "":
		return status.Destination{}, fmt.Errorf("no node that was asked knows %s", cmp.Or(to.Name, to.MAC))
	}
	return status.Destination{}, fmt.Errorf("%s is on segment %s, and no IP address of it is known that a packet from elsewhere could be sent to",
		cmp.Or(to.Name, to.MAC), to.Segment)
}
