package node

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"time"

	"frond/internal/fabric"
	"frond/internal/plan"
	"frond/internal/status"
)

// maxDocument bounds what is read of the document; package fabric takes less.
const maxDocument = 16 << 20

// document is a valid document as seen from this node.
type document struct {
	plan   *plan.Plan
	status status.Document
}

// load reads the document and finds this node in it.
func load(cfg Config) (document, error) {
	data, err := readDocument(cfg.Document)
	if err != nil {
		return document{}, err
	}
	f, err := fabric.Parse(cfg.Document, data, filepath.Dir(cfg.Document))
	if err != nil {
		return document{}, err
	}
	p, err := plan.For(f, cfg.Node)
	if err != nil {
		return document{}, fmt.Errorf("%s: %w", cfg.Document, err)
	}
	sum := sha256.Sum256(data)
	return document{p, status.Document{Path: cfg.Document, Loaded: time.Now(), SHA256: hex.EncodeToString(sum[:])}}, nil
}

func readDocument(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the document: %w", err)
	}
	defer func() { _ = file.Close() }()
	data, err := io.ReadAll(io.LimitReader(file, maxDocument))
	if err != nil {
		return nil, fmt.Errorf("read the document: %w", err)
	}
	return data, nil
}

// Reload reads the document again and brings the node into line with it; only
// what differs is touched. An error means that the one before stays in force,
// which status then says too.
func (n *Node) Reload(ctx context.Context) error {
	n.reload.Lock()
	defer n.reload.Unlock()
	d, err := load(n.cfg)
	change := func(l *loop) {
		notifyReloading()
		l.adopt(d, err)
		if l.converged {
			notifyReady() // else complete does
		}
	}
	if !n.ask(ctx, change) {
		return errStopping(ctx)
	}
	return err
}

// adopt puts a document into force, or says why not; apply does the rest.
func (l *loop) adopt(d document, refused error) {
	if refused != nil {
		l.document.Error = refused.Error()
		return
	}
	sources := l.plan.Node.Loopback != d.plan.Node.Loopback || l.plan.Node.Loopback6 != d.plan.Node.Loopback6
	addresses := !reflect.DeepEqual(l.plan.Addresses, d.plan.Addresses)
	renamed := l.plan.Node.Loopback != d.plan.Node.Loopback || l.plan.Node.ASN != d.plan.Node.ASN
	l.plan, l.document, l.unsettled.all = d.plan, d.status, true
	if renamed {
		l.segments.stations.SetIdentity(identity(l.plan))
	}
	if sources || addresses {
		l.repeatRoutes()
	}
}
