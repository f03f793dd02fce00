package ra

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/mdlayher/ndp"
	"golang.org/x/net/ipv6"
)

// Groups of RFC 4291 §2.7.1.
var (
	allNodes   = netip.MustParseAddr("ff02::1")
	allRouters = netip.MustParseAddr("ff02::2")
)

// port is a port at work. Discovery's goroutine owns it; its reader only
// uses the connection that it was given.
type port struct {
	Port
	conn       *ndp.Conn // nil until it could be opened
	table      table
	due        time.Time // next advertisement
	answered   time.Time
	sent       int
	complained bool
}

// heard is what a reader heard, or why it stopped.
type heard struct {
	port         *port
	from         netip.Addr
	solicitation bool
	err          error
}

// listen opens the port's socket, deaf to all but routers' messages.
func (p *port) listen() error {
	ifi := &net.Interface{Index: p.Index, Name: p.Name, HardwareAddr: p.MAC}
	conn, _, err := ndp.Listen(ifi, ndp.Addr(p.Addr.String()))
	if err != nil {
		return fmt.Errorf("open ICMPv6 socket on %s: %w", p.Name, err)
	}
	if err := configure(conn); err != nil {
		_ = conn.Close()
		return fmt.Errorf("configure ICMPv6 socket on %s: %w", p.Name, err)
	}
	p.conn = conn
	return nil
}

func configure(conn *ndp.Conn) error {
	var filter ipv6.ICMPFilter
	filter.SetAll(true)
	filter.Accept(ipv6.ICMPTypeRouterAdvertisement)
	filter.Accept(ipv6.ICMPTypeRouterSolicitation)
	if err := conn.SetICMPFilter(&filter); err != nil {
		return err
	}
	if err := conn.SetControlMessage(ipv6.FlagHopLimit|ipv6.FlagInterface, true); err != nil {
		return err
	}
	for _, group := range []netip.Addr{allNodes, allRouters} {
		if err := conn.JoinGroup(group); err != nil {
			return fmt.Errorf("join %s: %w", group, err)
		}
	}
	return nil
}

func (p *port) close() {
	if p.conn != nil {
		_ = p.conn.Close()
	}
}

// advertise sends one advertisement. What cannot be sent now is sent next
// time: on a cable that is on its way out that is no news.
func (p *port) advertise(now time.Time) {
	p.answered = now
	_ = p.conn.WriteTo(&ndp.RouterAdvertisement{Options: p.options()}, nil, allNodes)
}

// solicit asks who is there, so that the answer need not wait (RFC 4861 §6.3.7).
func (p *port) solicit() {
	_ = p.conn.WriteTo(&ndp.RouterSolicitation{Options: p.options()}, nil, allRouters)
}

// answer advertises to somebody who asked or is new here, not too often.
func (p *port) answer(now time.Time) {
	if p.conn != nil && now.Sub(p.answered) >= answerInterval {
		p.advertise(now)
	} else if next := p.answered.Add(answerInterval); next.Before(p.due) {
		p.due = next
	}
}

func (p *port) options() []ndp.Option {
	return []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Source, Addr: p.MAC}}
}

// read hands what is heard on a connection to Discovery until it fails.
func read(ctx context.Context, p *port, conn *ndp.Conn, out chan<- heard) {
	limit := limiter{known: make(map[source]time.Time)}
	buf := make([]byte, 1500)
	for {
		n, cm, from, err := conn.ReadRaw(buf)
		h := heard{port: p, from: from.WithZone(""), err: err}
		if err == nil {
			h.solicitation = n > 0 && ipv6.ICMPType(buf[0]) == ipv6.ICMPTypeRouterSolicitation
			if !sound(buf[:n], cm, p, h.from) || !limit.allow(source{h.from, h.solicitation}, time.Now()) {
				continue
			}
		}
		select {
		case out <- h:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// sound checks a message as RFC 4861 §6.1 demands: from a neighbour (hop
// limit 255, link-local source), whole, and on this port; our own do not count.
func sound(b []byte, cm *ipv6.ControlMessage, p *port, from netip.Addr) bool {
	if cm == nil || cm.HopLimit != ndp.HopLimit || cm.IfIndex != p.Index {
		return false
	}
	if from == p.Addr || !from.IsLinkLocalUnicast() {
		return false
	}
	const code, advertisementLength, solicitationLength = 1, 16, 8
	if len(b) < solicitationLength || b[code] != 0 {
		return false
	}
	return ipv6.ICMPType(b[0]) != ipv6.ICMPTypeRouterAdvertisement || len(b) >= advertisementLength
}
