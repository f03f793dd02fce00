package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"frond/internal/dataplane"
	"frond/internal/netns"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Lost notifications are made up for by looking again.
func TestNotificationsAreLost(t *testing.T) {
	k, name := openAlone(t, "lost")
	socket, err := k.subscribe(notificationFilter, watchedGroups)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	const little = 1 // octets, which the kernel makes the least it can do with
	if err := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, little)
	}); err != nil {
		t.Fatal(err)
	}
	w := &watcher{kernel: k, socket: socket, news: make(chan struct{}, 1)}
	if err := w.readAll(); err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	for i := range 50 {
		fmt.Fprintf(&script, "link add a%d type veth peer name b%d\n", i, i)
	}
	ip := exec.Command("ip", "-n", name, "-batch", "-")
	ip.Stdin = strings.NewReader(script.String())
	if out, err := ip.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	events := make(chan dataplane.Event)
	go w.run(ctx, events)
	var links map[string]dataplane.Link
	drifted := false
	timeout := time.After(10 * time.Second)
	for len(links) != 101 || !drifted {
		select {
		case event := <-events:
			switch event := event.(type) {
			case dataplane.LinksChanged:
				links = event.Links
			case dataplane.Drifted:
				drifted = true
			}
		case <-timeout:
			t.Fatalf("%d links told, want lo and 100 others; drift told: %v", len(links), drifted)
		}
	}
	cancel()
	for range events { // until it is closed
	}
}

// openAlone is a kernel with a namespace of its own, until the test ends.
func openAlone(t *testing.T, purpose string) (k *Kernel, name string) {
	t.Helper()
	name = fmt.Sprintf("kernel-%d-%s", os.Getpid(), purpose)
	if err := netns.Create(name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netns.Delete(name); err != nil {
			t.Error(err)
		}
	})
	ns, err := netns.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ns.Close() }()
	if err := ns.Do(func() (err error) {
		k, err = New(slog.New(slog.DiscardHandler))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Close() })
	return k, name
}

func TestNotificationFilter(t *testing.T) {
	raw, err := notificationFilter([]uint32{7, 0xfffffff0, 9})
	if err != nil {
		t.Fatal(err)
	}
	program, _ := bpf.Disassemble(raw)
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	const other = 3
	tests := []struct {
		name     string
		kind     uint16
		port     uint32
		offset   int // of the protocol in the body
		protocol byte
		pass     bool
	}{
		{"a link", unix.RTM_NEWLINK, 0, 0, 0, true},
		{"a link that frond changed", unix.RTM_NEWLINK, 7, 0, 0, true},
		{"a link that is gone", unix.RTM_DELLINK, 0, 0, 0, true},
		{"an address", unix.RTM_NEWADDR, other, 0, 0, true},
		{"an address that frond set", unix.RTM_NEWADDR, 0xfffffff0, 0, 0, false},
		{"an address that frond deleted", unix.RTM_DELADDR, 9, 0, 0, false},
		{"somebody's route", unix.RTM_NEWROUTE, other, 5, unix.RTPROT_BGP, false},
		{"somebody deletes their route", unix.RTM_DELROUTE, other, 5, unix.RTPROT_BGP, false},
		{"somebody deletes frond's route", unix.RTM_DELROUTE, other, 5, Protocol, true},
		{"the kernel deletes frond's route", unix.RTM_DELROUTE, 0, 5, Protocol, true},
		{"frond sets its route", unix.RTM_NEWROUTE, 7, 5, Protocol, false},
		{"somebody's nexthop object", unix.RTM_NEWNEXTHOP, other, 2, unix.RTPROT_ZEBRA, false},
		{"somebody deletes frond's nexthop object", unix.RTM_DELNEXTHOP, other, 2, Protocol, true},
		{"frond deletes its nexthop object", unix.RTM_DELNEXTHOP, 9, 2, Protocol, false},
	}
	for _, test := range tests {
		packet := make([]byte, 64)
		binary.NativeEndian.PutUint16(packet[4:], test.kind)
		binary.NativeEndian.PutUint32(packet[12:], test.port)
		packet[unix.SizeofNlMsghdr+test.offset] = test.protocol
		n, err := vm.Run(packet)
		if err != nil || (n > 0) != test.pass {
			t.Errorf("%s: passes %v (%v), want %v", test.name, n > 0, err, test.pass)
		}
	}
}

// Bytes of a batch, as struct nlmsghdr, struct rtmsg and struct rtattr have
// them on a little-endian machine.
func TestRouteMessage(t *testing.T) {
	var b batch
	b.setRoute(dataplane.SetRoute{
		Prefix:    netip.MustParsePrefix("10.1.0.0/16"),
		NextHopID: 0x66000001,
		Source:    netip.MustParseAddr("10.0.0.1"),
	})
	b.deleteNextHop(dataplane.DeleteNextHop{ID: 1})
	b.seal(5)
	want := "3c00000018000105" + "0500000000000000" + "02100000fe660001" + "00000000" +
		"080001000a010000" + "0800060014000000" + "08001e0001000066" + "080007000a000001" +
		"2000000069000500" + "0600000000000000" + "0000000000000000" + "0800010001000000"
	if got := fmt.Sprintf("%x", b.data); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestRefusalIsTold(t *testing.T) {
	body := binary.NativeEndian.AppendUint32(nil, 0xffffffff-uint32(unix.ENETDOWN)+1)
	body = append(body, make([]byte, unix.SizeofNlMsghdr)...)
	body = appendAttribute(body, unix.NLMSGERR_ATTR_MSG, []byte("Carrier for nexthop device is down\x00"))
	err := message{kind: unix.NLMSG_ERROR, flags: unix.NLM_F_ACK_TLVS, body: body}.refusal()
	if !errors.Is(err, unix.ENETDOWN) || err.Error() != "network is down (Carrier for nexthop device is down)" {
		t.Errorf("got %v", err)
	}
	if err := (message{kind: unix.NLMSG_ERROR, body: make([]byte, 4)}).refusal(); err != nil {
		t.Errorf("success is told as %v", err)
	}
}

// Whatever a datagram holds, reading it ends and does not panic.
func FuzzParse(f *testing.F) {
	var b batch
	b.setGroup(dataplane.SetGroup{ID: 1, Members: []uint32{2, 3}})
	b.setRoute(dataplane.SetRoute{Prefix: netip.MustParsePrefix("fd00::/64"), NextHopID: 1})
	b.addAddress(netip.MustParsePrefix("10.0.0.1/32"), 1)
	b.seal(1)
	f.Add(b.data)
	f.Fuzz(func(_ *testing.T, data []byte) {
		d := &dumper{links: newLinkTable()}
		d.state.NextHops = make(map[uint32]dataplane.NextHop)
		d.state.Groups = make(map[uint32][]uint32)
		d.state.ForeignIDs = make(map[uint32]struct{})
		d.state.Routes = make(map[netip.Prefix]dataplane.InstalledRoute)
		for m := range parse(data) {
			_ = m.refusal()
			d.links.update(m)
			d.nextHop(m)
			d.route(m)
		}
		d.links.byName()
	})
}
