package uplink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Lease is what a DHCP server has given (RFC 2131).
type Lease struct {
	Address netip.Prefix
	Router  netip.Addr
	Server  netip.Addr
	Ends    time.Time // zero: never
}

// binding is a lease, and the server's words to renew it by.
type binding struct {
	Lease
	lease *nclient4.Lease
}

const (
	// answerTime is how long a server may take to answer; tries is how often
	// it is asked then before that is a failure.
	answerTime = 2 * time.Second
	tries      = 2
	// rest lies between two attempts at least (RFC 2131 §4.4.5 bounds those
	// of a renewal by 60 s, which is too long for leases of minutes).
	rest = 5 * time.Second
	// longest lies between two looks at a lease at most.
	longest = time.Hour
)

// outcome is what came of asking a server; without a binding there is no lease.
type outcome struct {
	lessee  *lessee
	binding *binding
	trouble error // of the last attempt
}

// lessee gets a lease and keeps it.
type lessee struct {
	port   string
	mac    net.HardwareAddr
	cancel context.CancelFunc
	ended  chan struct{}
}

func (w *Watcher) startLessee(ctx context.Context) {
	mac, err := net.ParseMAC(w.desired.MAC)
	if err != nil {
		w.state.Trouble = "the port has no MAC address to ask a DHCP server from"
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	l := &lessee{port: w.desired.Port, mac: mac, cancel: cancel, ended: make(chan struct{})}
	w.lessee = l
	known := w.known()
	w.state.Asking = known == nil
	go func() {
		defer close(l.ended)
		l.run(ctx, known, func(b *binding, trouble error) {
			select {
			case w.leases <- outcome{l, b, trouble}:
			case <-ctx.Done():
			}
		})
	}()
}

func (w *Watcher) stopLessee() {
	if w.lessee != nil {
		w.lessee.cancel()
		<-w.lessee.ended
		w.lessee = nil
	}
}

// leased takes what came of asking.
func (w *Watcher) leased(ctx context.Context, o outcome) {
	if o.lessee != w.lessee {
		return
	}
	before := w.state.Lease
	w.state.Lease, w.state.Asking, w.state.Trouble = Lease{}, false, ""
	if o.trouble != nil {
		w.state.Trouble = o.trouble.Error()
	}
	if o.binding != nil {
		w.state.Lease = o.binding.Lease
	}
	if before.Address != w.state.Lease.Address || before.Router != w.state.Lease.Router {
		w.log.Info("DHCP lease of the uplink", "port", w.desired.Port, "address", w.state.Lease.Address,
			"router", w.state.Lease.Router, "ends", w.state.Lease.Ends, "trouble", w.state.Trouble)
	}
	if err := keep(w.file, w.desired.Port, o.binding); err != nil {
		w.log.Warn("the lease of the uplink does not outlive a restart", "error", err)
	}
	w.look(ctx)
}

// run gets a lease and renews it until ctx ends. A lease from before is
// confirmed first.
func (l *lessee) run(ctx context.Context, b *binding, report func(*binding, error)) {
	for ctx.Err() == nil {
		next, err := l.attempt(ctx, b)
		if ctx.Err() != nil {
			return
		}
		switch {
		case err == nil:
			b = next
		case b != nil && (isRefused(err) || b.over(time.Now())):
			b = nil
		}
		report(b, err)
		pause(ctx, b.wait(time.Now(), err))
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

func isRefused(err error) bool {
	var nak *nclient4.ErrNak
	return errors.As(err, &nak)
}

func (b *binding) over(now time.Time) bool { return !b.Ends.IsZero() && !now.Before(b.Ends) }

// wait is how long nothing is to be asked: until half of what is left of a
// lease has passed (T1, RFC 2131 §4.4.5), but not beyond its end.
func (b *binding) wait(now time.Time, trouble error) time.Duration {
	switch {
	case b == nil && trouble != nil && isRefused(trouble):
		return 0
	case b == nil:
		return rest
	case b.Ends.IsZero():
		return longest
	}
	left := b.Ends.Sub(now)
	return max(min(max(left/2, rest), left, longest), 0)
}

// attempt asks once: for a lease, or for more time.
func (l *lessee) attempt(ctx context.Context, b *binding) (*binding, error) {
	conn, err := listenDHCP(l.port)
	if err != nil {
		return nil, fmt.Errorf("ask for a DHCP lease on %s: %w", l.port, err)
	}
	client, err := nclient4.NewWithConn(conn, l.mac, nclient4.WithTimeout(answerTime), nclient4.WithRetry(tries))
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("ask for a DHCP lease on %s: %w", l.port, err)
	}
	defer func() { _ = client.Close() }()
	var lease *nclient4.Lease
	if b == nil {
		lease, err = client.Request(ctx, dhcpv4.WithRequestedOptions(dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter))
	} else {
		lease, err = client.Renew(ctx, b.lease)
	}
	if err != nil {
		return nil, fmt.Errorf("no lease from a DHCP server on %s: %w", l.port, err)
	}
	return bind(lease)
}

// bind reads what a server has given.
func bind(lease *nclient4.Lease) (*binding, error) {
	ack := lease.ACK
	b := &binding{lease: lease}
	address, ok := netip.AddrFromSlice(ack.YourIPAddr.To4())
	if !ok || !isUsable(address) {
		return nil, fmt.Errorf("the DHCP server gives the address %s, which is no machine's", ack.YourIPAddr)
	}
	ones, bits := ack.SubnetMask().Size()
	if bits != 32 || ones == 0 {
		return nil, fmt.Errorf("the DHCP server gives the address %s without a subnet mask", address)
	}
	b.Address = netip.PrefixFrom(address, ones)
	for _, r := range ack.Router() {
		if a, ok := netip.AddrFromSlice(r.To4()); ok && isUsable(a) && a != address {
			b.Router = a
			break
		}
	}
	if !b.Router.IsValid() {
		return nil, fmt.Errorf("the DHCP server gives the address %s without a router", address)
	}
	b.Server, _ = netip.AddrFromSlice(ack.ServerIdentifier().To4())
	const never = 0xffffffff * time.Second // RFC 2131 §3.3
	if t := ack.IPAddressLeaseTime(0); t != never {
		b.Ends = lease.CreationTime.Add(max(t, 2*rest)).Round(0)
	}
	return b, nil
}

func isUsable(a netip.Addr) bool {
	return !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// listenDHCP hears what is for a DHCP client and nothing else: an exit carries
// more than a process could look at.
func listenDHCP(port string) (net.PacketConn, error) {
	device, err := net.InterfaceByName(port)
	if err != nil {
		return nil, err
	}
	filter, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 9, Size: 1}, // protocol
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_UDP, SkipTrue: 6},
		bpf.LoadAbsolute{Off: 6, Size: 2}, // flags and fragment offset
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x1fff, SkipTrue: 4},
		bpf.LoadMemShift{Off: 0},
		bpf.LoadIndirect{Off: 2, Size: 2}, // destination port
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: nclient4.ClientPort, SkipTrue: 1},
		bpf.RetConstant{Val: 1 << 16},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		return nil, fmt.Errorf("assemble the filter: %w", err)
	}
	raw, err := packet.Listen(device, packet.Datagram, unix.ETH_P_IP, &packet.Config{Filter: filter})
	if err != nil {
		return nil, err
	}
	return nclient4.NewBroadcastUDPConn(raw, &net.UDPAddr{Port: nclient4.ClientPort}), nil
}

// kept is a lease as it outlives a restart.
type kept struct {
	Port     string    `json:"port"`
	Obtained time.Time `json:"obtained"`
	ACK      []byte    `json:"ack"` // the server's last message, as on the wire
}

// keep writes a lease down, or removes what was written.
func keep(file, port string, b *binding) error {
	if b == nil {
		if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("forget a lease: %w", err)
		}
		return nil
	}
	text, err := json.Marshal(kept{port, b.lease.CreationTime, b.lease.ACK.ToBytes()})
	if err != nil {
		return fmt.Errorf("keep a lease: %w", err)
	}
	if err := os.WriteFile(file+".new", text, 0o600); err != nil {
		return fmt.Errorf("keep a lease: %w", err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		return fmt.Errorf("keep a lease: %w", err)
	}
	return nil
}

// recall reads the lease of the run before, nil if there is none that holds.
func recall(file, port string, now time.Time) (*binding, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("recall a lease: %w", err)
	}
	var k kept
	if err := json.Unmarshal(text, &k); err != nil {
		return nil, fmt.Errorf("recall a lease: %s: %w", file, err)
	}
	ack, err := dhcpv4.FromBytes(k.ACK)
	if err != nil {
		return nil, fmt.Errorf("recall a lease: %s: %w", file, err)
	}
	b, err := bind(&nclient4.Lease{Offer: ack, ACK: ack, CreationTime: k.Obtained})
	if err != nil || k.Port != port || b.over(now) {
		return nil, err
	}
	return b, nil
}

// known is the lease to go on with, nil if there is none.
func (w *Watcher) known() *binding {
	b, err := recall(w.file, w.desired.Port, time.Now())
	if err != nil {
		w.log.Warn("the lease from before cannot be used", "error", err)
	}
	return b
}

// remember shows the lease of the run before until a server has spoken.
func (w *Watcher) remember() {
	if b := w.known(); b != nil {
		w.state.Lease = b.Lease
	}
}
