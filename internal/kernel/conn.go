package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// receiveBuffer holds the refusals of a whole batch with their texts.
	receiveBuffer = 4 << 20
	// answerTimeout bounds the wait for a kernel that always answers at once.
	answerTimeout = 10 * time.Second
	// dumpAttempts bounds how often a dump is begun anew because the kernel's
	// tables changed meanwhile.
	dumpAttempts = 20
)

// conn is one rtnetlink socket, used by one goroutine at a time.
type conn struct {
	fd   int
	port uint32 // what the kernel knows it by (nl_pid, netlink(7))
	seq  uint32
	buf  []byte
}

func dial() (*conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	c := &conn{fd: fd, buf: make([]byte, 64<<10)}
	if err := c.prepare(); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *conn) prepare() error {
	if err := unix.Bind(c.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	address, err := unix.Getsockname(c.fd)
	if err != nil {
		return fmt.Errorf("getsockname: %w", err)
	}
	c.port = address.(*unix.SockaddrNetlink).Pid
	// Older kernels lack these; each only saves work or words.
	for _, option := range []int{unix.NETLINK_EXT_ACK, unix.NETLINK_CAP_ACK, unix.NETLINK_GET_STRICT_CHK} {
		_ = unix.SetsockoptInt(c.fd, unix.SOL_NETLINK, option, 1)
	}
	if err := unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer); err != nil {
		return fmt.Errorf("set the receive buffer (CAP_NET_ADMIN is needed): %w", err)
	}
	timeout := unix.NsecToTimeval(answerTimeout.Nanoseconds())
	return unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout)
}

func (c *conn) close() { _ = unix.Close(c.fd) }

// Error is the kernel's refusal, with its own explanation where it gave one.
type Error struct {
	Errno unix.Errno
	Text  string // NLMSGERR_ATTR_MSG
}

// Error returns the errno's words and the kernel's explanation.
func (e *Error) Error() string {
	if e.Text == "" {
		return e.Errno.Error()
	}
	return fmt.Sprintf("%s (%s)", e.Errno, e.Text)
}

// Unwrap returns the errno.
func (e *Error) Unwrap() error { return e.Errno }

// execute sends a batch in one system call and returns the refusals by the
// index of the message. The kernel answers refusals always, success only
// where it is asked to: that is the last message, which ends the answers.
func (c *conn) execute(b *batch) (map[int]error, error) {
	if b.len() == 0 {
		return nil, nil
	}
	first := c.seq + 1
	c.seq += uint32(b.len())
	b.seal(first)
	if err := unix.Sendto(c.fd, b.data, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("send %d netlink messages: %w", b.len(), err)
	}
	refused := make(map[int]error)
	for {
		messages, err := c.receive()
		if err != nil {
			return refused, err
		}
		for m := range messages {
			index := int(m.seq - first) // what answers something older lies far outside
			if m.kind != unix.NLMSG_ERROR || index < 0 || index >= b.len() {
				continue
			}
			if err := m.refusal(); err != nil {
				refused[index] = err
			}
			if index == b.len()-1 {
				return refused, nil
			}
		}
	}
}

// flush executes a batch and empties it. What became of each message is told for
// the operation that it is of.
func (c *conn) flush(b *batch, operations []int, tell func(operation int, err error)) {
	refused, err := c.execute(b)
	for message, i := range operations {
		if err != nil && refused[message] == nil {
			tell(i, err) // not known to be done: tried again
			continue
		}
		tell(i, refused[message])
	}
	b.reset()
}

// errInterrupted tells that a dump is no consistent picture (NLM_F_DUMP_INTR).
var errInterrupted = errors.New("the kernel's table changed during each of many dumps")

// dump asks for a table and hands over every entry. reset is called before
// each attempt: the entries so far are void.
func (c *conn) dump(kind uint16, body []byte, reset func(), entry func(m message)) error {
	for range dumpAttempts {
		reset()
		err := c.dumpOnce(kind, body, entry)
		if !errors.Is(err, errInterrupted) {
			return err
		}
	}
	return errInterrupted
}

func (c *conn) dumpOnce(kind uint16, body []byte, entry func(m message)) error {
	if err := c.request(kind, unix.NLM_F_DUMP, body); err != nil {
		return err
	}
	interrupted := false
	for {
		messages, err := c.receive()
		if err != nil {
			return err
		}
		for m := range messages {
			if m.seq != c.seq {
				continue
			}
			interrupted = interrupted || m.flags&unix.NLM_F_DUMP_INTR != 0
			switch m.kind {
			case unix.NLMSG_ERROR, unix.NLMSG_DONE:
				if err := m.refusal(); err != nil {
					return err
				}
				if interrupted {
					return errInterrupted
				}
				return nil
			}
			entry(m)
		}
	}
}

// get asks for one object.
func (c *conn) get(kind uint16, body []byte) (message, error) {
	if err := c.request(kind, 0, body); err != nil {
		return message{}, err
	}
	for {
		messages, err := c.receive()
		if err != nil {
			return message{}, err
		}
		for m := range messages {
			if m.seq != c.seq {
				continue
			}
			if m.kind == unix.NLMSG_ERROR {
				return message{}, m.refusal()
			}
			return m, nil
		}
	}
}

func (c *conn) request(kind uint16, flags uint16, body []byte) error {
	c.seq++
	data := make([]byte, unix.SizeofNlMsghdr, unix.SizeofNlMsghdr+len(body))
	data = append(data, body...)
	binary.NativeEndian.PutUint32(data, uint32(len(data)))
	binary.NativeEndian.PutUint16(data[4:], kind)
	binary.NativeEndian.PutUint16(data[6:], unix.NLM_F_REQUEST|flags)
	binary.NativeEndian.PutUint32(data[8:], c.seq)
	if err := unix.Sendto(c.fd, data, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("send netlink request: %w", err)
	}
	return nil
}

// receive waits for one datagram and returns its messages, which are valid
// until the next call.
func (c *conn) receive() (messages, error) {
	for {
		n, _, err := unix.Recvfrom(c.fd, c.buf, unix.MSG_TRUNC)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return nil, fmt.Errorf("rtnetlink did not answer within %s", answerTimeout)
		case err != nil:
			return nil, fmt.Errorf("receive from rtnetlink: %w", err)
		case n > len(c.buf):
			return nil, fmt.Errorf("rtnetlink message of %d octets: want at most %d", n, len(c.buf))
		}
		return parse(c.buf[:n]), nil
	}
}
