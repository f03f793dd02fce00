package lab

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"frond/internal/api"
	"frond/internal/status"
	"frond/internal/trace"
)

// Trace follows a packet from a node or a guest to another one, or to any MAC
// or IP address, by asking the agents on its way. It returns a
// trace.InputError for a text that can be nobody's.
func (l *Lab) Trace(ctx context.Context, from, to string) (trace.Trace, error) {
	directory, err := l.directory(ctx)
	if err != nil {
		return trace.Trace{}, err
	}
	begin, err := directory.From(from)
	if err != nil {
		return trace.Trace{}, err
	}
	end, err := directory.To(to, begin.Segment)
	if err != nil {
		return trace.Trace{}, err
	}
	return trace.Walk(ctx, agents{l}, begin, end)
}

// directory is what the document says of nodes, and all agents together of guests.
func (l *Lab) directory(ctx context.Context) (trace.Directory, error) {
	f, err := l.Fabric()
	if err != nil {
		return trace.Directory{}, err
	}
	d := trace.Directory{Names: make(map[string]string)}
	for _, n := range f.Nodes {
		d.Nodes = append(d.Nodes, status.Host{
			Name: n.Name, Role: string(n.Role), Loopback: n.Loopback.String(), Loopback6: n.Loopback6.String(),
		})
	}
	for _, g := range l.Topology.Guests {
		d.Names[g.Name] = g.MAC
	}
	d.MACs = l.stations(ctx)
	return d, nil
}

// stations asks all agents at once whom they know. An agent that does not
// answer is missed on the way, if at all.
func (l *Lab) stations(ctx context.Context) []status.MAC {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	known := make([][]status.MAC, len(l.Topology.Nodes))
	var asked sync.WaitGroup
	for i, n := range l.Topology.Nodes {
		asked.Go(func() { known[i], _ = api.NewClient(l.Socket(n.Name)).MACs(ctx, "") })
	}
	asked.Wait()
	return slices.Concat(known...)
}

// agents are those of a lab: each can be asked from everywhere.
type agents struct{ lab *Lab }

// Forwarding asks a node's agent.
func (a agents) Forwarding(ctx context.Context, node string, to status.Destination) (status.Forwarding, error) {
	if err := a.lab.Topology.checkNode(node); err != nil {
		return status.Forwarding{}, err
	}
	if _, ok := a.lab.AgentPID(node); !ok {
		return status.Forwarding{}, fmt.Errorf("no agent runs: \"frond lab start %s\" starts one", node)
	}
	return api.NewClient(a.lab.Socket(node)).Forwarding(ctx, to)
}
