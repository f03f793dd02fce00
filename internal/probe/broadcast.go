package probe

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Copies is how often each host saw the broadcast of one of them.
type Copies struct {
	From int   // place among the hosts
	Seen []int // by place; at From, what the sender got back
}

// Once tells whether every other host saw it exactly once, and the sender
// did not.
func (c Copies) Once() bool {
	for to, n := range c.Seen {
		if n != c.want(to) {
			return false
		}
	}
	return true
}

func (c Copies) want(to int) int {
	if to == c.From {
		return 0
	}
	return 1
}

// belated is how long to listen for further copies once every host has one.
const belated = 100 * time.Millisecond

// Broadcast has each of the senders, places among the hosts, send a UDP
// datagram to 255.255.255.255, and counts the frames with it that come in on
// any interface of any host, before IP would drop one. It listens until every
// other host has each of them, or ctx ends, and a little longer for copies
// that follow. Hosts have IPv4 addresses, on interfaces of their own.
func Broadcast(ctx context.Context, hosts []Host, senders []int) ([]Copies, error) {
	b := &broadcast{hosts: hosts, senders: senders, missing: len(senders) * (len(hosts) - 1), all: make(chan struct{})}
	_, _ = rand.Read(b.id[:]) // never fails (crypto/rand)
	for i := range senders {
		b.copies = append(b.copies, Copies{From: senders[i], Seen: make([]int, len(hosts))})
	}
	defer b.close()
	if err := b.listen(); err != nil {
		return nil, err
	}
	if err := b.send(); err != nil {
		return nil, err
	}
	select {
	case <-b.all:
	case <-ctx.Done():
	}
	<-time.After(belated)
	b.close()
	return b.copies, nil
}

// broadcast is what is sent, and the sockets that see it.
type broadcast struct {
	hosts   []Host
	senders []int
	id      [8]byte
	sockets []*os.File
	readers sync.WaitGroup

	mu      sync.Mutex
	copies  []Copies // by sender
	missing int
	all     chan struct{} // closed when nothing is missing
}

// A datagram begins with the id, then comes the place of its sender among
// the senders.
const (
	offsetPayload = 20 + 8 // behind the headers of IPv4 and UDP
	sizePayload   = 8 + 4
)

func (b *broadcast) filter() []bpf.Instruction {
	return matching(offsetPayload+sizePayload,
		match{offsetPayload, 4, binary.BigEndian.Uint32(b.id[:])},
		match{offsetPayload + 4, 4, binary.BigEndian.Uint32(b.id[4:])})
}

func (b *broadcast) listen() error {
	for to, h := range b.hosts {
		socket, err := openPacket(h.NS, unix.SOCK_DGRAM, unix.ETH_P_IP, b.filter())
		if err != nil {
			return err
		}
		b.sockets = append(b.sockets, socket)
		b.readers.Go(func() { b.read(socket, to) })
	}
	return nil
}

func (b *broadcast) read(socket *os.File, to int) {
	var packet [offsetPayload + sizePayload]byte
	for {
		n, err := socket.Read(packet[:])
		switch {
		case errors.Is(err, unix.ENETDOWN): // of one interface
			continue
		case err != nil:
			return // closed
		case n == len(packet):
			b.saw(int(binary.BigEndian.Uint32(packet[offsetPayload+8:])), to)
		}
	}
}

func (b *broadcast) saw(sender, to int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if sender >= len(b.copies) {
		return
	}
	c := b.copies[sender]
	c.Seen[to]++
	if to == c.From || c.Seen[to] > 1 {
		return
	}
	if b.missing--; b.missing == 0 {
		close(b.all)
	}
}

func (b *broadcast) send() error {
	const discard = 9 // RFC 863: nobody answers
	everybody := net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), discard))
	for i, from := range b.senders {
		h := b.hosts[from]
		payload := binary.BigEndian.AppendUint32(b.id[:], uint32(i)) //nolint:gosec // a place
		err := h.NS.Do(func() error {
			conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(h.Addr, 0)))
			if err != nil {
				return err
			}
			defer func() { _ = conn.Close() }()
			_, err = conn.WriteTo(payload, everybody)
			return err
		})
		if err != nil {
			return fmt.Errorf("broadcast from %s in %s: %w", h.Addr, h.NS.Name(), err)
		}
	}
	return nil
}

// close ends the readers, after which nothing changes any more.
func (b *broadcast) close() {
	for _, s := range b.sockets {
		_ = s.Close()
	}
	b.readers.Wait()
}
