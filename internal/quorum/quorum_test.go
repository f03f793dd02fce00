package quorum

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"frond/internal/gateway"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cluster is a database whose leader a test names, and the agents beside its
// members.
type cluster struct {
	mu      sync.Mutex
	leader  string
	away    map[string]bool // members
	agents  map[string]local
	holders map[string][]gateway.Holding // by node
	twice   bool
}

var errAway = errors.New("it is away")

func newCluster() *cluster {
	return &cluster{away: make(map[string]bool), agents: make(map[string]local), holders: make(map[string][]gateway.Holding)}
}

func (c *cluster) lead(leader string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leader = leader
}

func (c *cluster) setAway(member string, away bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.away[member] = away
}

// wire is how one node speaks to the cluster.
type wire struct {
	*cluster
	self string
}

func (w wire) open(_ context.Context, address string) (member, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.away[address] {
		return nil, errAway
	}
	return voter{w.cluster, address}, nil
}

func (w wire) agent(member string) (local, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if a := w.agents[member]; a != nil {
		return a, nil
	}
	return nil, errAway
}

func (w wire) release(ctx context.Context, member string, segments []string) (map[string]Token, error) {
	a, err := w.agent(member)
	if err != nil {
		return nil, err
	}
	return a.Release(ctx, segments)
}

func (w wire) ready(_ context.Context, member string) error {
	a, err := w.agent(member)
	if err != nil {
		return err
	}
	return a.Ready()
}

func (w wire) serve(ctx context.Context, member string, l local) error {
	set := func(l local) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.agents[member] = l
	}
	set(l)
	<-ctx.Done()
	set(nil)
	return nil
}

type voter struct {
	*cluster
	address string
}

func (v voter) Leader(context.Context) (string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.away[v.address] {
		return "", errAway
	}
	return v.leader, nil
}

func (v voter) Members(context.Context) ([]Member, error) {
	return []Member{{1, "a:1", Voter}, {2, "b:1", Voter}, {3, "c:1", Voter}}, nil
}

func (v voter) Transfer(_ context.Context, to uint64) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.leader != v.address {
		return errors.New("it is not the leader")
	}
	v.leader = []string{"a:1", "b:1", "c:1"}[to-1]
	return nil
}

func (v voter) Close() error { return nil }

// addresses are the kernel of one node.
type addresses struct {
	*cluster
	node string
}

func (a addresses) Set(_ context.Context, list []gateway.Holding) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.holders[a.node] = slices.Clone(list)
	n := 0
	for _, held := range a.holders {
		n += len(held)
	}
	a.twice = a.twice || n > 1
	return nil
}

func (c *cluster) holder() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	for node, held := range c.holders {
		if len(held) > 0 {
			return node
		}
	}
	return ""
}

// agentOn is the agent of a node, which runs until stop.
func (c *cluster) agentOn(t *testing.T, node, dir string) (q *Quorum, stop func()) {
	t.Helper()
	q = New(Config{
		Node: node, Machine: "this", Dir: dir, Timing: DefaultTiming, Addresses: addresses{c, node}, Clock: gateway.Boottime,
		Wire: func(p Place) Wire { return wire{c, p.Address} },
	}, slog.New(slog.DiscardHandler))
	q.SetPlace(Place{Dir: "/nowhere", Address: node + ":1"})
	q.SetNames(map[string]string{"a": "a", "b": "b", "c": "c"})
	q.SetSegments([]gateway.Segment{{Name: "blue", Nodes: []string{"a", "b", "c"}}})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- q.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return q, stop
}

// comes waits until a node has the gateway, or nobody for the empty name.
func (c *cluster) comes(t *testing.T, node string) {
	t.Helper()
	for limit := time.Now().Add(20 * time.Second); time.Now().Before(limit); time.Sleep(5 * time.Millisecond) {
		if c.holder() == node {
			return
		}
	}
	t.Fatalf("the gateway is on %q instead of %q", c.holder(), node)
}

// leads waits until a member has been made the leader.
func (c *cluster) leads(t *testing.T, member string) {
	t.Helper()
	leader := func() string {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.leader
	}
	for limit := time.Now().Add(20 * time.Second); leader() != member; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("%s leads instead of %s", leader(), member)
		}
	}
}

func (c *cluster) never(t *testing.T) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.twice {
		t.Error("two have held it at once")
	}
}

// TestRun has the gateway follow the leader, be handed over by who stops or is
// drained, and go where there is an agent.
func TestRun(t *testing.T) {
	c := newCluster()
	dir := t.TempDir()
	a, stopA := c.agentOn(t, "a", dir)
	b, _ := c.agentOn(t, "b", t.TempDir())
	c.lead("a:1")
	c.comes(t, "a")
	if r := a.Report(); r.Gateways[0].Holder != "a" || r.Gateways[0].Why != "database leader" || r.Left <= 0 {
		t.Errorf("it says %+v", r)
	}
	c.setAway("a:1", true) // LXD is killed, and its agent is not
	c.lead("b:1")
	c.comes(t, "b")
	c.setAway("a:1", false)
	b.Drain(true) // has the leader be another: one that is ready
	c.comes(t, "a")
	b.Drain(false)
	stopA() // as one that is killed
	c.comes(t, "a")
	a, stopA = c.agentOn(t, "a", dir)
	time.Sleep(500 * time.Millisecond)
	c.comes(t, "a") // it goes on
	if err := a.Leave(t.Context()); err != nil {
		t.Error(err)
	}
	c.comes(t, "b")
	stopA()
	c.lead("c:1") // whose node has no agent
	c.leads(t, "b:1")
	c.comes(t, "b")
	c.setAway("a:1", true)
	c.setAway("c:1", true) // no majority
	c.comes(t, "")
	says := func() bool {
		r := b.Report()
		return len(r.Conditions) == 1 && strings.Contains(r.Conditions[0].Text, "a:1: it is away")
	}
	for limit := time.Now().Add(10 * time.Second); !says() && time.Now().Before(limit); time.Sleep(5 * time.Millisecond) {
	}
	if !says() {
		t.Errorf("it says %+v", b.Report().Conditions)
	}
	c.never(t)
}

// TestHandOver speaks by TLS to the agent beside a member, and to nobody else's.
func TestHandOver(t *testing.T) {
	i := identities(t)
	const member = "127.0.0.77:8443"
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	work.Go(func() {
		if err := (Dialer{i}).serve(ctx, member, giving{}); err != nil {
			t.Error(err)
		}
	})
	defer work.Wait()
	defer cancel()
	var tokens map[string]Token
	var err error
	for limit := time.Now().Add(10 * time.Second); time.Now().Before(limit); time.Sleep(5 * time.Millisecond) {
		if tokens, err = (Dialer{i}).release(ctx, member, []string{"blue"}); err == nil {
			break
		}
	}
	if err != nil || tokens["blue"] != (Token{Age: time.Second, Term: 7}) {
		t.Errorf("%+v, %v", tokens, err)
	}
	if _, err := (Dialer{i}).release(ctx, member, nil); err == nil || !strings.Contains(err.Error(), "nothing is asked for") {
		t.Errorf("what the agent refuses: %v", err)
	}
	if err := (Dialer{i}).ready(ctx, member); err == nil || !strings.Contains(err.Error(), "drained") {
		t.Errorf("one that is not ready: %v", err)
	}
	other := identities(t)
	if err := (Dialer{other}).ready(ctx, member); err == nil || !strings.Contains(err.Error(), "cluster.crt") {
		t.Errorf("another cluster's agent: %v", err)
	}
	// One with a certificate of its own that knows the cluster's, which anybody can see.
	config, err := i.member()
	must(t, err)
	conn, err := dialTLS(ctx, "127.0.0.77:7180", config)
	must(t, err)
	defer func() { _ = conn.Close() }()
	_, _ = conn.Write([]byte("GET /v1/gateways/ready HTTP/1.1\r\nHost: x\r\n\r\n"))
	if n, err := conn.Read(make([]byte, 1)); err == nil || n > 0 {
		t.Error("who has not the cluster's key is answered")
	}
}

type giving struct{}

func (giving) Release(_ context.Context, segments []string) (map[string]Token, error) {
	if len(segments) == 0 {
		return nil, errors.New("nothing is asked for")
	}
	return map[string]Token{segments[0]: {Age: time.Second, Term: 7}}, nil
}

func (giving) Ready() error { return errDrained }
