package quorum

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

// Dialer opens connections to members of the cluster that LXD or Incus keeps
// its database with.
type Dialer struct {
	Identity Identity
	agents   *http.Transport // to other agents
}

// Dial is how the members of a cluster are spoken to that this node's is one of.
func Dial(p Place) Wire { return newDialer(Identity{p.Dir}) }

func newDialer(i Identity) Dialer {
	return Dialer{i, &http.Transport{
		IdleConnTimeout: idleTime / 2, MaxIdleConnsPerHost: 1,
		DialTLSContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			config, err := i.cluster()
			if err != nil {
				return nil, err
			}
			return dialTLS(ctx, address, config)
		},
	}}
}

// upgrade is what LXD and Incus want before they speak dqlite
// (internal/server/cluster/gateway.go in both).
const upgrade = "POST /internal/database HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: dqlite\r\nX-Dqlite-Version: 1\r\nContent-Length: 0\r\n\r\n"

// open connects to the member at an address.
func (d Dialer) open(ctx context.Context, address string) (member, error) {
	config, err := d.Identity.member()
	if err != nil {
		return nil, err
	}
	conn, err := dialTLS(ctx, address, config)
	if err != nil {
		return nil, fmt.Errorf("reach it: %w", err)
	}
	m := &dqlite{conn: conn}
	err = m.within(ctx, func() error { return switchOver(conn, address) })
	if err == nil {
		err = m.begin(ctx)
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("ask for its database: %w", err)
	}
	return m, nil
}

// find has the member at an address find out who leads: one without a vote asks
// those that have one, of whom LXD keeps a list.
func (d Dialer) find(ctx context.Context, address string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address+"/internal/database", nil)
	if err != nil {
		return "", err
	}
	request.Header.Set("X-Dqlite-Version", "1")
	members := &http.Transport{DisableKeepAlives: true, DialTLSContext: func(ctx context.Context, _, address string) (net.Conn, error) {
		config, err := d.Identity.member()
		if err != nil {
			return nil, err
		}
		return dialTLS(ctx, address, config)
	}}
	response, err := members.RoundTrip(request)
	if err != nil {
		return "", fmt.Errorf("have it find out who leads: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(response.Body, largestHandOver))
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, clip(string(bytes.TrimSpace(text))))
	}
	var found struct {
		Leader string `json:"leader"`
	}
	if err == nil {
		err = json.Unmarshal(text, &found)
	}
	if err != nil {
		return "", fmt.Errorf("it does not find out who leads: %w", err)
	}
	return found.Leader, nil
}

// switchOver has a member speak dqlite from now on.
func switchOver(conn net.Conn, address string) error {
	if _, err := fmt.Fprintf(conn, upgrade, address); err != nil {
		return err
	}
	const headers = 16 << 10 // of the answer, octets
	reader := bufio.NewReader(&limited{conn, headers})
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		return err
	}
	_ = response.Body.Close()
	if response.StatusCode == http.StatusForbidden {
		return errors.New("it does not take this node's member for one of its cluster (403 Forbidden): was that removed from it?")
	}
	if response.StatusCode != http.StatusSwitchingProtocols || !strings.EqualFold(response.Header.Get("Upgrade"), "dqlite") {
		return fmt.Errorf("it does not let its database be asked: %s", response.Status)
	}
	if reader.Buffered() > 0 {
		return errors.New("it speaks before it is asked: that is not dqlite")
	}
	return nil
}

// limited is a connection of which only so much may be read.
type limited struct {
	net.Conn
	left int
}

func (l *limited) Read(p []byte) (int, error) {
	if l.left <= 0 {
		return 0, errors.New("the answer is too long")
	}
	n, err := l.Conn.Read(p[:min(len(p), l.left)])
	l.left -= n
	return n, err
}
