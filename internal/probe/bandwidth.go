package probe

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Throughput is what TCP carried in a time.
type Throughput struct {
	Bytes   uint64
	Elapsed time.Duration
}

// BitsPerSecond is the rate of payload.
func (t Throughput) BitsPerSecond() float64 {
	if t.Elapsed <= 0 {
		return 0
	}
	return float64(t.Bytes) * 8 / t.Elapsed.Seconds()
}

// Bandwidth sends over as many TCP connections as streams for the duration,
// from one host to another, and counts what arrives.
func Bandwidth(ctx context.Context, from, to Host, streams int, duration time.Duration) (Throughput, error) {
	listener, err := listen(ctx, to)
	if err != nil {
		return Throughput{}, err
	}
	defer func() { _ = listener.Close() }()
	ctx, cancel := context.WithTimeout(ctx, duration+dialTimeout)
	defer cancel()

	pairs, err := connect(ctx, from, listener, streams)
	defer pairs.close()
	if err != nil {
		return Throughput{}, err
	}
	return pairs.measure(ctx, duration), nil
}

const dialTimeout = 5 * time.Second

func listen(ctx context.Context, at Host) (net.Listener, error) {
	var listener net.Listener
	err := at.NS.Do(func() (err error) {
		listener, err = new(net.ListenConfig).Listen(ctx, "tcp", netip.AddrPortFrom(at.Addr, 0).String())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen on %s in %s: %w", at.Addr, at.NS.Name(), err)
	}
	return listener, nil
}

// connections are both ends of each stream.
type connections struct{ senders, receivers []net.Conn }

func connect(ctx context.Context, from Host, listener net.Listener, streams int) (c connections, err error) {
	dialer := net.Dialer{
		Timeout:   dialTimeout,
		LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from.Addr, 0)),
	}
	for range streams {
		err := from.NS.Do(func() error {
			conn, err := dialer.DialContext(ctx, "tcp", listener.Addr().String())
			if err == nil {
				c.senders = append(c.senders, conn)
			}
			return err
		})
		if err != nil {
			return c, fmt.Errorf("connect from %s in %s: %w", from.Addr, from.NS.Name(), err)
		}
		conn, err := listener.Accept()
		if err != nil {
			return c, fmt.Errorf("accept on %s: %w", listener.Addr(), err)
		}
		c.receivers = append(c.receivers, conn)
	}
	return c, nil
}

func (c connections) close() {
	for _, conn := range append(c.senders, c.receivers...) {
		_ = conn.Close()
	}
}

const bufferSize = 256 << 10

// measure lets all streams run until the duration is over. Ends of streams
// are no errors: what did not arrive was not carried.
func (c connections) measure(ctx context.Context, duration time.Duration) Throughput {
	var received atomic.Uint64
	var streams sync.WaitGroup
	start := time.Now()
	for i := range c.senders {
		streams.Go(func() {
			buf := make([]byte, bufferSize)
			for {
				if _, err := c.senders[i].Write(buf); err != nil {
					return
				}
			}
		})
		streams.Go(func() {
			buf := make([]byte, bufferSize)
			for {
				n, err := c.receivers[i].Read(buf)
				received.Add(uint64(n))
				if err != nil {
					return
				}
			}
		})
	}
	select {
	case <-ctx.Done():
	case <-time.After(duration):
	}
	result := Throughput{Bytes: received.Load(), Elapsed: time.Since(start)}
	c.close()
	streams.Wait()
	return result
}
