package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Packets sends UDP datagrams with so many octets of payload as fast as one
// sender can for the duration, from one host to another, and tells how many
// arrived per second. Where sender, forwarding and receiver share processors, it
// compares ways; it is no limit of one.
func Packets(ctx context.Context, from, to Host, octets int, duration time.Duration) (perSecond float64, err error) {
	var receiver, sender net.Conn
	err = to.NS.Do(func() error {
		at, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(to.Addr, 0)))
		receiver = at
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("listen on %s in %s: %w", to.Addr, to.NS.Name(), err)
	}
	defer func() { _ = receiver.Close() }()
	dialer := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(from.Addr, 0))}
	err = from.NS.Do(func() (err error) {
		sender, err = dialer.DialContext(ctx, "udp", receiver.LocalAddr().String())
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("send from %s in %s: %w", from.Addr, from.NS.Name(), err)
	}
	defer func() { _ = sender.Close() }()

	if err := arrives(ctx, sender, receiver); err != nil {
		return 0, err
	}
	var received atomic.Uint64
	var work sync.WaitGroup
	work.Go(func() {
		for buf := make([]byte, octets); ; received.Add(1) {
			if _, err := receiver.Read(buf); err != nil {
				return
			}
		}
	})
	work.Go(func() {
		for buf := make([]byte, octets); ; {
			// A refusal is a datagram that was not carried; only Close ends this.
			if _, err := sender.Write(buf); errors.Is(err, net.ErrClosed) {
				return
			}
		}
	})
	began := time.Now()
	timer := time.NewTimer(duration)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		err = ctx.Err()
	case <-timer.C:
	}
	perSecond = float64(received.Load()) / time.Since(began).Seconds()
	_ = sender.Close()
	_ = receiver.Close()
	work.Wait()
	return perSecond, err
}

// arrives waits until one datagram has arrived: in a flood of others, whom a
// neighbour's address is asked of would not be heard for a second.
func arrives(ctx context.Context, sender, receiver net.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	for buf := []byte{0}; ctx.Err() == nil; {
		if _, err := sender.Write(buf); err != nil {
			return fmt.Errorf("send a datagram: %w", err)
		}
		if err := receiver.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
			return err
		}
		if _, err := receiver.Read(buf); err == nil {
			return receiver.SetReadDeadline(time.Time{})
		}
	}
	return fmt.Errorf("no datagram from %s arrives at %s: %w", sender.LocalAddr(), receiver.LocalAddr(), ctx.Err())
}
