package native

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// linkLocal is where every peer's address is from (RFC 4291 §2.5.6).
var linkLocal = netip.MustParsePrefix("fe80::/10")

// dialTimeout bounds one attempt: a peer on the same cable answers at once
// or not at all.
const dialTimeout = 3 * time.Second

// Package net remembers for a minute which index belongs to a zone's name
// (zoneCache in net/interface.go), which is wrong once a port was made anew, and
// to find one port it lists all. So zones are turned into indices, and back, by
// asking the kernel for the one (netdevice(7)), and connections are bound to their
// port in place of a zone.

func portIndex(name string) (index int, err error) {
	err = withSocket(func(fd int) (err error) {
		index, err = portIndexBy(fd, name)
		return err
	})
	return index, err
}

func portIndexBy(fd int, name string) (int, error) {
	request, err := unix.NewIfreq(name)
	if err != nil {
		return 0, fmt.Errorf("find port %q: %w", name, err)
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, request); err != nil {
		return 0, fmt.Errorf("find port %s: %w", name, err)
	}
	return int(request.Uint32()), nil
}

func portName(fd int, index uint32) (string, error) {
	request, err := unix.NewIfreq("")
	if err != nil {
		return "", fmt.Errorf("find port %d: %w", index, err)
	}
	// The index lies where most requests have their value (struct ifreq).
	request.SetUint32(index)
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFNAME, request); err != nil {
		return "", fmt.Errorf("find port %d: %w", index, err)
	}
	return request.Name(), nil
}

// ownLinkLocal is the address by which this node speaks to a peer.
func ownLinkLocal(peer netip.Addr) (own netip.Addr, err error) {
	err = withSocket(func(fd int) error {
		index, err := portIndexBy(fd, peer.Zone())
		if err != nil {
			return err
		}
		// Nothing is sent: the kernel chooses the address that it would send from.
		if err := unix.Connect(fd, &unix.SockaddrInet6{Addr: peer.As16(), ZoneId: uint32(index), Port: 179}); err != nil {
			return fmt.Errorf("find the way to %s: %w", peer, err)
		}
		name, err := unix.Getsockname(fd)
		if err != nil {
			return fmt.Errorf("find the address to speak to %s by: %w", peer, err)
		}
		if a, ok := name.(*unix.SockaddrInet6); ok {
			own = netip.AddrFrom16(a.Addr)
		}
		return nil
	})
	return own, err
}

// withSocket lends a socket that questions to the kernel go by.
func withSocket(ask func(fd int) error) error {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open a socket: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	return ask(fd)
}

// dial connects to a peer, signed with password if there is one. The hop
// limit is 255 so that the far side may insist on it (RFC 5082).
func dial(ctx context.Context, to netip.AddrPort, password string) (*net.TCPConn, error) {
	dialer := net.Dialer{
		Timeout:   dialTimeout,
		KeepAlive: -1, // BGP has its own
		Control: func(_, _ string, c syscall.RawConn) error {
			return control(c, func(fd int) error {
				if err := prepareSocket(fd); err != nil {
					return err
				}
				if err := unix.BindToDevice(fd, to.Addr().Zone()); err != nil {
					return fmt.Errorf("send by port %s: %w", to.Addr().Zone(), err)
				}
				return setSignature(fd, netip.PrefixFrom(to.Addr().WithZone(""), 128), password)
			})
		},
	}
	conn, err := dialer.DialContext(ctx, "tcp6", netip.AddrPortFrom(to.Addr().WithZone(""), to.Port()).String())
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

// listen opens the socket for incoming sessions, which are signed from the
// first on if there is a password.
func listen(ctx context.Context, at netip.AddrPort, password string) (*net.TCPListener, error) {
	config := net.ListenConfig{
		KeepAlive: -1,
		Control: func(_, _ string, c syscall.RawConn) error {
			return control(c, func(fd int) error {
				if err := prepareSocket(fd); err != nil || password == "" {
					return err
				}
				return setSignature(fd, linkLocal, password)
			})
		},
	}
	l, err := config.Listen(ctx, "tcp6", at.String())
	if err != nil {
		return nil, fmt.Errorf("listen for BGP on %s: %w", at, err)
	}
	return l.(*net.TCPListener), nil
}

// remoteAddr returns who is at the other end, the zone being the port's name.
func remoteAddr(conn *net.TCPConn) (addr netip.Addr, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return netip.Addr{}, err
	}
	err = control(raw, func(fd int) error {
		name, err := unix.Getpeername(fd)
		if err != nil {
			return err
		}
		peer, ok := name.(*unix.SockaddrInet6)
		if !ok || peer.ZoneId == 0 {
			return errors.New("not a link-local peer")
		}
		port, err := portName(fd, peer.ZoneId)
		addr = netip.AddrFrom16(peer.Addr).WithZone(port)
		return err
	})
	return addr, err
}

func control(c syscall.RawConn, f func(fd int) error) error {
	var err error
	if e := c.Control(func(fd uintptr) { err = f(int(fd)) }); e != nil {
		return e
	}
	return err
}

func prepareSocket(fd int) error {
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, 255); err != nil {
		return fmt.Errorf("set hop limit: %w", err)
	}
	// Internetwork control, as every router marks its protocols (RFC 4594 §3.1).
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_TCLASS, 0xc0); err != nil {
		return fmt.Errorf("set traffic class: %w", err)
	}
	return nil
}

// requireNeighbor makes the kernel drop segments of this connection that
// came through a router (RFC 5082 §3).
func requireNeighbor(conn *net.TCPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	return control(raw, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MINHOPCOUNT, 255)
	})
}

// setSignature makes the kernel sign and check every segment to and from
// peers with TCP-MD5 (RFC 2385); an empty password takes the key away.
func setSignature(fd int, peers netip.Prefix, password string) error {
	if len(password) > unix.TCP_MD5SIG_MAXKEYLEN {
		return fmt.Errorf("set TCP-MD5 key: %d bytes, at most %d are possible", len(password), unix.TCP_MD5SIG_MAXKEYLEN)
	}
	signature := unix.TCPMD5Sig{
		Flags:     unix.TCP_MD5SIG_FLAG_PREFIX,
		Prefixlen: uint8(peers.Bits()),
		Keylen:    uint16(len(password)),
	}
	copy(signature.Key[:], password)
	// struct sockaddr_in6: family in host order, address at offset 8.
	address := peers.Addr().As16()
	signature.Addr.Family = unix.AF_INET6
	copy(signature.Addr.Data[6:], address[:])
	err := unix.SetsockoptTCPMD5Sig(fd, unix.IPPROTO_TCP, unix.TCP_MD5SIG_EXT, &signature)
	if err == unix.ENOENT && password == "" {
		return nil
	}
	if err != nil {
		return fmt.Errorf("set TCP-MD5 key for %s: %w", peers, err)
	}
	return nil
}
