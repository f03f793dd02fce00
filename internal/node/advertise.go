package node

import (
	"reflect"

	"frond/internal/advertise"
)

// advertiser is what is used of advertise.Advertiser.
type advertiser interface {
	SetSegments([]advertise.Segment)
}

// applyAdvertisements has guests be told of the routers that are on this node.
func (l *loop) applyAdvertisements() {
	var segments []advertise.Segment
	for _, a := range l.plan.Advertisements(l.portMTU()) {
		if _, held := l.gateways.held[a.Name]; a.Elected && !held {
			continue
		}
		segments = append(segments, advertise.Segment{
			VNI: a.VNI, Router: a.Router, MAC: a.MAC, Prefix: a.Prefix, MTU: a.MTU,
			DNS: a.DNS, Search: a.Search, Everywhere: a.Elected,
		})
	}
	if !reflect.DeepEqual(segments, l.advertised) {
		l.advertised = segments
		l.advertiser.SetSegments(segments)
	}
}
