package store

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// entry is a member as the cluster has it, in etcd's JSON.
type entry struct {
	ID         uint64   `json:"id"`
	PeerURLs   []string `json:"peerURLs"`
	Learner    bool     `json:"isLearner"`
	Name       string   `json:"name"`       // empty: added, has never run
	ClientURLs []string `json:"clientURLs"` // empty: has never run
}

// answer is what another member says when it is asked for the cluster's
// members: that it has no data, or whom it knows.
type answer struct {
	fresh  bool
	roster []entry
	err    error // it does not answer
}

// find is the entry of that member; addresses are what members are told by.
func find(roster []entry, member Peer) (entry, bool) {
	i := slices.IndexFunc(roster, func(e entry) bool { return slices.Contains(e.PeerURLs, member.peerURL()) })
	if i < 0 {
		return entry{}, false
	}
	return roster[i], true
}

// rosterPath is where etcd tells its members, on the port for peers.
const rosterPath = "/members"

// freshHeader marks the answer of a member without data.
const freshHeader = "X-Frond-Store-Fresh"

const (
	largestRoster = 1 << 20 // bytes
	askTimeout    = 500 * time.Millisecond
)

// askAll asks the members at once.
func askAll(ctx context.Context, peers []Peer, config *tls.Config) map[string]answer {
	transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: askTimeout}
	answers := make([]answer, len(peers))
	var asked sync.WaitGroup
	for i, p := range peers {
		asked.Go(func() { answers[i] = ask(ctx, client, p) })
	}
	asked.Wait()
	byName := map[string]answer{}
	for i, p := range peers {
		byName[p.Name] = answers[i]
	}
	return byName
}

func ask(ctx context.Context, client *http.Client, p Peer) answer {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.peerURL()+rosterPath, http.NoBody)
	if err != nil {
		return answer{err: fmt.Errorf("ask %s: %w", p.Name, err)}
	}
	response, err := client.Do(request)
	if err != nil {
		return answer{err: fmt.Errorf("ask %s: %w", p.Name, err)}
	}
	defer func() { _ = response.Body.Close() }()
	if response.Header.Get(freshHeader) != "" {
		return answer{fresh: true}
	}
	var roster []entry
	err = json.NewDecoder(io.LimitReader(response.Body, largestRoster)).Decode(&roster)
	switch {
	case err != nil:
		return answer{err: fmt.Errorf("ask %s for the members: %w", p.Name, err)}
	case len(roster) == 0:
		return answer{err: fmt.Errorf("%s has just begun", p.Name)}
	}
	return answer{roster: roster}
}

// tellFresh answers on this member's port, until the function that it returns
// is called, that there is no data here.
func tellFresh(self Peer, config *tls.Config, log *slog.Logger) (stop func(), err error) {
	listener, err := tls.Listen("tcp", net.JoinHostPort(self.Address.String(), fmt.Sprint(PeerPort)), config)
	if err != nil {
		return nil, fmt.Errorf("listen for the other members: %w", err)
	}
	server := &http.Server{
		ReadHeaderTimeout: askTimeout,
		WriteTimeout:      askTimeout,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(freshHeader, "yes")
			w.WriteHeader(http.StatusNotFound)
		}),
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Warn("store member no longer tells that it has no data", "err", err)
		}
	})
	return func() { _ = server.Close(); serving.Wait() }, nil
}
