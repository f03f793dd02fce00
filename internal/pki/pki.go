// Package pki is the fabric's own certificate authority and the certificates
// of its nodes and operators (RFC 5280): with them the members of the store,
// the agents, and who asks them know each other (TLS 1.3, RFC 8446, both sides
// with certificates).
//
// A directory holds ca.crt and, for each node and operator, NAME.crt and
// NAME.key. The CA's own key, ca.key, is needed to issue certificates and nowhere else: it may
// stay on one machine. Keys are files of mode 0600.
package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

// How long certificates are valid. One is renewed by issuing it again. An
// operator's cannot be taken back, so that it ends sooner.
const (
	ValidityOfCA       = 20 * 365 * 24 * time.Hour
	ValidityOfNode     = 2 * 365 * 24 * time.Hour
	ValidityOfOperator = 365 * 24 * time.Hour
)

// early is how far clocks may differ: certificates are valid from so long ago.
const early = 24 * time.Hour

// authority is the name of the CA's files; no node may have it.
const authority = "ca"

// Node is whom a certificate is for.
type Node struct {
	Name      string
	Addresses []netip.Addr // its loopbacks
}

// Init makes the CA of a fabric in dir. One that is there already is an
// error: all certificates would have to be issued again.
func Init(dir, fabric string, now time.Time) (*x509.Certificate, error) {
	files := FilesIn(dir, authority)
	for _, name := range []string{files.Cert, files.Key} {
		if _, err := os.Lstat(name); err == nil {
			return nil, fmt.Errorf("%s is there already: remove it to begin anew, every node then needs a new certificate", name)
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of certificates: %w", err)
	}
	template, err := newTemplate("frond "+fabric+" CA", now, ValidityOfCA)
	if err != nil {
		return nil, err
	}
	template.IsCA, template.BasicConstraintsValid, template.MaxPathLenZero = true, true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	return write(files, template, template, key, key)
}

// Issue makes a node's certificate and key in dir, signed by the CA there, in
// place of those that it has. Its validity ends with the CA's.
func Issue(dir string, node Node, now time.Time) (*x509.Certificate, error) {
	return issue(dir, node.Name, ValidityOfNode, now, func(c *x509.Certificate) {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
		c.DNSNames = []string{node.Name}
		for _, a := range node.Addresses {
			c.IPAddresses = append(c.IPAddresses, net.IP(a.AsSlice()))
		}
	})
}

func issue(dir, name string, validity time.Duration, now time.Time, whatFor func(*x509.Certificate)) (*x509.Certificate, error) {
	if name == authority {
		return nil, fmt.Errorf("nobody named %s can have a certificate: its files would be the CA's", authority)
	}
	ca, caKey, err := loadCA(dir, now)
	if err != nil {
		return nil, err
	}
	template, err := newTemplate(name, now, validity)
	if err != nil {
		return nil, err
	}
	if template.NotAfter.After(ca.NotAfter) {
		template.NotAfter = ca.NotAfter
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	whatFor(template)
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	return write(FilesIn(dir, name), template, ca, key, caKey)
}

func loadCA(dir string, now time.Time) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	files := FilesIn(dir, authority)
	ca, err := readCertificate(files.Cert)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("there is no CA in %s: \"frond pki init\" makes it", dir)
	}
	if err != nil {
		return nil, nil, err
	}
	if err := inTime(files.Cert, ca, now); err != nil {
		return nil, nil, err
	}
	key, err := readKey(files.Key)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("%s is not here: issue certificates on the machine that has the CA's key", files.Key)
	}
	if err != nil {
		return nil, nil, err
	}
	if !key.PublicKey.Equal(ca.PublicKey) {
		return nil, nil, fmt.Errorf("%s is not the key of %s", files.Key, files.Cert)
	}
	return ca, key, nil
}

func newKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return key, nil
}

func newTemplate(name string, now time.Time, validity time.Duration) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)) // RFC 5280 §4.1.2.2
	if err != nil {
		return nil, fmt.Errorf("make a serial number: %w", err)
	}
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name, Organization: []string{"frond"}},
		NotBefore:    now.Add(-early).UTC(),
		NotAfter:     now.Add(validity).UTC(),
	}, nil
}

// write signs a certificate and puts it beside its key, the key first: a
// certificate without its key would be worse than the ones before.
func write(files Files, template, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, fmt.Errorf("sign the certificate of %s: %w", template.Subject.CommonName, err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode the key of %s: %w", template.Subject.CommonName, err)
	}
	if err := replace(files.Key, "PRIVATE KEY", secret); err != nil {
		return nil, err
	}
	if err := replace(files.Cert, "CERTIFICATE", der); err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// replace writes a PEM file whole or not at all.
func replace(name, kind string, der []byte) error {
	var text bytes.Buffer
	if err := pem.Encode(&text, &pem.Block{Type: kind, Bytes: der}); err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	part, err := os.CreateTemp(filepath.Dir(name), ".new-*") // of mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	_, err = part.Write(text.Bytes())
	err = errors.Join(err, part.Sync(), part.Close())
	if err == nil {
		err = os.Rename(part.Name(), name)
	}
	if err != nil {
		_ = os.Remove(part.Name())
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
