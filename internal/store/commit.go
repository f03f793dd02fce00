package store

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Condition compares a revision of a key; 0 is that of a key that is absent.
type Condition struct {
	Key      string
	Created  int64 // compared if Modified is negative
	Modified int64
}

// Operation puts a value, or deletes the key if the value is nil.
type Operation struct {
	Key   string
	Value []byte
}

// Commit carries out all operations, or none if a condition does not hold, and
// tells which, and the store's revision afterwards. ErrUnavailable means that
// nothing was carried out: no member could be given it. Any other error leaves
// open whether it was or still will be; unlike the other writes it is then not
// tried again, as it might find its conditions changed by itself.
func (c *Client) Commit(ctx context.Context, conditions []Condition, operations []Operation) (done bool, revision int64, err error) {
	var compare []clientv3.Cmp
	for _, a := range conditions {
		if a.Modified < 0 {
			compare = append(compare, clientv3.Compare(clientv3.CreateRevision(c.prefix+a.Key), "=", a.Created))
			continue
		}
		compare = append(compare, clientv3.Compare(clientv3.ModRevision(c.prefix+a.Key), "=", a.Modified))
	}
	var then []clientv3.Op
	for _, o := range operations {
		if o.Value == nil {
			then = append(then, clientv3.OpDelete(c.prefix+o.Key))
			continue
		}
		then = append(then, clientv3.OpPut(c.prefix+o.Key, string(o.Value)))
	}
	err = c.do(ctx, "commit", func(ctx context.Context, member *clientv3.Client, _ bool) error {
		got, err := member.Txn(ctx).If(compare...).Then(then...).Commit()
		switch {
		case err == nil:
			done, revision = got.Succeeded, got.Header.Revision
			return nil
		case unsent(err):
			return err
		}
		at, preferred := c.preferred()
		if preferred == member && elsewhere(err) {
			c.avoid(at)
		}
		return fmt.Errorf("it is not known whether it was carried out: %s", reason(err))
	})
	return done, revision, err
}

// unsent tells whether a request surely had no effect: there was no connection
// to send it on, or the member that got it refused it for want of a leader.
func unsent(err error) bool {
	if errors.Is(err, rpctypes.ErrNoLeader) {
		return true
	}
	return status.Code(err) == codes.Unavailable && strings.Contains(err.Error(), "transport: Error while dialing")
}
