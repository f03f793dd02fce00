package store

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// MemberInfo is a member as the cluster has it.
type MemberInfo struct {
	ID      uint64
	Name    string // empty: added, has never run
	Address string // that the others find it at; host:port
	Learner bool   // it has no vote yet
}

// Members are those that the cluster has, by name, as a majority knows them.
func (c *Client) Members(ctx context.Context) ([]MemberInfo, error) {
	var members []MemberInfo
	err := c.do(ctx, "list the store's members", func(ctx context.Context, member *clientv3.Client, _ bool) error {
		got, err := member.MemberList(ctx)
		if err != nil {
			return err
		}
		members = nil
		for _, m := range got.Members {
			var addresses []string
			for _, u := range m.PeerURLs {
				addresses = append(addresses, strings.TrimPrefix(u, "https://"))
			}
			members = append(members, MemberInfo{m.ID, m.Name, strings.Join(addresses, ","), m.IsLearner})
		}
		return nil
	})
	slices.SortFunc(members, func(a, b MemberInfo) int { return strings.Compare(a.Name+a.Address, b.Name+b.Address) })
	return members, err
}

// Of tells whether the member is the one with that loopback.
func (m MemberInfo) Of(loopback netip.Addr) bool {
	return m.Address == netip.AddrPortFrom(loopback, PeerPort).String()
}

// AddMember makes room for a member, first as a learner, which gets its vote
// when its process runs and has caught up. One that is there is no error.
func (c *Client) AddMember(ctx context.Context, p Peer) error {
	err := c.do(ctx, "add "+p.Name+" to the store", func(ctx context.Context, member *clientv3.Client, _ bool) error {
		_, err := member.MemberAddAsLearner(ctx, []string{p.peerURL()})
		return err
	})
	switch {
	case errors.Is(err, rpctypes.ErrPeerURLExist), errors.Is(err, rpctypes.ErrMemberExist):
		return nil
	case errors.Is(err, rpctypes.ErrTooManyLearners):
		return fmt.Errorf("another member is still on its way into the store, wait until it serves: %w", err)
	}
	return err
}

// RemoveMember has the cluster forget a member; its process ends by itself.
// One that is gone is no error. The cluster refuses to lose its majority.
func (c *Client) RemoveMember(ctx context.Context, id uint64) error {
	err := c.do(ctx, "remove a member of the store", func(ctx context.Context, member *clientv3.Client, _ bool) error {
		_, err := member.MemberRemove(ctx, id)
		if err != nil && strings.Contains(err.Error(), "raft: stopped") {
			return rpctypes.ErrStopped // it was itself that it removed: the others know
		}
		return err
	})
	if errors.Is(err, rpctypes.ErrMemberNotFound) {
		return nil
	}
	return err
}

// promote gives a learner its vote.
func (c *Client) promote(ctx context.Context, id uint64) error {
	err := c.do(ctx, "give a learner its vote", func(ctx context.Context, member *clientv3.Client, _ bool) error {
		_, err := member.MemberPromote(ctx, id)
		return err
	})
	if errors.Is(err, rpctypes.ErrMemberNotLearner) {
		return nil
	}
	return err
}
