package store

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// A backup is text: a line of backupHead, one of backupKey for each key, and
// the SHA-256 of all of that. It holds keys and not a member's files, so that
// it can be restored into any store, also while that runs. Keys that say who
// holds what at the moment are left out, and left as they are (isVolatile).
type backupHead struct {
	Frond    string    `json:"frond"` // backupForm
	Prefix   string    `json:"prefix"`
	Revision int64     `json:"revision"`
	Time     time.Time `json:"time"`
	Keys     int       `json:"keys"`
}

type backupKey struct {
	Key   string `json:"key"`
	Value []byte `json:"value"`
}

const (
	backupForm  = "store backup 1"
	largestLine = 4 << 20 // bytes; etcd takes values of at most 1.5 MiB
	restoreStep = 100     // keys in one transaction, of the 128 that etcd takes
)

// Backup writes all keys as they were at one moment, and tells how many.
func (c *Client) Backup(ctx context.Context, to io.Writer, now time.Time) (int, error) {
	all, revision, err := c.List(ctx, "")
	if err != nil {
		return 0, err
	}
	var keys []backupKey
	for _, e := range all {
		if !c.isVolatile(e) {
			keys = append(keys, backupKey{e.Key, e.Value})
		}
	}
	sum := sha256.New()
	out := json.NewEncoder(io.MultiWriter(to, sum))
	err = out.Encode(backupHead{backupForm, c.prefix, revision, now.UTC(), len(keys)})
	for _, k := range keys {
		err = errors.Join(err, out.Encode(k))
	}
	if err == nil {
		_, err = fmt.Fprintf(to, "%x\n", sum.Sum(nil))
	}
	if err != nil {
		return 0, fmt.Errorf("write the backup: %w", err)
	}
	return len(keys), nil
}

// Restore reads a whole backup, and only if it is sound makes the store hold
// just those keys, besides those of sessions. It tells how many. A store that
// holds other keys is left alone unless replace is set.
func (c *Client) Restore(ctx context.Context, from io.Reader, replace bool) (int, error) {
	keys, err := readBackup(from)
	if err != nil {
		return 0, err
	}
	there, _, err := c.List(ctx, "")
	if err != nil {
		return 0, err
	}
	wanted := map[string]bool{}
	for _, k := range keys {
		wanted[k.Key] = true
	}
	var steps []clientv3.Op
	kept := 0
	for _, e := range there {
		if c.isVolatile(e) {
			continue
		}
		kept++
		if !wanted[e.Key] {
			steps = append(steps, clientv3.OpDelete(c.prefix+e.Key))
		}
	}
	if kept > 0 && !replace {
		return 0, fmt.Errorf("restore the store: it holds %d keys already: with --replace they give way to the backup's", kept)
	}
	for _, k := range keys {
		if c.isVolatile(Entry{Key: k.Key}) {
			continue
		}
		steps = append(steps, clientv3.OpPut(c.prefix+k.Key, string(k.Value)))
	}
	for len(steps) > 0 {
		n := min(restoreStep, len(steps))
		err := c.do(ctx, "restore the store", func(ctx context.Context, member *clientv3.Client, _ bool) error {
			_, err := member.Txn(ctx).Then(steps[:n]...).Commit()
			return err
		})
		if err != nil {
			return 0, err
		}
		steps = steps[n:]
	}
	return len(keys), nil
}

// isVolatile tells that an entry says who holds what at the moment.
func (c *Client) isVolatile(e Entry) bool {
	return e.Lease != 0 || slices.ContainsFunc(c.volatile, func(prefix string) bool { return strings.HasPrefix(e.Key, prefix) })
}

// readBackup reads a backup and checks it.
func readBackup(from io.Reader) ([]backupKey, error) {
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, largestLine)
	var head backupHead
	if !lines.Scan() || json.Unmarshal(lines.Bytes(), &head) != nil || head.Frond != backupForm {
		return nil, errors.New("read the backup: this is none that \"frond store backup\" wrote")
	}
	sum := sha256.New()
	add := func(line []byte) { sum.Write(append(bytes.Clone(line), '\n')) }
	add(lines.Bytes())
	var keys []backupKey
	for range head.Keys {
		var k backupKey
		if !lines.Scan() {
			return nil, fmt.Errorf("read the backup: it ends after %d of %d keys", len(keys), head.Keys)
		}
		if err := json.Unmarshal(lines.Bytes(), &k); err != nil {
			return nil, fmt.Errorf("read the backup: key %d: %w", len(keys)+1, err)
		}
		add(lines.Bytes())
		keys = append(keys, k)
	}
	if !lines.Scan() || lines.Text() != hex.EncodeToString(sum.Sum(nil)) {
		return nil, errors.New("read the backup: it was damaged, its checksum is another")
	}
	return keys, nil
}
