package quorum

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// Identity is what a member of a cluster shows others, in the directory where
// LXD or Incus has its files. They are read for each connection: certificates
// are replaced while the cluster runs.
type Identity struct {
	Dir string
}

// member is how one member speaks to another: by its own certificate, and to
// nobody but who has the cluster's.
func (i Identity) member() (*tls.Config, error) { return i.config("server") }

// cluster is how agents speak to each other on either side: by the cluster's
// certificate, whose key all members have and nobody else.
func (i Identity) cluster() (*tls.Config, error) {
	config, err := i.config("cluster")
	if err == nil {
		config.ClientAuth = tls.RequireAnyClientCert
	}
	return config, err
}

func (i Identity) config(own string) (*tls.Config, error) {
	certificate, err := tls.LoadX509KeyPair(filepath.Join(i.Dir, own+".crt"), filepath.Join(i.Dir, own+".key"))
	if err != nil {
		return nil, fmt.Errorf("read this member's certificate: %w", err)
	}
	text, err := os.ReadFile(filepath.Join(i.Dir, "cluster.crt"))
	if err != nil {
		return nil, fmt.Errorf("read the cluster's certificate: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s is no certificate", filepath.Join(i.Dir, "cluster.crt"))
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{certificate},
		// Nobody signs these certificates; that it is the very same one is the proof.
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection compares
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 || !bytes.Equal(s.PeerCertificates[0].Raw, block.Bytes) {
				return errors.New("it does not have the cluster's certificate (cluster.crt)")
			}
			return nil
		},
	}, nil
}

func dialTLS(ctx context.Context, address string, config *tls.Config) (net.Conn, error) {
	d := tls.Dialer{Config: config}
	return d.DialContext(ctx, "tcp", address)
}
