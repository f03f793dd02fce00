package api

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"reflect"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/sys/unix"

	"frond/internal/pki"
)

// Port is where an agent answers over the network, TCP: easy to remember
// beside BGP's 179, and IANA has given it to nobody.
const Port = 7179

// lookAgain is how often a look is taken at files and ports that are not as
// they should be, and at whether they still are.
const lookAgain = 2 * time.Second

// Reach is where an agent is to answer over the network, and as whom.
type Reach struct {
	Addresses []netip.Addr // the node's loopbacks; none: nowhere
	Files     pki.Files    // without any of them it is nowhere, and that is fine
}

// Network is the API over the network: whoever has a certificate of the
// fabric's CA may ask, and an operator may also change.
type Network struct {
	backend Backend
	log     *slog.Logger

	mu      sync.Mutex
	desired Reach
	problem string
	changed chan struct{}
}

// NewNetwork returns a part that answers nowhere until it is told to.
func NewNetwork(b Backend, log *slog.Logger) *Network {
	return &Network{backend: b, log: log, changed: make(chan struct{}, 1)}
}

// Set says where to answer, any number of times.
func (n *Network) Set(r Reach) {
	n.mu.Lock()
	same := reflect.DeepEqual(r, n.desired)
	n.desired = r
	n.mu.Unlock()
	if same {
		return
	}
	select {
	case n.changed <- struct{}{}:
	default:
	}
}

// Problem is why nobody can ask over the network; empty: somebody can, or
// nobody is meant to.
func (n *Network) Problem() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.problem
}

// Run answers until ctx ends, and returns nil. That it cannot is no error of
// the agent: the socket is what matters.
func (n *Network) Run(ctx context.Context) error {
	again := time.NewTicker(lookAgain)
	defer again.Stop()
	var now *answering
	defer func() { now.stop() }()
	for {
		now = n.bring(ctx, now)
		select {
		case <-ctx.Done():
			return nil
		case <-n.changed:
		case <-again.C:
		}
	}
}

// bring makes what answers what is desired, as far as that is possible.
func (n *Network) bring(ctx context.Context, now *answering) *answering {
	n.mu.Lock()
	desired := n.desired
	n.mu.Unlock()
	wanted := len(desired.Addresses) > 0 && !desired.Files.Absent()
	if now != nil && (!wanted || now.ended() || !reflect.DeepEqual(desired, now.reach)) {
		now.stop()
		now = nil
	}
	var err error
	if wanted {
		// While it answers, files that are being renewed may be wrong for a moment.
		err = desired.Files.Check(time.Now())
	}
	if wanted && err == nil && now == nil {
		now, err = n.answer(ctx, desired)
	}
	n.say(err)
	return now
}

func (n *Network) say(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if text != n.problem && text != "" {
		n.log.Warn("nobody can ask over the network", "error", text)
	}
	n.problem = text
}

// answering is what answers at the moment.
type answering struct {
	reach  Reach
	cancel context.CancelFunc
	parts  sync.WaitGroup
	broken chan struct{} // gets a word of each listener that ends
}

// answer listens on all addresses, or on none.
func (n *Network) answer(ctx context.Context, r Reach) (*answering, error) {
	var listeners []net.Listener
	for _, address := range r.Addresses {
		l, err := listenTLS(ctx, netip.AddrPortFrom(address, Port), r.Files)
		if err != nil {
			for _, l := range listeners {
				_ = l.Close()
			}
			return nil, err
		}
		listeners = append(listeners, l)
	}
	ctx, cancel := context.WithCancel(ctx)
	a := &answering{reach: r, cancel: cancel, broken: make(chan struct{}, len(listeners))}
	for _, l := range listeners {
		a.parts.Go(func() {
			if err := answerOn(ctx, l, Restricted(n.backend, n.log), n.log); err != nil {
				n.log.Warn("API over the network", "error", err)
			}
			a.broken <- struct{}{}
		})
	}
	n.log.Info("answering over the network", "addresses", r.Addresses, "port", Port)
	return a, nil
}

// ended tells that a listener has ended by itself.
func (a *answering) ended() bool { return len(a.broken) > 0 }

func (a *answering) stop() {
	if a != nil {
		a.cancel()
		a.parts.Wait()
	}
}

// listenTLS listens on one address, which the node may yet have to be given:
// its loopbacks come with the rest of what the kernel is to hold.
func listenTLS(ctx context.Context, at netip.AddrPort, files pki.Files) (net.Listener, error) {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var set error
		err := c.Control(func(fd uintptr) {
			if at.Addr().Is4() {
				set = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1)
				return
			}
			set = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_FREEBIND, 1)
		})
		return errors.Join(err, set)
	}}
	tcp, err := config.Listen(ctx, "tcp", at.String())
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("TCP port %d of %s is another program's (ss -ltnp 'sport = :%[1]d')", at.Port(), at.Addr())
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", at, err)
	}
	return tls.NewListener(netutil.LimitListener(tcp, maxConnections), files.Renewing()), nil
}

// Restricted is the API for those who are known by their certificate only:
// all may ask, operators may change.
func Restricted(b Backend, log *slog.Logger) http.Handler {
	all := Handler(b, log)
	h := handler{backend: b, log: log}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := shown(r)
		switch {
		case c == nil:
			h.fail(w, http.StatusForbidden, errors.New("over the network only those who show a certificate of the fabric's CA are answered"))
		case r.Method != http.MethodGet && !pki.IsOperator(c):
			log.Info("request refused", "request", r.URL.Path, "by", asker(r))
			h.fail(w, http.StatusForbidden, fmt.Errorf("the certificate of %s may ask, not change: show an operator's, \"frond pki issue --operator NAME\" makes it", c.Subject.CommonName))
		default:
			all.ServeHTTP(w, r)
		}
	})
}

// shown is the certificate of who asks, verified; nil over the socket.
func shown(r *http.Request) *x509.Certificate {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return nil
	}
	return r.TLS.VerifiedChains[0][0]
}

// asker says for the log who asks.
func asker(r *http.Request) string {
	if c := shown(r); c != nil {
		return c.Subject.CommonName
	}
	return "socket"
}
