package pki

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// largestFile bounds what is read of a PEM file, in bytes.
const largestFile = 1 << 20

// Files are the three that one end of a TLS connection needs.
type Files struct {
	CA   string `json:"ca"`
	Cert string `json:"cert"`
	Key  string `json:"key"`
}

// FilesIn names a node's files in a directory that Init and Issue filled.
func FilesIn(dir, node string) Files {
	return Files{
		CA:   filepath.Join(dir, authority+".crt"),
		Cert: filepath.Join(dir, node+".crt"),
		Key:  filepath.Join(dir, node+".key"),
	}
}

// Check says what is wrong with the files as they are now: missing, unreadable,
// out of date, not belonging to each other, or a key that others may read.
func (f Files) Check(now time.Time) error {
	_, _, err := f.load(now)
	return err
}

// Absent tells that none of the files is there: nobody has meant to use them.
func (f Files) Absent() bool {
	for _, name := range []string{f.CA, f.Cert, f.Key} {
		if _, err := os.Stat(name); !errors.Is(err, fs.ErrNotExist) {
			return false
		}
	}
	return true
}

// Client is the configuration of the end that connects. The node's certificate
// is read anew for each connection, so that renewing it needs no restart.
func (f Files) Client(now time.Time) (*tls.Config, error) {
	roots, _, err := f.load(now)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		RootCAs:    roots,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
			return &pair, err
		},
	}, nil
}

// Server is the configuration of the end that listens: it wants a certificate
// of the same CA from whoever connects.
func (f Files) Server(now time.Time) (*tls.Config, error) {
	roots, pair, err := f.load(now)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{pair},
		ClientCAs:    roots,
		ClientAuth:   tls.RequireAndVerifyClientCert,
		// A session that is taken up again would outlive what the certificate says.
		SessionTicketsDisabled: true,
	}, nil
}

// Renewing is the configuration of the end that listens for as long as it
// likes: the files are read anew for each connection, so that renewing them
// needs no restart. While there is something wrong with them nobody gets in.
func (f Files) Renewing() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return f.Server(time.Now())
		},
	}
}

func (f Files) load(now time.Time) (*x509.CertPool, tls.Certificate, error) {
	none := tls.Certificate{}
	for _, name := range []string{f.CA, f.Cert, f.Key} {
		if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
			return nil, none, fmt.Errorf("%s is missing: \"frond pki issue\" makes it where the CA's key is, copy it from there", name)
		}
	}
	ca, err := readCertificate(f.CA)
	if err != nil {
		return nil, none, err
	}
	if err := inTime(f.CA, ca, now); err != nil {
		return nil, none, err
	}
	cert, err := readCertificate(f.Cert)
	if err != nil {
		return nil, none, err
	}
	if err := inTime(f.Cert, cert, now); err != nil {
		return nil, none, err
	}
	if err := private(f.Key); err != nil {
		return nil, none, err
	}
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return nil, none, fmt.Errorf("%s and %s do not belong together: %w", f.Cert, f.Key, err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	options := x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	if _, err := cert.Verify(options); err != nil {
		return nil, none, fmt.Errorf("%s is not signed by %s: issue it again by \"frond pki issue\" where that CA is", f.Cert, f.CA)
	}
	return roots, pair, nil
}

// private wants a key file that its owner alone may read.
func private(name string) error {
	info, err := os.Stat(name)
	if err != nil {
		return fmt.Errorf("look at %s: %w", name, err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s may be read by others (mode %04o): set it to 0600", name, info.Mode().Perm())
	}
	return nil
}

// inTime tells whether a certificate is valid now.
func inTime(name string, c *x509.Certificate, now time.Time) error {
	const day = "2006-01-02 15:04 MST"
	switch {
	case now.Before(c.NotBefore):
		return fmt.Errorf("%s is valid from %s on only: is the clock right?", name, c.NotBefore.Format(day))
	case now.After(c.NotAfter):
		return fmt.Errorf("%s expired %s: \"frond pki issue\" renews a node's certificate", name, c.NotAfter.Format(day))
	}
	return nil
}

// Certificate is one of a directory.
type Certificate struct {
	File string
	*x509.Certificate
	Err error // why there is none, or why it is of no use
}

// List gives the certificates in dir, the CA's first, the others by name.
func List(dir string, now time.Time) ([]Certificate, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.crt"))
	if err != nil {
		return nil, fmt.Errorf("list certificates: %w", err)
	}
	own := FilesIn(dir, authority).Cert
	slices.SortFunc(names, func(a, b string) int {
		if (a == own) != (b == own) {
			if a == own {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	var all []Certificate
	for _, name := range names {
		c, err := readCertificate(name)
		if err == nil {
			err = inTime(name, c, now)
		}
		all = append(all, Certificate{name, c, err})
	}
	return all, nil
}

func readCertificate(name string) (*x509.Certificate, error) {
	der, err := readPEM(name, "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("%s holds no certificate: %w", name, err)
	}
	return c, nil
}

func readKey(name string) (*ecdsa.PrivateKey, error) {
	der, err := readPEM(name, "PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("%s holds no key: %w", name, err)
	}
	curve, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s holds a key of another kind than \"frond pki init\" makes", name)
	}
	return curve, nil
}

func readPEM(name, kind string) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read a file of the CA: %w", err)
	}
	defer func() { _ = file.Close() }()
	text, err := io.ReadAll(io.LimitReader(file, largestFile))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("%s is no PEM file of a %s", name, strings.ToLower(kind))
	}
	return block.Bytes, nil
}
