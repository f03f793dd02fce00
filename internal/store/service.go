package store

import (
	"context"
	"io"
	"log/slog"
	"os/exec"
	"path/filepath"
	"reflect"
	"sync"
	"time"

	"frond/internal/pki"
)

// Verb is the program's hidden verb that calls ServeMember.
const Verb = "store-member"

// Desired is what a node is to have of the store.
type Desired struct {
	Fabric    string
	Member    string // the member that this node runs; empty: none
	Members   []Peer
	Endpoints []Endpoint // where clients go; none: there is no store
	Files     pki.Files
}

// Service is a node's part of the store: its member, if it runs one, and the
// client that gateways and DHCP use. Without anything desired nothing runs.
type Service struct {
	executable string
	dir        string // of a member's data
	logTo      io.Writer
	log        *slog.Logger

	mu      sync.Mutex
	desired Desired
	since   time.Time // when that was set
	member  *Member   // nil: none runs
	client  *Client   // nil: none is open
	problem string    // why there is no client although there is to be one
	changed chan struct{}
	// replaced is closed, and another one put in its place, with each change of client.
	replaced chan struct{}
}

// NewService returns a service without anything desired.
func NewService(executable, dir string, logTo io.Writer, log *slog.Logger) *Service {
	return &Service{executable: executable, dir: dir, logTo: logTo, log: log,
		changed: make(chan struct{}, 1), replaced: make(chan struct{})}
}

// Set says what is desired, any number of times.
func (s *Service) Set(d Desired) {
	s.mu.Lock()
	same := reflect.DeepEqual(d, s.desired)
	if !same {
		s.desired, s.since = d, time.Now()
	}
	s.mu.Unlock()
	if same {
		return
	}
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// ServiceReport is how the service is.
type ServiceReport struct {
	Desired Desired
	Since   time.Time // when that was set
	Member  *Report   // nil: none is to run here
	Health  *Health   // nil: nothing could be asked yet
	Problem string    // why there is no client
}

// Report says how the service is.
func (s *Service) Report() ServiceReport {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := ServiceReport{Desired: s.desired, Since: s.since, Problem: s.problem}
	if s.member != nil {
		report := s.member.Report()
		r.Member = &report
	}
	if s.client != nil {
		if h := s.client.Health(); h.Members != nil {
			r.Health = &h
		}
	}
	return r
}

// Run runs what is desired until ctx ends, and returns nil when all has ended.
func (s *Service) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		s.mu.Lock()
		d := s.desired
		s.mu.Unlock()
		epoch, cancel := context.WithCancel(ctx)
		var parts sync.WaitGroup
		if d.Member != "" {
			parts.Go(func() { s.runMember(epoch, d) })
		}
		if len(d.Endpoints) > 0 {
			parts.Go(func() { s.runClient(epoch, d) })
		}
		select {
		case <-ctx.Done():
		case <-s.changed:
		}
		cancel()
		parts.Wait()
	}
	return nil
}

func (s *Service) runMember(ctx context.Context, d Desired) {
	config := MemberConfig{Fabric: d.Fabric, Name: d.Member, Members: d.Members, Dir: filepath.Clean(s.dir), Files: d.Files}
	member := NewMember(func() *exec.Cmd { return exec.Command(s.executable, Verb) }, config, s.logTo, s.log)
	s.mu.Lock()
	s.member = member
	s.mu.Unlock()
	_ = member.Run(ctx) // never fails
	s.mu.Lock()
	s.member = nil
	s.mu.Unlock()
}

// filesAgain is how often files that are missing are looked for.
const filesAgain = 2 * time.Second

// runClient opens a client as soon as its files are sound.
func (s *Service) runClient(ctx context.Context, d Desired) {
	client, err := s.open(d)
	for err != nil {
		s.set(nil, err.Error())
		if !pause(ctx, filesAgain) {
			s.set(nil, "")
			return
		}
		client, err = s.open(d)
	}
	s.set(client, "")
	_ = client.Run(ctx) // never fails
	s.set(nil, "")
	client.Close()
}

func (s *Service) open(d Desired) (*Client, error) {
	config, err := d.Files.Client(time.Now())
	if err != nil {
		return nil, err
	}
	return Open(ClientConfig{Endpoints: d.Endpoints, Prefix: Prefix(d.Fabric), TLS: config, Log: s.log})
}

func (s *Service) set(c *Client, problem string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c != s.client {
		close(s.replaced)
		s.replaced = make(chan struct{})
	}
	s.client, s.problem = c, problem
}
