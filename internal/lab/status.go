package lab

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"frond/internal/api"
	"frond/internal/status"
)

// NodeStatus is what a node says of itself, and what it should.
type NodeStatus struct {
	Node     Node
	PID      int // 0: no agent runs
	Snapshot status.Snapshot
	Err      error // why there is no Snapshot
	Expected int   // peers, by the cables that are not cut or muted
}

// Established counts the peers that the node has a session with.
func (s NodeStatus) Established() (n int) {
	for _, p := range s.Snapshot.Peers {
		if p.State == "established" {
			n++
		}
	}
	return n
}

// Whole tells that the node's agent is ready and has all its peers.
func (s NodeStatus) Whole() bool {
	return s.Err == nil && s.Snapshot.Ready && s.Established() == s.Expected
}

// answerTime is how long an agent may take to say how it is.
const answerTime = 2 * time.Second

// Status asks all agents at once. The result is in the topology's order.
func (l *Lab) Status(ctx context.Context) ([]NodeStatus, error) {
	states, err := l.States()
	if err != nil {
		return nil, err
	}
	whole := l.Topology.Whole(states)
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	nodes := make([]NodeStatus, len(l.Topology.Nodes))
	var asked sync.WaitGroup
	for i, n := range l.Topology.Nodes {
		nodes[i] = NodeStatus{Node: n, Expected: whole.Degree(n.Name)}
		asked.Go(func() { l.ask(ctx, &nodes[i]) })
	}
	asked.Wait()
	return nodes, nil
}

func (l *Lab) ask(ctx context.Context, s *NodeStatus) {
	pid, ok := l.AgentPID(s.Node.Name)
	if !ok {
		s.Err = fmt.Errorf("no agent runs: \"frond lab start %s\" starts one", s.Node.Name)
		if last := l.lastWords(s.Node.Name); last != "" {
			s.Err = fmt.Errorf("%w; its log ends with: %s", s.Err, last)
		}
		return
	}
	s.PID = pid
	s.Snapshot, s.Err = api.NewClient(l.Socket(s.Node.Name)).Status(ctx)
}

// lastWords is the last line of a node's log.
func (l *Lab) lastWords(node string) string {
	file, err := os.Open(l.Log(node))
	if err != nil {
		return ""
	}
	defer func() { _ = file.Close() }()
	var tail [1 << 10]byte
	info, err := file.Stat()
	if err != nil {
		return ""
	}
	n, _ := file.ReadAt(tail[:], max(0, info.Size()-int64(len(tail))))
	lines := strings.Split(strings.TrimSpace(string(tail[:n])), "\n")
	return lines[len(lines)-1]
}

const askInterval = 50 * time.Millisecond

// Settle waits until every node has all its peers, at most until ctx ends or
// an agent does; it returns how the nodes are then.
func (l *Lab) Settle(ctx context.Context, progress Progress) ([]NodeStatus, error) {
	tick := time.NewTicker(askInterval)
	defer tick.Stop()
	for {
		// Not ended by ctx: the last answers are wanted in any case.
		nodes, err := l.Status(context.WithoutCancel(ctx))
		if err != nil {
			return nil, err
		}
		whole, dead := 0, false
		for _, n := range nodes {
			if n.Whole() {
				whole++
			}
			dead = dead || n.PID == 0
		}
		progress("waiting for all peers", whole, len(nodes))
		if whole == len(nodes) || dead || ctx.Err() != nil {
			return nodes, nil
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}
