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

	"frond/internal/kv"
)

var _ kv.Store = (*Client)(nil)

// Commit implements kv.Store. ErrUnavailable means that nothing was carried out: no
// member could be given it. Any other error leaves open whether it was or still
// will be; unlike the other writes it is then not tried again, as it might find
// its conditions changed by itself.
func (c *Client) Commit(ctx context.Context, t kv.Txn) (kv.Outcome, error) {
	var compare []clientv3.Cmp
	for _, a := range t.If {
		if a.Modified < 0 {
			compare = append(compare, clientv3.Compare(clientv3.CreateRevision(c.prefix+a.Key), "=", a.Created))
			continue
		}
		compare = append(compare, clientv3.Compare(clientv3.ModRevision(c.prefix+a.Key), "=", a.Modified))
	}
	var then []clientv3.Op
	for _, o := range t.Then {
		if o.Value == nil {
			then = append(then, clientv3.OpDelete(c.prefix+o.Key))
			continue
		}
		then = append(then, clientv3.OpPut(c.prefix+o.Key, string(o.Value)))
	}
	var outcome kv.Outcome
	err := c.do(ctx, "commit", func(ctx context.Context, member *clientv3.Client, _ bool) error {
		got, err := member.Txn(ctx).If(compare...).Then(then...).Commit()
		switch {
		case err == nil:
			outcome = kv.Outcome{Done: got.Succeeded, Revision: got.Header.Revision}
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
	return outcome, err
}

// unsent tells whether a request surely had no effect: there was no connection
// to send it on, or the member that got it refused it for want of a leader.
func unsent(err error) bool {
	if errors.Is(err, rpctypes.ErrNoLeader) {
		return true
	}
	return status.Code(err) == codes.Unavailable && strings.Contains(err.Error(), "transport: Error while dialing")
}
