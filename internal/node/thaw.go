package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"frond/internal/dataplane"
	"frond/internal/evpn"
)

// Thaw lets a frozen MAC or address move again before its time, on the segment
// of that name or, for the empty name, on every one. An error tells why there
// is nothing to thaw.
func (n *Node) Thaw(ctx context.Context, station, segment string) error {
	target, err := parseStation(station)
	if err != nil {
		return err
	}
	if !n.ask(ctx, func(l *loop) { err = l.thaw(target, segment) }) {
		return errStopping(ctx)
	}
	return err
}

// station is a MAC or, if that is zero, an address.
type station struct {
	mac dataplane.MAC
	ip  netip.Addr
}

func (s station) String() string {
	if s.mac.IsZero() {
		return s.ip.String()
	}
	return s.mac.String()
}

func parseStation(text string) (station, error) {
	if ip, err := netip.ParseAddr(text); err == nil {
		return station{ip: ip.Unmap().WithZone("")}, nil
	}
	mac, err := dataplane.ParseMAC(text)
	if err != nil || mac.IsZero() {
		return station{}, fmt.Errorf("%q is neither a MAC nor an address: write it as 02:00:00:00:00:01 or 172.16.0.11", text)
	}
	return station{mac: mac}, nil
}

func (s station) thaw(table *evpn.Table, vni uint32) bool {
	if s.mac.IsZero() {
		return table.ThawAddress(vni, s.ip)
	}
	return table.Thaw(vni, s.mac)
}

// is tells whether a MAC is the station, or has its address.
func (s station) is(m evpn.MACStatus) bool {
	return m.MAC == s.mac || slices.Contains(m.IPs, s.ip)
}

func (l *loop) thaw(s station, segment string) error {
	segments := slices.DeleteFunc(slices.Clone(l.segments.here), func(here dataplane.Segment) bool {
		return segment != "" && segment != here.Name
	})
	if len(segments) == 0 {
		return l.noSegment(segment)
	}
	thawed := false
	for _, here := range segments {
		thawed = s.thaw(l.segments.stations, here.VNI) || thawed
	}
	if thawed {
		l.log.Info("thawed by command", "station", s.String())
		return nil
	}
	for _, here := range segments {
		for _, m := range l.segments.stations.MACs(here.VNI) {
			if s.is(m) {
				return fmt.Errorf("%s is not frozen on this node: it may move; each node freezes for itself, so ask the one whose status names it", s)
			}
		}
	}
	return fmt.Errorf("%s is not known on this node: frond macs lists those that are", s)
}

func (l *loop) noSegment(name string) error {
	if len(l.segments.here) == 0 {
		return errors.New("this node takes part in no segment")
	}
	var names []string
	for _, here := range l.segments.here {
		names = append(names, here.Name)
	}
	return fmt.Errorf("this node takes part in no segment %q, only in %s", name, strings.Join(names, ", "))
}
