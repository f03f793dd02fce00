package uplink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/mdlayher/ndp"
	"github.com/mdlayher/packet"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// arpAsker asks by ARP (RFC 826).
type arpAsker struct {
	conn     *packet.Conn
	question []byte
	router   netip.Addr
}

func openARP(t target) (asker, error) {
	device, err := t.device()
	if err != nil {
		return nil, err
	}
	conn, err := packet.Listen(device, packet.Raw, unix.ETH_P_ARP, nil)
	if err != nil {
		return nil, fmt.Errorf("ask for the router by ARP: %w", err)
	}
	return &arpAsker{conn, arpQuestion(device.HardwareAddr, t.source, t.router), t.router}, nil
}

func (a *arpAsker) close() error { return a.conn.Close() }

func (a *arpAsker) ask() error {
	if _, err := a.conn.WriteTo(a.question, &packet.Addr{HardwareAddr: broadcastMAC()}); err != nil {
		return fmt.Errorf("ask for the router by ARP: %w", err)
	}
	return nil
}

func (a *arpAsker) answered(deadline time.Time) error {
	if err := a.conn.SetReadDeadline(deadline); err != nil {
		return fmt.Errorf("wait for the router's ARP: %w", err)
	}
	var frame [128]byte
	for {
		n, _, err := a.conn.ReadFrom(frame[:])
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return errSilent
		case err != nil:
			return fmt.Errorf("wait for the router's ARP: %w", err)
		case arpAnswers(frame[:n], a.router):
			return nil
		}
	}
}

func broadcastMAC() net.HardwareAddr { return net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff} }

// Lengths and offsets of an ARP frame over Ethernet.
const (
	ethernetHeader = 14
	arpLength      = 28
	arpReply       = 2
)

// arpQuestion is a whole frame: who has the router's address?
func arpQuestion(mac net.HardwareAddr, source, router netip.Addr) []byte {
	frame := append(broadcastMAC(), mac...)
	frame = binary.BigEndian.AppendUint16(frame, unix.ETH_P_ARP)
	frame = append(frame, 0, 1, 8, 0, 6, 4, 0, 1) // Ethernet, IPv4, and their sizes; a request
	frame = append(append(frame, mac...), source.AsSlice()...)
	return append(append(frame, make([]byte, 6)...), router.AsSlice()...)
}

// arpAnswers tells whether a frame is the router's answer.
func arpAnswers(frame []byte, router netip.Addr) bool {
	if len(frame) < ethernetHeader+arpLength {
		return false
	}
	arp := frame[ethernetHeader:]
	if binary.BigEndian.Uint16(arp[2:]) != unix.ETH_P_IP || arp[4] != 6 || arp[5] != 4 || binary.BigEndian.Uint16(arp[6:]) != arpReply {
		return false
	}
	return netip.AddrFrom4([4]byte(arp[14:])) == router
}

// ndAsker asks by neighbour solicitation (RFC 4861 §7.2).
type ndAsker struct {
	conn     *ndp.Conn
	question *ndp.NeighborSolicitation
	group    netip.Addr
	router   netip.Addr
}

func openND(t target) (asker, error) {
	device, err := t.device()
	if err != nil {
		return nil, err
	}
	conn, _, err := ndp.Listen(device, ndp.LinkLocal)
	if err != nil {
		return nil, fmt.Errorf("ask for the router from a link-local address of %s: %w", t.port, err)
	}
	router := t.router.WithZone("")
	group, err := ndp.SolicitedNodeMulticast(router)
	if err == nil {
		var filter ipv6.ICMPFilter
		filter.SetAll(true)
		filter.Accept(ipv6.ICMPTypeNeighborAdvertisement)
		err = errors.Join(conn.SetICMPFilter(&filter), conn.SetControlMessage(ipv6.FlagHopLimit, true))
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("ask for the router by neighbour solicitation: %w", err)
	}
	question := &ndp.NeighborSolicitation{
		TargetAddress: router,
		Options:       []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Source, Addr: device.HardwareAddr}},
	}
	return &ndAsker{conn, question, group, router}, nil
}

func (a *ndAsker) close() error { return a.conn.Close() }

func (a *ndAsker) ask() error {
	if err := a.conn.WriteTo(a.question, nil, a.group); err != nil {
		return fmt.Errorf("ask for the router by neighbour solicitation: %w", err)
	}
	return nil
}

// hopLimit shows that a message comes from the link (RFC 4861 §7.1.2).
const hopLimit = 255

func (a *ndAsker) answered(deadline time.Time) error {
	if err := a.conn.SetReadDeadline(deadline); err != nil {
		return fmt.Errorf("wait for the router's advertisement: %w", err)
	}
	for {
		message, control, _, err := a.conn.ReadFrom()
		var bad net.Error
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return errSilent
		case errors.As(err, &bad):
			return fmt.Errorf("wait for the router's advertisement: %w", err)
		case err != nil:
			continue // malformed: somebody else's fault
		}
		advert, ok := message.(*ndp.NeighborAdvertisement)
		if ok && advert.TargetAddress == a.router && control != nil && control.HopLimit == hopLimit {
			return nil
		}
	}
}
