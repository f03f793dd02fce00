package api

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"frond/internal/pki"
)

// dialTimeout is how long an agent on another node may take until it has
// been shown a certificate: many round trips of any fabric.
const dialTimeout = 5 * time.Second

// Remote is an agent on another node.
type Remote struct {
	Node    string     // its certificate has to be this node's
	Address netip.Addr // its loopback
	Files   pki.Files  // who asks
}

// NewRemoteClient returns a client of an agent on another node. Files that are
// of no use are an error; whether an agent answers shows with the first question.
func NewRemoteClient(r Remote) (*Client, error) {
	config, err := r.Files.Client(time.Now())
	if err != nil {
		return nil, fmt.Errorf("ask %s over the network: %w", r.Node, err)
	}
	return r.client(config), nil
}

func (r Remote) client(config *tls.Config) *Client {
	config.ServerName = r.Node
	at := netip.AddrPortFrom(r.Address, Port)
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		return (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", at.String())
	}
	return &Client{
		url:     "https://" + at.String(),
		where:   fmt.Sprintf("%s (%s)", r.Node, at),
		http:    http.Client{Transport: &http.Transport{DialTLSContext: dial, DisableKeepAlives: true}, Timeout: answerTimeout},
		explain: func(err error) error { return r.explain(at, err) },
	}
}

// explain knows what only the network has; nil: it is none of that.
func (r Remote) explain(at netip.AddrPort, err error) error {
	var stranger x509.UnknownAuthorityError
	var misnamed x509.HostnameError
	var invalid x509.CertificateInvalidError
	var network *net.OpError
	switch {
	case errors.As(err, &misnamed):
		return fmt.Errorf("who answers on %s is not %s but %s: is the document here the one that is in force there?", at, r.Node, misnamed.Certificate.Subject.CommonName)
	case errors.As(err, &stranger):
		return fmt.Errorf("the certificate of %s is not of the CA of %s: one of them is another fabric's, or older", r.Node, r.Files.CA)
	case errors.As(err, &invalid):
		return fmt.Errorf("the certificate of %s is of no use: %w; \"frond pki issue %s\" renews it", r.Node, invalid, r.Node)
	case errors.As(err, &network) && network.Op == "remote error":
		return r.refused(network.Err.Error())
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w on %s of %s: is it running, and does it have certificates? (\"frond status\" on that node)", ErrNoAgent, at, r.Node)
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return fmt.Errorf("no way leads to %s of %s: ask from a node of the fabric", at, r.Node)
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF):
		return fmt.Errorf("%s has hung up: does it take %s? (\"frond pki show\" there and here)", r.Node, r.Files.Cert)
	}
	return nil
}

// refused is what an alert (RFC 8446 §6) of the other side means.
func (r Remote) refused(alert string) error {
	alert = strings.TrimPrefix(alert, "tls: ")
	if alert == "internal error" {
		return fmt.Errorf("%s cannot use its own certificate: \"frond status\" on that node tells why", r.Node)
	}
	return fmt.Errorf("%s refuses %s (%s): issue it again by \"frond pki issue\" where the fabric's CA is", r.Node, r.Files.Cert, alert)
}
