package pki

import (
	"crypto/x509"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"time"
)

// operator is the URI among a certificate's alternative names (RFC 5280
// §4.2.1.6) that tells that its holder may change what agents do. No name or
// address of a node can be taken for it.
const operator = "frond:operator"

// operatorName is what an operator may be called: it names two files.
var operatorName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// IssueOperator makes the certificate and key of somebody who may change what
// agents do. It is good for asking, and not for being taken for a node.
func IssueOperator(dir, name string, now time.Time) (*x509.Certificate, error) {
	if !operatorName.MatchString(name) {
		return nil, fmt.Errorf("an operator cannot be named %q: write at most 63 letters, digits, dots, dashes and underscores", name)
	}
	uri, err := url.Parse(operator)
	if err != nil {
		return nil, fmt.Errorf("name an operator: %w", err)
	}
	return issue(dir, name, ValidityOfOperator, now, func(c *x509.Certificate) {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		c.URIs = []*url.URL{uri}
	})
}

// IsOperator tells whether the holder of a certificate may change what agents
// do. That its signature was verified is the caller's to see to.
func IsOperator(c *x509.Certificate) bool {
	return slices.ContainsFunc(c.URIs, func(u *url.URL) bool { return u.String() == operator })
}
