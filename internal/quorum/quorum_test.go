package quorum

import (
	"context"
	"errors"
	"fmt"
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
	mu       sync.Mutex
	leader   string
	away     map[string]bool // members
	register []registered
	agents   map[string]local
	holders  map[string][]gateway.Holding // by node
	twice    bool
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

func (w wire) find(context.Context, string) (string, error) { return "", errAway }

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

func (w wire) mark(_ context.Context, name, text string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.register {
		if w.register[i].name == name {
			w.register[i].mark = text
		}
	}
	return nil
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

func (v voter) Registered(context.Context) ([]registered, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.leader != v.address {
		return nil, errors.New("it is not the leader")
	}
	return slices.Clone(v.register), nil
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
	seen := make(map[string]bool)
	for _, held := range a.holders {
		for _, h := range held {
			a.twice = a.twice || seen[h.Segment]
			seen[h.Segment] = true
		}
	}
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

// reports waits until a quorum says what is wanted.
func reports(t *testing.T, q *Quorum, what string, ok func(gateway.Report) bool) {
	t.Helper()
	for limit := time.Now().Add(20 * time.Second); !ok(q.Report()); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("it does not say %s: %+v", what, q.Report())
		}
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
	reports(t, a, "that it holds", func(r gateway.Report) bool {
		return r.Gateways[0].Holder == "a" && r.Gateways[0].Why == "database leader" && r.Left > 0
	})
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
	reports(t, b, "who is away", func(r gateway.Report) bool {
		return len(r.Conditions) == 1 && strings.Contains(r.Conditions[0].Text, "a:1: it is away")
	})
	if c.doubled() {
		t.Error("two have held it at once")
	}
}

// TestHandOver speaks by TLS to the agent beside a member, and to nobody else's.
func TestHandOver(t *testing.T) {
	i := identities(t)
	const member = "127.0.0.77:8443"
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	work.Go(func() {
		if err := newDialer(i).serve(ctx, member, giving{}); err != nil {
			t.Error(err)
		}
	})
	defer work.Wait()
	defer cancel()
	var tokens map[string]Token
	var err error
	for limit := time.Now().Add(10 * time.Second); time.Now().Before(limit); time.Sleep(5 * time.Millisecond) {
		if tokens, err = newDialer(i).release(ctx, member, []string{"blue"}); err == nil {
			break
		}
	}
	if err != nil || tokens["blue"] != (Token{Age: time.Second, Term: 7}) {
		t.Errorf("%+v, %v", tokens, err)
	}
	if _, err := newDialer(i).release(ctx, member, nil); err == nil || !strings.Contains(err.Error(), "nothing is asked for") {
		t.Errorf("what the agent refuses: %v", err)
	}
	if err := newDialer(i).ready(ctx, member); err == nil || !strings.Contains(err.Error(), "drained") {
		t.Errorf("one that is not ready: %v", err)
	}
	other := identities(t)
	if err := newDialer(other).ready(ctx, member); err == nil || !strings.Contains(err.Error(), "cluster.crt") {
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

// TestByHash spreads gateways over those that are online, and moves them with
// the database's word, never while another may have them.
func TestByHash(t *testing.T) {
	c := newCluster()
	now := int64(1000)
	beat := func(heartbeats ...int64) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.register = nil
		for i, at := range heartbeats {
			node := []string{"a", "b", "c"}[i]
			c.register = append(c.register, registered{node, node + ":1", at, ""})
		}
	}
	beat(now, now, now)
	c.lead("a:1")
	var all []gateway.Segment
	for i := range 20 {
		all = append(all, gateway.Segment{Name: fmt.Sprint("s", i), Nodes: []string{"a", "b", "c"}})
	}
	agents, stops := make(map[string]*Quorum), make(map[string]func())
	for _, node := range []string{"a", "b", "c"} {
		q, stop := c.agentOn(t, node, t.TempDir())
		q.SetSpread(ByHash)
		q.SetSegments(all)
		agents[node], stops[node] = q, stop
	}
	whole := func(but string) func(map[string][]string) bool {
		return func(held map[string][]string) bool {
			n := 0
			for _, segments := range held {
				n += len(segments)
			}
			return n == len(all) && len(held[but]) == 0 && (but != "" || len(held["a"]) > 0 && len(held["b"]) > 0 && len(held["c"]) > 0)
		}
	}
	c.held(t, "spread over all", whole(""))
	beat(now+20, now, now+20)
	c.held(t, "without one that is away", whole("b"))
	c.setAway("a:1", true) // the others elect
	c.lead("c:1")
	time.Sleep(4 * time.Second)
	c.held(t, "where they were: its agent goes on while it can ask the voters", whole("b"))
	beat(now+40, now+40, now+40)
	c.held(t, "spread over all again", whole(""))
	agents["b"].Drain(true)
	c.held(t, "without one that is drained", whole("b"))
	agents["b"].Drain(false)
	c.held(t, "spread over all once more", whole(""))
	must(t, agents["b"].Leave(t.Context()))
	c.held(t, "without one that has left", whole("b"))
	stops["b"]()
	stops["a"]() // is killed, and its kernel's lifetimes end
	must(t, addresses{c, "a"}.Set(t.Context(), nil))
	c.held(t, "without one that has no agent", func(held map[string][]string) bool { return len(held["c"]) == len(all) })
	c.setAway("c:1", true)
	c.held(t, "nowhere without a majority", func(held map[string][]string) bool { return len(held) == 0 })
	if c.doubled() {
		t.Error("a gateway was on two at once")
	}
}

// held waits until the segments are held as they should be, by node.
func (c *cluster) held(t *testing.T, what string, ok func(map[string][]string) bool) {
	t.Helper()
	now := func() map[string][]string {
		c.mu.Lock()
		defer c.mu.Unlock()
		held := make(map[string][]string)
		for node, list := range c.holders {
			for _, h := range list {
				held[node] = append(held[node], h.Segment)
			}
		}
		return held
	}
	for limit := time.Now().Add(20 * time.Second); !ok(now()); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("%s: %v", what, now())
		}
	}
}

func (c *cluster) doubled() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.twice
}
