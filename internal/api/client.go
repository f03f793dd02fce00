package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"

	"frond/internal/status"
)

// ErrNoAgent tells that nobody answers on the socket.
var ErrNoAgent = errors.New("no agent answers")

// all is the prefix that asks for every route.
var all netip.Prefix

// Client asks one agent. It is safe for concurrent use and holds no connection
// between questions.
type Client struct {
	url     string // of the agent, without a path
	where   string // the agent, for a person
	http    http.Client
	explain func(error) error // what a failure to ask means for the one who asked
}

// NewClient returns a client of the agent that answers on the unix socket.
// Whether one does shows with the first question.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	return &Client{
		url:     "http://frond",
		where:   socket,
		http:    http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}, Timeout: answerTimeout},
		explain: func(err error) error { return explainSocket(socket, err) },
	}
}

// Status asks how the node is.
func (c *Client) Status(ctx context.Context) (status.Snapshot, error) {
	var body status.Snapshot
	err := c.ask(ctx, http.MethodGet, statusPath, &body)
	return body, err
}

// Peers asks for the ports of the fabric and who is behind them.
func (c *Client) Peers(ctx context.Context) ([]status.Peer, error) {
	var body Peers
	err := c.ask(ctx, http.MethodGet, peersPath, &body)
	return body.Peers, err
}

// Routes asks for the routes inside prefix, for all with the zero Prefix.
func (c *Client) Routes(ctx context.Context, prefix netip.Prefix) ([]status.Route, error) {
	path := routesPath
	if prefix != all {
		path += "?prefix=" + url.QueryEscape(prefix.String())
	}
	var body Routes
	err := c.ask(ctx, http.MethodGet, path, &body)
	return body.Routes, err
}

// Segments asks for the segments that the node takes part in.
func (c *Client) Segments(ctx context.Context) ([]status.Segment, error) {
	var body Segments
	err := c.ask(ctx, http.MethodGet, segmentsPath, &body)
	return body.Segments, err
}

// MACs asks for the stations of a segment, of all with the empty name.
func (c *Client) MACs(ctx context.Context, segment string) ([]status.MAC, error) {
	path := macsPath
	if segment != "" {
		path += "?segment=" + url.QueryEscape(segment)
	}
	var body MACs
	err := c.ask(ctx, http.MethodGet, path, &body)
	return body.MACs, err
}

// Guard asks for what peers and guests do that the document does not let them.
func (c *Client) Guard(ctx context.Context) (status.Guard, error) {
	var body status.Guard
	err := c.ask(ctx, http.MethodGet, guardPath, &body)
	return body, err
}

// EVPN asks for the EVPN routes that the node tells and has been told.
func (c *Client) EVPN(ctx context.Context) ([]status.EVPNRoute, error) {
	var body EVPN
	err := c.ask(ctx, http.MethodGet, evpnPath, &body)
	return body.Routes, err
}

// Thaw lets a frozen MAC or address move again before its time, on one segment,
// on all with the empty name.
func (c *Client) Thaw(ctx context.Context, station, segment string) error {
	query := url.Values{"station": {station}}
	if segment != "" {
		query.Set("segment", segment)
	}
	return c.ask(ctx, http.MethodPost, thawPath+"?"+query.Encode(), nil)
}

// Gateways asks for the gateways of all segments of the fabric.
func (c *Client) Gateways(ctx context.Context) ([]status.Gateway, error) {
	var body Gateways
	err := c.ask(ctx, http.MethodGet, gatewaysPath, &body)
	return body.Gateways, err
}

// Hypervisor asks for what LXD or Incus says of its instances on the node.
func (c *Client) Hypervisor(ctx context.Context) (status.Hypervisor, error) {
	var body status.Hypervisor
	err := c.ask(ctx, http.MethodGet, hypervisorPath, &body)
	return body, err
}

// Leases asks for the addresses of a segment's guests, of all segments' for the
// empty name.
func (c *Client) Leases(ctx context.Context, segment string) ([]status.Lease, error) {
	path := leasesPath
	if segment != "" {
		path += "?" + url.Values{"segment": {segment}}.Encode()
	}
	var body Leases
	err := c.ask(ctx, http.MethodGet, path, &body)
	return body.Leases, err
}

// Release ends the lease of an address that the node has given.
func (c *Client) Release(ctx context.Context, address string) error {
	return c.ask(ctx, http.MethodPost, releasePath+"?"+url.Values{"address": {address}}.Encode(), nil)
}

// Drain has elected gateways leave a node and not come back, or with false lets
// them come again. It returns when all nodes are told.
func (c *Client) Drain(ctx context.Context, node string, drained bool) error {
	path := undrainPath
	if drained {
		path = drainPath
	}
	return c.ask(ctx, http.MethodPost, path+"?"+url.Values{"node": {node}}.Encode(), nil)
}

// Nodes asks for the nodes of the fabric.
func (c *Client) Nodes(ctx context.Context) ([]status.Host, error) {
	var body Nodes
	err := c.ask(ctx, http.MethodGet, nodesPath, &body)
	return body.Nodes, err
}

// Forwarding asks what the node's kernel does with a packet to a destination.
func (c *Client) Forwarding(ctx context.Context, to status.Destination) (status.Forwarding, error) {
	var body status.Forwarding
	err := c.ask(ctx, http.MethodGet, forwardingPath+"?"+forwardingQuery(to), &body)
	return body, err
}

// Reload makes the agent read its document again. An error says what is wrong
// with the document; the old one is then still in force.
func (c *Client) Reload(ctx context.Context) error {
	return c.ask(ctx, http.MethodPost, reloadPath, nil)
}

// Down makes the agent withdraw everything that is frond's, and stop.
func (c *Client) Down(ctx context.Context) error {
	return c.ask(ctx, http.MethodPost, downPath, nil)
}

func (c *Client) ask(ctx context.Context, method, path string, body any) error {
	request, err := http.NewRequestWithContext(ctx, method, c.url+path, http.NoBody)
	if err != nil {
		return fmt.Errorf("ask for %s: %w", path, err)
	}
	answer, err := c.http.Do(request)
	if err != nil {
		return c.failed(err)
	}
	defer func() { _ = answer.Body.Close() }()
	content := json.NewDecoder(io.LimitReader(answer.Body, maxAnswer))
	if answer.StatusCode >= http.StatusBadRequest {
		return refusal(answer, content)
	}
	if body == nil {
		return nil
	}
	if err := content.Decode(body); err != nil {
		return fmt.Errorf("the answer on %s to %s is not understood, is it an agent of another version? %w", c.where, path, err)
	}
	return nil
}

// refusal is the error that the agent answered with.
func refusal(answer *http.Response, content *json.Decoder) error {
	var why failure
	if err := content.Decode(&why); err != nil || why.Error == "" {
		return fmt.Errorf("the agent answered %s", answer.Status)
	}
	return errors.New(why.Error)
}

// failed says what a failure to ask means for the one who asked.
func (c *Client) failed(err error) error {
	if errors.Is(err, context.Canceled) {
		return context.Canceled
	}
	if said := c.explain(err); said != nil {
		return said
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return fmt.Errorf("the agent on %s does not answer in time", c.where)
	}
	var where *url.Error
	if errors.As(err, &where) {
		err = where.Err
	}
	return fmt.Errorf("ask the agent on %s: %w", c.where, err)
}

// explainSocket knows what only a socket has; nil: it is none of that.
func explainSocket(socket string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w on %s: is it running? (systemctl status frond)", ErrNoAgent, socket)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s may not be opened by this user: be root, or a member of the group %s", socket, Group)
	}
	return nil
}
