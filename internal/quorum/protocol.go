package quorum

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// What is used of dqlite's wire protocol, version 1
// (https://canonical.com/dqlite/docs/reference/wire-protocol): all numbers are
// little-endian, all is padded to words of eight octets.
const (
	protocolVersion = 1
	wordSize        = 8

	requestLeader   = 0
	requestOpen     = 3
	requestQuery    = 9 // of a text
	requestCluster  = 16
	requestTransfer = 17

	responseFailure = 0
	responseNode    = 1
	responseNodes   = 3
	responseDB      = 4
	responseRows    = 7
	responseEmpty   = 8
)

// largestResponse bounds what a member may answer, in octets.
const largestResponse = 256 << 10

// errShort tells of a message that ends before what it is to hold does.
var errShort = errors.New("a message of dqlite is too short")

// dqlite is a connection to a member that speaks dqlite's wire protocol.
type dqlite struct {
	conn net.Conn
	db   *uint64 // number of the database, once it was opened
}

// begin says which version is spoken.
func (d *dqlite) begin(ctx context.Context) error {
	return d.within(ctx, func() error {
		_, err := d.conn.Write(number(protocolVersion))
		return err
	})
}

// Leader is the address of whom the member takes for the leader, empty if it
// knows none.
func (d *dqlite) Leader(ctx context.Context) (string, error) {
	body, err := d.call(ctx, requestLeader, number(0), responseNode)
	if err != nil {
		return "", err
	}
	_ = body.number() // its identity
	return body.text(), body.err
}

// Members are all, as far as the member knows.
func (d *dqlite) Members(ctx context.Context) ([]Member, error) {
	const withRoles = 1
	body, err := d.call(ctx, requestCluster, number(withRoles), responseNodes)
	if err != nil {
		return nil, err
	}
	n := body.number()
	if n > maxMembers {
		return nil, fmt.Errorf("a cluster of %d members: %d are supported", n, maxMembers)
	}
	all := make([]Member, n)
	for i := range all {
		all[i] = Member{ID: body.number(), Address: body.text(), Role: Role(body.number())}
	}
	return all, body.err
}

// Transfer has the member, who has to be the leader, hand over to another.
func (d *dqlite) Transfer(ctx context.Context, to uint64) error {
	_, err := d.call(ctx, requestTransfer, number(to), responseEmpty)
	return err
}

func (d *dqlite) Close() error { return d.conn.Close() }

// call sends a request and takes the response to it. After an error nothing
// more is to be asked over the connection.
func (d *dqlite) call(ctx context.Context, request byte, body []byte, want byte) (*response, error) {
	var r *response
	err := d.within(ctx, func() error {
		if _, err := d.conn.Write(append(header(request, len(body)), body...)); err != nil {
			return err
		}
		var err error
		r, err = receive(d.conn, want)
		return err
	})
	return r, err
}

// within does what the end of ctx interrupts.
func (d *dqlite) within(ctx context.Context, do func() error) error {
	return interruptible(ctx, d.conn, do)
}

// interruptible does something on a connection until ctx ends, and tells then
// that it has.
func interruptible(ctx context.Context, conn net.Conn, do func() error) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	err := do()
	stopped := stop()
	if ctx.Err() != nil && err != nil {
		return fmt.Errorf("no answer in time: %w", ctx.Err())
	}
	if err == nil && !stopped {
		return ctx.Err() // the connection may be of no use any more
	}
	return err
}

func header(kind byte, size int) []byte {
	return append(binary.LittleEndian.AppendUint32(nil, uint32(size/wordSize)), kind, 0, 0, 0)
}

func number(n uint64) []byte { return binary.LittleEndian.AppendUint64(nil, n) }

// receive reads one response, which is to be of a kind.
func receive(r io.Reader, want byte) (*response, error) {
	var head [wordSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	size := int64(binary.LittleEndian.Uint32(head[:])) * wordSize
	if size > largestResponse {
		return nil, fmt.Errorf("a message of dqlite with %d octets: that is none", size)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, err
	}
	answer := &response{rest: body}
	switch kind := head[4]; kind {
	case want:
		return answer, nil
	case responseFailure:
		code, text := answer.number(), answer.text()
		if answer.err != nil {
			return nil, answer.err
		}
		return nil, fmt.Errorf("dqlite refuses: %q (code %d)", clip(text), code)
	default:
		return nil, fmt.Errorf("dqlite answers with a message of kind %d instead of %d", kind, want)
	}
}

// clip keeps a foreign text short enough for a line.
func clip(text string) string { return text[:min(len(text), 200)] }

// response is the body of a message, read word by word. After an error all that
// is read is zero.
type response struct {
	rest []byte
	err  error
}

func (r *response) number() uint64 {
	if len(r.rest) < wordSize {
		r.rest, r.err = nil, errShort
		return 0
	}
	n := binary.LittleEndian.Uint64(r.rest)
	r.rest = r.rest[wordSize:]
	return n
}

// text ends with a zero, and is padded with more of them to whole words.
func (r *response) text() string {
	end := bytes.IndexByte(r.rest, 0)
	size := (end/wordSize + 1) * wordSize
	if end < 0 || size > len(r.rest) {
		r.rest, r.err = nil, errShort
		return ""
	}
	text := string(r.rest[:end])
	r.rest = r.rest[size:]
	return text
}
