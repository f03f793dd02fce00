package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"golang.org/x/net/websocket"
)

// Client asks LXD or Incus over its socket.
type Client struct {
	socket string
	http   http.Client
	agent  string // the User-Agent that asks for this member's own instances
}

// largestAnswer bounds what is read of one answer, in bytes: two hundred
// instances take half a MiB.
const largestAnswer = 32 << 20

// NewClient is for the hypervisor that answers at a socket. It connects for
// each question: that is cheap, and nothing is left open.
func NewClient(socket string) *Client {
	c := &Client{socket: socket}
	c.http.Transport = &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) },
		DisableKeepAlives: true,
	}
	return c
}

func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", c.socket)
}

// notifiers are the User-Agents by which members of a cluster ask each other.
// Asked by one of these, a member lists its own instances alone and asks
// nobody else, so that the answer does not wait for one that is away.
var notifiers = map[string]string{"LXD": "lxd-cluster-notifier", "Incus": "incus-cluster-notifier"}

// Server tells who answers.
func (c *Client) Server(ctx context.Context) (Server, error) {
	metadata, err := c.get(ctx, "/1.0", nil, "")
	if err != nil {
		return Server{}, err
	}
	s, err := decodeServer(metadata)
	if err == nil {
		c.agent = notifiers[s.Product]
	}
	return s, err
}

// Instances are those on this member.
func (c *Client) Instances(ctx context.Context) ([]Instance, []Key, error) {
	metadata, err := c.get(ctx, "/1.0/instances", url.Values{"recursion": {"1"}, "all-projects": {"true"}}, c.agent)
	if err != nil {
		return nil, nil, err
	}
	return decodeInstances(metadata, maxInstances)
}

// Everywhere are those on all members.
func (c *Client) Everywhere(ctx context.Context) ([]Instance, []Key, error) {
	metadata, err := c.get(ctx, "/1.0/instances", url.Values{"recursion": {"1"}, "all-projects": {"true"}}, "")
	if err != nil {
		return nil, nil, err
	}
	return decodeInstances(metadata, maxCluster)
}

// Keys are the names of the instances on this member.
func (c *Client) Keys(ctx context.Context) ([]Key, error) {
	metadata, err := c.get(ctx, "/1.0/instances", url.Values{"all-projects": {"true"}}, c.agent)
	if err != nil {
		return nil, err
	}
	return decodeKeys(metadata, maxInstances)
}

// Names are those of the instances on all members.
func (c *Client) Names(ctx context.Context) ([]Key, error) {
	metadata, err := c.get(ctx, "/1.0/instances", url.Values{"all-projects": {"true"}}, "")
	if err != nil {
		return nil, err
	}
	return decodeKeys(metadata, maxCluster)
}

// Instance is one by its name.
func (c *Client) Instance(ctx context.Context, key Key) (Instance, error) {
	metadata, err := c.get(ctx, "/1.0/instances/"+url.PathEscape(key.Name), url.Values{"project": {key.Project}}, "")
	if err != nil {
		return Instance{}, err
	}
	return decodeInstance(metadata)
}

func (c *Client) get(ctx context.Context, path string, query url.Values, agent string) ([]byte, error) {
	q := question{method: http.MethodGet, path: path, query: query}
	if agent != "" {
		q.header = http.Header{"User-Agent": {agent}}
	}
	_, body, err := c.do(ctx, q)
	if err != nil {
		return nil, err
	}
	return open(body)
}

// question is what is asked of the API.
type question struct {
	method, path string
	query        url.Values
	header       http.Header
	body         io.Reader // nil: none
}

// do asks and returns the answer's header and body, whatever its status says: an
// error is in the body too.
func (c *Client) do(ctx context.Context, q question) (http.Header, []byte, error) {
	target := url.URL{Scheme: "http", Host: "lxd", Path: q.path, RawQuery: q.query.Encode()}
	request, err := http.NewRequestWithContext(ctx, q.method, target.String(), q.body)
	if err != nil {
		return nil, nil, err
	}
	maps.Copy(request.Header, q.header)
	response, err := c.http.Do(request)
	if err != nil {
		return nil, nil, cause(err)
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(response.Body, largestAnswer+1))
	switch {
	case err != nil:
		return nil, nil, fmt.Errorf("read the answer: %w", err)
	case len(answer) > largestAnswer:
		return nil, nil, fmt.Errorf("the answer is longer than %d MiB", largestAnswer>>20)
	}
	return response.Header, answer, nil
}

// cause is the error without the address that nobody knows. What is none of the
// socket's has come out of the answer.
func cause(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	var socket *net.OpError
	if errors.As(err, &socket) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return err
	}
	return noAPI(err)
}

const (
	// largestEvent bounds a message, in bytes.
	largestEvent = 1 << 20
	// handshake is how long the hypervisor may take to begin telling events.
	handshake = 10 * time.Second
	// silence is how long a connection may stay silent: LXD and Incus both
	// send a ping every ten seconds.
	silence = 25 * time.Second
)

// Events tells what happens to instances, of the whole cluster.
func (c *Client) Events(ctx context.Context, ready func(), tell func(Event)) error {
	raw, err := c.dial(ctx)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = raw.Close() })()
	defer func() { _ = raw.Close() }()
	conn := &attentive{Conn: raw, patience: handshake}
	config, err := websocket.NewConfig("ws://lxd/1.0/events?type=lifecycle&all-projects=true", "http://lxd")
	if err != nil {
		return err
	}
	ws, err := websocket.NewClient(config, conn)
	if err != nil {
		return fmt.Errorf("ask for events: %w", conn.cause(err))
	}
	conn.patience = silence
	ws.MaxPayloadBytes = largestEvent
	ready()
	for {
		var message []byte
		if err := websocket.Message.Receive(ws, &message); err != nil {
			return fmt.Errorf("hear events: %w", conn.cause(err))
		}
		if e, ok := decodeEvent(message); ok {
			tell(e)
		}
	}
}

// attentive is a connection on which silence is an error.
type attentive struct {
	net.Conn
	patience time.Duration
}

// cause says what a deadline that has passed means.
func (a *attentive) cause(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return noAnswer(a.patience)
	}
	return err
}

func (a *attentive) Read(p []byte) (int, error) {
	if err := a.SetReadDeadline(time.Now().Add(a.patience)); err != nil {
		return 0, err
	}
	return a.Conn.Read(p)
}
