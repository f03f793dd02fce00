package quorum

import (
	"context"
	"fmt"
)

// registered is a member as LXD's own database has it.
type registered struct {
	name    string
	address string
	// heartbeat is when the leader last heard of the member, by the clock of
	// whoever was leader then, in Unix seconds: comparable with each other, and
	// with nothing else.
	heartbeat int64
	// mark is what frond has noted on it: that its node is not to have gateways.
	mark string
}

// markKey is the key of mark in the member's configuration.
const markKey = "user.frond.gateways"

// membersQuery is about tables that LXD has had since 4.22 and Incus always.
const membersQuery = "SELECT name, address, CAST(COALESCE(strftime('%s', heartbeat), 0) AS INTEGER), " +
	"COALESCE((SELECT value FROM nodes_config WHERE node_id = nodes.id AND key = '" + markKey + "'), '') FROM nodes"

// Registered is what LXD has noted of the members. Only the leader answers.
func (d *dqlite) Registered(ctx context.Context) ([]registered, error) {
	if d.db == nil {
		body, err := d.call(ctx, requestOpen, append(append(padded("db.bin"), number(0)...), padded("volatile")...), responseDB)
		if err != nil {
			return nil, err
		}
		n := body.number() & 0xffffffff // the other half is padding
		if body.err != nil {
			return nil, body.err
		}
		d.db = &n
	}
	body, err := d.call(ctx, requestQuery, append(number(*d.db), padded(membersQuery)...), responseRows)
	if err != nil {
		return nil, err
	}
	return readRegistered(body)
}

// padded is a text as the protocol has it.
func padded(s string) []byte {
	return append([]byte(s), make([]byte, wordSize-len(s)%wordSize)...)
}

// The types of values, and the marks in the place of a row's types after the last.
const (
	typeInteger = 1
	typeText    = 3
	moreRows    = 0xee
	noMoreRows  = 0xff
)

func readRegistered(r *response) ([]registered, error) {
	const columns = 4
	if n := r.number(); r.err == nil && n != columns {
		return nil, fmt.Errorf("%d columns of members instead of %d", n, columns)
	}
	for range columns {
		r.text() // its name
	}
	var all []registered
	for r.err == nil {
		types := r.number() // four bits for each column
		if r.err != nil {
			break
		}
		switch types & 0xff {
		case noMoreRows:
			return all, r.err
		case moreRows:
			return nil, fmt.Errorf("more than %d members do not fit into one message", len(all))
		}
		if len(all) == maxMembers {
			return nil, fmt.Errorf("more than %d members: so many are supported", maxMembers)
		}
		var m registered
		if types != typeText|typeText<<4|typeInteger<<8|typeText<<12 {
			return nil, fmt.Errorf("a member with values of types %04x", types)
		}
		m.name, m.address = r.text(), r.text()
		m.heartbeat = int64(r.number())
		m.mark = r.text()
		all = append(all, m)
	}
	return nil, r.err
}
