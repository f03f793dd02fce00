package versus

import (
	"context"
	"fmt"
	"time"

	"frond/internal/probe"
)

// bandwidthEvent measures what is carried over the same devices in three ways:
// by one bridge, routed between two leafs, and by VXLAN between two leafs.
func bandwidthEvent() Event {
	var rows []Row
	for _, what := range []struct{ title, unit string }{{"TCP, 4 streams", "Gbit/s"}, {"datagrams of 64 octets, one sender", "1000/s"}} {
		for _, way := range []string{"on one bridge", "routed between leafs", "by VXLAN between leafs"} {
			rows = append(rows, Row{what.title + ", " + way, what.unit, Goal{Share: 0.97}})
		}
	}
	return Event{Name: "bandwidth", Spec: Spec{Spines: 2, Leafs: 3, Guests: 4}, Rows: rows, measure: bandwidth}
}

func bandwidth(ctx context.Context, f *Fabric) (samples []Sample, err error) {
	const span = time.Second
	last := fmt.Sprintf("g%d", f.spec.Leafs)
	// Guests are spread over the leafs in turns: the one after last is on leaf1, as g1 is.
	again := fmt.Sprintf("g%d", f.spec.Leafs+1)
	var ways [][2]probe.Host
	for _, names := range [][2]string{{"g1", again}, {"leaf1", f.lastLeaf()}, {"g1", last}} {
		pairs, err := f.between(names[0], names[1])
		if err != nil {
			return nil, err
		}
		ways = append(ways, pairs...)
	}
	for _, way := range ways {
		carried, err := probe.Bandwidth(ctx, way[0], way[1], 4, span)
		if err != nil {
			return nil, err
		}
		samples = append(samples, Sample{Value: carried.BitsPerSecond() / 1e9})
	}
	for _, way := range ways {
		packets, err := probe.Packets(ctx, way[0], way[1], 64, span)
		if err != nil {
			return nil, err
		}
		samples = append(samples, Sample{Value: packets / 1000})
	}
	return samples, nil
}
