package uplink

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// Verdict is what is known of a router.
type Verdict int

// The verdicts.
const (
	Unknown Verdict = iota // nobody was asked often enough
	Answers
	Silent
)

const (
	// probeInterval is the time between two questions.
	probeInterval = 200 * time.Millisecond
	// misses is after how many unanswered questions in a row a router counts
	// as silent, and returns after how many answers in a row a silent one as
	// back: a path that loses every other packet is none.
	misses  = 3
	returns = 3
)

// count turns answers into a verdict.
type count struct {
	verdict Verdict
	streak  int // of what speaks against the verdict
	reason  string
}

// observe takes one question: err tells why there was no answer. The first
// answer of all is enough.
func (c *count) observe(err error) {
	if (err == nil) == (c.verdict == Answers) && c.verdict != Unknown {
		c.streak = 0
		return
	}
	if err == nil && c.verdict == Unknown {
		*c = count{verdict: Answers}
		return
	}
	c.streak++
	switch {
	case err != nil && c.streak >= misses:
		*c = count{verdict: Silent, reason: err.Error()}
	case err == nil && c.streak >= returns:
		*c = count{verdict: Answers}
	}
}

// target is whom to ask, and from where.
type target struct {
	family         Family
	port           string
	index          int
	mac            string
	router, source netip.Addr
}

func (t target) device() (*net.Interface, error) {
	mac, err := net.ParseMAC(t.mac)
	if err != nil {
		return nil, fmt.Errorf("port %s cannot be asked over: %w", t.port, err)
	}
	return &net.Interface{Name: t.port, Index: t.index, MTU: readSize, HardwareAddr: mac}, nil
}

// readSize is more than any answer has, in bytes.
const readSize = 1500

// result is what came of one question.
type result struct {
	target target
	err    error
}

// asker is a socket over which one router is asked.
type asker interface {
	// ask sends the question.
	ask() error
	// answered waits for an answer until a deadline.
	answered(deadline time.Time) error
	close() error
}

// errSilent tells that nothing came back in time.
var errSilent = errors.New("it does not answer")

// prober asks a router again and again.
type prober struct {
	target target
	count  count
	cancel context.CancelFunc
	ended  chan struct{}
}

func startProber(ctx context.Context, t target, open opener, results chan<- result) *prober {
	ctx, cancel := context.WithCancel(ctx)
	p := &prober{target: t, cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		t.probe(ctx, open, results)
	}()
	return p
}

func (p *prober) stop() {
	p.cancel()
	<-p.ended
}

// probe asks until ctx ends. A socket that fails is opened anew.
func (t target) probe(ctx context.Context, open opener, results chan<- result) {
	var a asker
	defer func() {
		if a != nil {
			_ = a.close()
		}
	}()
	tick := time.NewTicker(probeInterval)
	defer tick.Stop()
	for {
		var err error
		if a == nil {
			a, err = open(t)
		}
		if a != nil {
			err = askOnce(ctx, a)
			if err != nil && !errors.Is(err, errSilent) {
				_ = a.close()
				a = nil
			}
		}
		select {
		case <-ctx.Done():
			return
		case results <- result{t, err}:
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// askOnce asks and waits for an answer, for less time than there is between
// two questions.
func askOnce(ctx context.Context, a asker) error {
	if err := a.ask(); err != nil {
		return err
	}
	limit := time.Now().Add(probeInterval * 3 / 4)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return a.answered(limit)
}

// opener opens a socket to ask a router over.
type opener func(target) (asker, error)

func openAsker(t target) (asker, error) {
	if t.family == IPv4 {
		return openARP(t)
	}
	return openND(t)
}
