package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// How long one member has for an answer before the next is asked, how long a
// request goes on looking for one that answers unless its context says
// otherwise, and how long between two rounds. An election takes up to a
// second, and a request should live through one.
const (
	attemptTimeout = 400 * time.Millisecond
	requestTimeout = 2500 * time.Millisecond
	betweenRounds  = 50 * time.Millisecond
)

var (
	// ErrUnavailable tells that no member answers, or that those that do have
	// no majority. What was asked for may have happened all the same.
	ErrUnavailable = errors.New("the store does not answer")
	// ErrNotFound tells that there is no such key.
	ErrNotFound = errors.New("no such key")
	// ErrConflict tells that the key is not as it was expected to be.
	ErrConflict = errors.New("the key was changed by another")
	// ErrSessionLost tells that a session's lease is no more.
	ErrSessionLost = errors.New("the session has ended")
	// ErrFull tells that the store takes no more until something is deleted.
	ErrFull = errors.New("the store is full")
)

// ClientConfig is how a client finds the store.
type ClientConfig struct {
	Endpoints []Endpoint
	Prefix    string // of all keys, see Prefix; callers do not see it
	// Volatile are the beginnings of keys that say who holds what at the
	// moment, apart from those of sessions: a backup leaves them alone.
	Volatile []string
	TLS      *tls.Config
	Log      *slog.Logger
}

// Client speaks to the store. It is safe for concurrent use. Nothing is
// connected before it is needed.
type Client struct {
	prefix    string
	volatile  []string
	endpoints []Endpoint
	clients   []*clientv3.Client
	log       *slog.Logger

	mu      sync.Mutex
	current int           // of clients: the one to ask first
	moved   chan struct{} // closed and replaced when current changes
	health  Health
	changed chan struct{}
}

// Open makes a client.
func Open(c ClientConfig) (*Client, error) {
	if len(c.Endpoints) == 0 {
		return nil, errors.New("open the store: it has no members")
	}
	client := &Client{prefix: c.Prefix, volatile: c.Volatile, endpoints: c.Endpoints, log: c.Log,
		moved: make(chan struct{}), changed: make(chan struct{}, 1)}
	for _, e := range c.Endpoints {
		one, err := clientv3.New(clientv3.Config{
			Endpoints: []string{e.URL},
			TLS:       c.TLS,
			Logger:    zap.NewNop(),
			// gRPC pings no more often than each 10 s, but what is sent and not
			// acknowledged for the timeout ends the connection (TCP_USER_TIMEOUT).
			DialKeepAliveTime:    10 * time.Second,
			DialKeepAliveTimeout: time.Second,
			MaxUnaryRetries:      1,
			DialOptions: []grpc.DialOption{
				grpc.WithConnectParams(grpc.ConnectParams{
					Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 500 * time.Millisecond},
					MinConnectTimeout: attemptTimeout,
				}),
				grpc.WithChainUnaryInterceptor(failFast), grpc.WithChainStreamInterceptor(failFastStream),
			},
		})
		if err != nil {
			client.Close()
			return nil, fmt.Errorf("open the store at %s: %w", e.URL, err)
		}
		client.clients = append(client.clients, one)
	}
	return client, nil
}

// failFast has a request to a member that cannot be reached fail at once, with
// the reason, where the library would wait: there are others to ask.
func failFast(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, call grpc.UnaryInvoker, options ...grpc.CallOption) error {
	return call(ctx, method, req, reply, conn, append(options, grpc.WaitForReady(false))...)
}

func failFastStream(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
	return open(ctx, desc, conn, method, append(options, grpc.WaitForReady(false))...)
}

// Close ends all connections. Sessions end when their lease does.
func (c *Client) Close() {
	for _, one := range c.clients {
		_ = one.Close()
	}
}

// attempt is one try of an operation. sure tells that no earlier try of the
// same may have had an effect.
type attempt func(ctx context.Context, member *clientv3.Client, sure bool) error

// do has one member after the other try until one answers.
func (c *Client) do(ctx context.Context, what string, try attempt) error {
	ctx, cancel := withBudget(ctx)
	defer cancel()
	problems := make([]error, len(c.clients))
	for n := 0; ; n++ {
		at, member := c.preferred()
		within := attemptTimeout << min(n/len(c.clients), 3)
		tryCtx, cancelTry := context.WithTimeout(clientv3.WithRequireLeader(ctx), within)
		err := try(tryCtx, member, n == 0)
		cancelTry()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil && errors.Is(context.Cause(ctx), context.Canceled):
			return fmt.Errorf("%s: %w", what, ctx.Err())
		case !elsewhere(err):
			return fmt.Errorf("%s: %w", what, known(err))
		}
		problems[at] = err
		c.avoid(at)
		if (n+1)%len(c.clients) == 0 && !pause(ctx, betweenRounds) || ctx.Err() != nil {
			return fmt.Errorf("%s: %w: %s", what, ErrUnavailable, c.describe(problems))
		}
	}
}

// withBudget gives a request that has no deadline one.
func withBudget(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, limited := ctx.Deadline(); limited {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, requestTimeout)
}

func (c *Client) preferred() (int, *clientv3.Client) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.current, c.clients[c.current]
}

// avoid has the next member asked first, unless another one is already.
func (c *Client) avoid(at int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current == at {
		c.move((at + 1) % len(c.clients))
	}
}

// move is called with mu held.
func (c *Client) move(to int) {
	if c.current == to {
		return
	}
	c.current = to
	close(c.moved)
	c.moved = make(chan struct{})
}

// elsewhere tells whether another member, or the same later, may do better.
func elsewhere(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || clientv3.IsConnCanceled(err) {
		return true
	}
	for _, e := range []error{rpctypes.ErrNoLeader, rpctypes.ErrLeaderChanged, rpctypes.ErrNotCapable, rpctypes.ErrStopped,
		rpctypes.ErrTimeout, rpctypes.ErrTimeoutDueToLeaderFail, rpctypes.ErrTimeoutDueToConnectionLost,
		rpctypes.ErrGRPCNotSupportedForLearner, rpctypes.ErrUnhealthy} {
		if errors.Is(err, e) {
			return true
		}
	}
	switch status.Code(err) { //nolint:exhaustive // the others are answers
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return true
	}
	var etcd rpctypes.EtcdError
	return errors.As(err, &etcd) && etcd.Code() == codes.Unavailable
}

// known puts our words in the place of etcd's where callers decide by them.
func known(err error) error {
	switch {
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		return ErrSessionLost
	case errors.Is(err, rpctypes.ErrNoSpace):
		return ErrFull
	}
	return err
}

// describe says of each member why it did not do.
func (c *Client) describe(problems []error) string {
	var texts []string
	for i, err := range problems {
		if err != nil {
			texts = append(texts, c.endpoints[i].Name+" "+reason(err))
		}
	}
	if len(texts) == 0 {
		return "no time was left to ask"
	}
	return strings.Join(slices.Compact(texts), ", ")
}

// reason is why a member did not do, in few words.
func reason(err error) string {
	text := err.Error()
	switch {
	case strings.Contains(text, "connection refused"):
		return "does not run"
	case strings.Contains(text, "unreachable"), strings.Contains(text, "no route to host"):
		return "cannot be reached"
	case strings.Contains(text, "no leader"), strings.Contains(text, "leader changed"):
		return "sees no majority"
	case strings.Contains(text, "certificate"), strings.Contains(text, "tls: "):
		return "is refused: " + text
	case errors.Is(err, context.DeadlineExceeded), status.Code(err) == codes.DeadlineExceeded,
		strings.Contains(text, "timed out"), strings.Contains(text, "timeout"):
		return "does not answer in time"
	case strings.Contains(text, "learner"):
		return "is a learner"
	}
	return text
}
