package node

import (
	"context"
	"maps"
	"reflect"

	"frond/internal/advertise"
)

// advertiser is what is used of advertise.Advertiser.
type advertiser interface {
	SetSegments([]advertise.Segment)
	Withdraw(context.Context) error
}

// advertised is what guests are told of routers, and what that follows from.
type advertised struct {
	shape    shape
	held     map[string]uint32 // elected gateways that are here
	segments []advertise.Segment
}

// applyAdvertisements has guests be told of the routers that are on this node.
func (l *loop) applyAdvertisements() {
	told, held := &l.advertised, l.gateways.held
	if same := maps.Equal(held, told.held); !l.reshaped(&told.shape) && same {
		return
	}
	told.held = held
	var segments []advertise.Segment
	for _, a := range l.plan.Advertisements(told.shape.portMTU) {
		if _, here := held[a.Name]; a.Elected && !here {
			continue
		}
		segments = append(segments, advertise.Segment{
			VNI: a.VNI, Router: a.Router, MAC: a.MAC, Prefix: a.Prefix, MTU: a.MTU,
			DNS: a.DNS, Search: a.Search, Managed: a.Managed, Everywhere: a.Elected,
		})
	}
	if !reflect.DeepEqual(segments, told.segments) {
		told.segments = segments
		l.advertiser.SetSegments(segments)
	}
}
