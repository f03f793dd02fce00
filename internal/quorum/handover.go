package quorum

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/net/netutil"
)

// Port is where agents ask each other to let go of gateways, on the address
// that their members of the cluster have.
const Port = 7180

const (
	releasePath = "/v1/gateways/release"
	readyPath   = "/v1/gateways/ready"
	// handOverTime bounds how long an agent may take to let go.
	handOverTime = time.Second
	// idleTime is how long a connection between agents is kept for the next question.
	idleTime = 10 * time.Second
	// largestHandOver bounds a question or an answer, in bytes: some thousand
	// segments.
	largestHandOver = 256 << 10
	// mostPeers bounds who may ask at a time.
	mostPeers = 32
	// listenPause is how long after an address could not be listened at to try again.
	listenPause = time.Second
)

// releaseRequest and releaseAnswer are what agents say to each other.
type releaseRequest struct {
	Segments []string `json:"segments"`
}

type releaseAnswer struct {
	Tokens map[string]Token `json:"tokens"`
}

// agentAt is where the agent answers whose member has that address.
func agentAt(member string) (string, error) {
	host, _, err := net.SplitHostPort(member)
	if err != nil {
		return "", err
	}
	return net.JoinHostPort(host, strconv.Itoa(Port)), nil
}

// release has the agent beside a member let go of gateways.
func (d Dialer) release(ctx context.Context, member string, segments []string) (map[string]Token, error) {
	body, err := json.Marshal(releaseRequest{segments})
	if err != nil {
		return nil, err
	}
	var answer releaseAnswer
	err = d.ask(ctx, member, http.MethodPost, releasePath, body, &answer)
	return answer.Tokens, err
}

// ready asks the agent beside a member whether gateways may come to it.
func (d Dialer) ready(ctx context.Context, member string) error {
	return d.ask(ctx, member, http.MethodGet, readyPath, nil, nil)
}

func (d Dialer) ask(ctx context.Context, member, method, path string, body []byte, into any) error {
	address, err := agentAt(member)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, method, "https://"+address+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	response, err := d.agents.RoundTrip(request)
	if err != nil {
		return fmt.Errorf("ask the agent at %s: %w", address, err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(response.Body, largestHandOver))
	switch {
	case err != nil:
		return fmt.Errorf("read what the agent at %s says: %w", address, err)
	case response.StatusCode != http.StatusOK:
		return fmt.Errorf("the agent at %s says: %s", address, bytes.TrimSpace(text[:min(len(text), 200)]))
	case into == nil:
		return nil
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("read what the agent at %s says: %w", address, err)
	}
	return nil
}

// serve answers other agents beside this node's member until ctx ends. Where
// the address is not there yet, it is tried again.
func (d Dialer) serve(ctx context.Context, member string, local local) error {
	address, err := agentAt(member)
	if err != nil {
		return err
	}
	defer d.agents.CloseIdleConnections()
	for {
		err := d.serveOnce(ctx, address, local)
		if ctx.Err() != nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(listenPause):
		}
		_ = err // the next attempt, or the others' lack of an answer, tells
	}
}

func (d Dialer) serveOnce(ctx context.Context, address string, local local) error {
	var listening net.ListenConfig
	listener, err := listening.Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler:           handler(local),
		ReadHeaderTimeout: handOverTime, ReadTimeout: handOverTime, WriteTimeout: 3 * handOverTime, IdleTimeout: idleTime,
		MaxHeaderBytes: 16 << 10,
		ErrorLog:       slog.NewLogLogger(slog.DiscardHandler, slog.LevelError), // who has no certificate is nobody's business
	}
	config := &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return d.Identity.cluster()
		},
	}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	err = server.Serve(tls.NewListener(netutil.LimitListener(listener, mostPeers), config))
	_ = server.Close()
	return err
}

func handler(local local) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+releasePath, func(w http.ResponseWriter, r *http.Request) {
		var request releaseRequest
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, largestHandOver)).Decode(&request); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), handOverTime)
		defer cancel()
		tokens, err := local.Release(ctx, request.Segments)
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(releaseAnswer{tokens})
	})
	mux.HandleFunc("GET "+readyPath, func(w http.ResponseWriter, _ *http.Request) {
		if err := local.Ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	})
	return mux
}
