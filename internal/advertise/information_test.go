package advertise

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
)

var guestDUID = &dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: net.HardwareAddr{2, 0x67, 0, 0, 0, 1}}

// request is a guest's question; what change makes of it counts.
func request(change ...func(*dhcpv6.Message)) []byte {
	m := &dhcpv6.Message{MessageType: dhcpv6.MessageTypeInformationRequest, TransactionID: dhcpv6.TransactionID{1, 2, 3}}
	m.AddOption(dhcpv6.OptClientID(guestDUID))
	m.AddOption(dhcpv6.OptRequestedOption(dhcpv6.OptionDNSRecursiveNameServer, dhcpv6.OptionDomainSearchList, dhcpv6.OptionInformationRefreshTime))
	for _, f := range change {
		f(m)
	}
	r := Router{MAC: [6]byte{2, 0x67, 0, 0, 0, 1}, LinkLocal: netip.MustParseAddr("fe80::67")}
	b := datagram(r, target{[6]byte{0x33, 0x33, 0, 1, 0, 2}, allServers}, m.ToBytes())
	b[sizeHeaders+1], b[sizeHeaders+3] = clientPort&0xff, serverPort&0xff // from a client, to a server
	return b
}

func TestInformation(t *testing.T) {
	reply, err := information(testRouter, request())
	must(t, err)
	if sum := checksum(udp, reply[offsetSource:sizeHeaders], reply[sizeHeaders:]); sum != 0 {
		t.Errorf("the checksum is off by %#x", sum)
	}
	if to := netip.AddrFrom16([16]byte(reply[offsetDestination:])); to != netip.MustParseAddr("fe80::67") || [6]byte(reply) != [6]byte{2, 0x67, 0, 0, 0, 1} {
		t.Errorf("the reply goes to %v, %x", to, reply[:6])
	}
	m, err := dhcpv6.MessageFromBytes(reply[sizeHeaders+sizeUDP:])
	must(t, err)
	if m.MessageType != dhcpv6.MessageTypeReply || m.TransactionID != (dhcpv6.TransactionID{1, 2, 3}) || !m.Options.ClientID().Equal(guestDUID) || m.Options.ServerID() == nil {
		t.Errorf("the reply is %v", m)
	}
	if dns := m.Options.DNS(); len(dns) != 1 || dns[0].String() != "fd00:1::1" {
		t.Errorf("name servers %v", dns)
	}
	if search := m.Options.DomainSearchList(); search == nil || len(search.Labels) != 1 || search.Labels[0] != "blue.apollo" {
		t.Errorf("search list %v", search)
	}
	if refresh := m.Options.InformationRefreshTime(0); refresh != 30*time.Minute {
		t.Errorf("refresh after %v", refresh)
	}
}

func TestUnwantedQuestions(t *testing.T) {
	changed := func(change func(b []byte)) []byte {
		b := request()
		change(b)
		return b
	}
	for _, test := range []struct {
		name  string
		frame []byte
		ok    bool
	}{
		{"sound", request(), true},
		{"without a client", request(func(m *dhcpv6.Message) { m.Options.Del(dhcpv6.OptionClientID) }), true},
		{"for this server", request(dhcpOption(dhcpv6.OptServerID(&dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: testRouter.MAC[:]}))), true},
		{"for another server", request(dhcpOption(dhcpv6.OptServerID(guestDUID))), false},
		{"for an address", request(dhcpOption(&dhcpv6.OptIANA{})), false},
		{"solicit", request(func(m *dhcpv6.Message) { m.MessageType = dhcpv6.MessageTypeSolicit }), false},
		{"to one", changed(func(b []byte) { b[offsetDestination] = 0xfe }), false},
		{"from afar", changed(func(b []byte) { b[offsetSource] = 0x20 }), false},
		{"from a group", changed(func(b []byte) { b[offsetEtherSource] |= 1 }), false},
		{"another port", changed(func(b []byte) { b[sizeHeaders+3]++ }), false},
		{"cut short", request()[:sizeHeaders+sizeUDP+3], false},
		{"length too great", changed(func(b []byte) { b[sizeHeaders+4] = 0xff }), false},
		{"length too small", changed(func(b []byte) { b[sizeHeaders+5] = 7 }), false},
		{"headers only", request()[:sizeHeaders], false},
	} {
		if _, err := information(testRouter, test.frame); (err == nil) != test.ok {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

func dhcpOption(o dhcpv6.Option) func(*dhcpv6.Message) {
	return func(m *dhcpv6.Message) { m.AddOption(o) }
}

func TestInformationIsBounded(t *testing.T) {
	var s schedule
	now, answered := time.Unix(1_000_000_000, 0), 0
	for range 10_000 {
		if s.informs(now) {
			answered++
		}
		now = now.Add(time.Millisecond)
	}
	if answered != 10*maxInformed {
		t.Errorf("answered %d times in ten seconds", answered)
	}
}

func FuzzInformation(f *testing.F) {
	f.Add(request())
	f.Add(request(dhcpOption(&dhcpv6.OptIANA{})))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		reply, err := information(testRouter, b)
		if err != nil {
			return
		}
		if checksum(udp, reply[offsetSource:sizeHeaders], reply[sizeHeaders:]) != 0 {
			t.Errorf("%x is answered with a wrong checksum", b)
		}
		if len(reply) > 2*len(b)+256 {
			t.Errorf("%d octets are answered with %d", len(b), len(reply))
		}
	})
}

// Debian's client learns name servers from this, on its guest's port alone.
func TestDhclient(t *testing.T) {
	t.Parallel()
	sw, g := newSwitch(t), newHost(t)
	g.plug(sw, "tap1")
	a, _ := sw.advertise()
	r := testRouter
	r.Links = []Link{sw.link("tap1")}
	a.Set([]Router{r})
	g.eventually("an address", ownAddresses, has("fd00:1:"))
	dir := t.TempDir()
	script := filepath.Join(dir, "script")
	must(t, os.WriteFile(script, []byte("#!/bin/sh\necho $reason $new_dhcp6_name_servers $new_dhcp6_domain_search >>"+dir+"/heard\n"), 0o755))
	out := g.run("timeout 20 dhclient -6 -S -1 -d -v -sf " + script + " -pf " + dir + "/pid -lf " + dir + "/leases eth0 2>&1 & child=$!; " +
		"for i in $(seq 200); do grep -q RENEW6 " + dir + "/heard 2>/dev/null && break; sleep 0.1; done; kill $child 2>/dev/null || true; wait $child || true; cat " + dir + "/heard")
	if !has("RENEW6 fd00:1::1 blue.apollo")(out) {
		t.Errorf("dhclient says\n%s", out)
	}
}
