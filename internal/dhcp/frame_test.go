package dhcp

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"frond/internal/dataplane"
	"frond/internal/kv"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

func TestFrames(t *testing.T) {
	payload := []byte("a payload of odd length")
	frame := clientFrame(guestMAC(1), payload)
	if got, ok := parseFrame(append(bytes.Clone(frame), 0, 0, 0)); !ok || !bytes.Equal(got, payload) {
		t.Errorf("read %q, %t", got, ok)
	}
	for name, spoil := range map[string]func(f []byte) []byte{
		"cut off":           func(f []byte) []byte { return f[:len(f)-1] },
		"no header":         func(f []byte) []byte { return f[:20] },
		"IPv6":              func(f []byte) []byte { f[12] = 0x86; return f },
		"version":           func(f []byte) []byte { f[14] = 0x65; return f },
		"header too short":  func(f []byte) []byte { f[14] = 0x44; return f },
		"header too long":   func(f []byte) []byte { f[14] = 0x4f; return f[:60] },
		"TCP":               func(f []byte) []byte { f[23] = 6; return f },
		"first fragment":    func(f []byte) []byte { f[20] = 0x20; return f },
		"later fragment":    func(f []byte) []byte { f[21] = 1; return f },
		"another port":      func(f []byte) []byte { f[37] = 68; return f },
		"datagram too long": func(f []byte) []byte { f[39]++; return f },
		"datagram of none":  func(f []byte) []byte { f[38], f[39] = 0, 7; return f },
	} {
		if got, ok := parseFrame(spoil(bytes.Clone(frame))); ok {
			t.Errorf("%s: taken for %q", name, got)
		}
	}
	header := frame[sizeEthernet:]
	if got := fold(sum(header[:sizeIP])); got != 0xffff {
		t.Errorf("the header's sum is %#x", got)
	}
	answer := buildFrame(guestMAC(1), guestMAC(2), ip("10.0.0.1"), ip("10.0.0.2"), payload)[sizeEthernet:]
	pseudo := sum(answer[12:20]) + protocolUDP + uint32(len(answer)-sizeIP)
	if got := fold(pseudo + sum(answer[sizeIP:])); got != 0xffff {
		t.Errorf("the datagram's sum is %#x", got)
	}
}

func TestARP(t *testing.T) {
	probe := arpProbe(guestMAC(9), ip("172.16.0.20"))
	if len(probe) != 60 || binary.BigEndian.Uint16(probe[20:]) != arpRequest || !bytes.Equal(probe[38:42], []byte{172, 16, 0, 20}) {
		t.Errorf("the probe is %x", probe)
	}
	if _, _, ok := parseARPReply(probe); ok {
		t.Error("a probe is taken for an answer")
	}
	reply := arpAnswer(guestMAC(3), ip("172.16.0.20"))
	if mac, address, ok := parseARPReply(reply); !ok || mac != guestMAC(3) || address != ip("172.16.0.20") {
		t.Errorf("the answer is read as %s at %s", address, mac)
	}
	reply[sizeEthernet+27] = 1
	if _, _, ok := parseARPReply(reply); ok {
		t.Error("an answer to somebody is taken for one to a probe")
	}
}

func TestRequestsThatAreNone(t *testing.T) {
	for name, spoil := range map[string]func(m *dhcpv4.DHCPv4){
		"a reply":       func(m *dhcpv4.DHCPv4) { m.OpCode = dhcpv4.OpcodeBootReply },
		"relayed":       func(m *dhcpv4.DHCPv4) { m.GatewayIPAddr = []byte{10, 0, 0, 1} },
		"not Ethernet":  func(m *dhcpv4.DHCPv4) { m.HWType = 6 },
		"a group's MAC": func(m *dhcpv4.DHCPv4) { m.ClientHWAddr[0] = 1 },
		"no MAC":        func(m *dhcpv4.DHCPv4) { m.ClientHWAddr = make([]byte, 6) },
	} {
		m := message(t, dhcpv4.MessageTypeDiscover, guestMAC(1))
		spoil(m)
		if r, ok := parseRequest(dataplane.LocalPort{}, m.ToBytes()); ok {
			t.Errorf("%s: taken for %+v", name, r)
		}
	}
	id := dhcpv4.WithOption(dhcpv4.OptClientIdentifier([]byte{1, 2, 0, 0, 0, 0, 1}))
	one, _ := parseRequest(dataplane.LocalPort{}, message(t, dhcpv4.MessageTypeDiscover, guestMAC(1), id).ToBytes())
	other, _ := parseRequest(dataplane.LocalPort{}, message(t, dhcpv4.MessageTypeDiscover, guestMAC(1)).ToBytes())
	if one.client != other.client || one.client == "" {
		t.Errorf("a client with an identifier of its MAC is %s, without one %s", one.client, other.client)
	}
	if got := printable("a\x1b[31m\nb\xffc"); got != "a[31mbc" {
		t.Errorf("a terminal gets %q", got)
	}
}

// FuzzHeard has an agent hear anything: it neither crashes nor gives one
// address twice, and what it says can be read.
func FuzzHeard(f *testing.F) {
	for _, kind := range []dhcpv4.MessageType{dhcpv4.MessageTypeDiscover, dhcpv4.MessageTypeRequest, dhcpv4.MessageTypeRelease, dhcpv4.MessageTypeDecline, dhcpv4.MessageTypeInform} {
		m := message(f, kind, guestMAC(1), wanting(ip("172.16.0.12")), server(blue("172.16.0.11", "172.16.0.20")), having(ip("172.16.0.12")),
			dhcpv4.WithOption(dhcpv4.OptClientIdentifier([]byte{255, 1, 2})), dhcpv4.WithRequestedOptions(dhcpv4.OptionRouter))
		f.Add(clientFrame(guestMAC(1), m.ToBytes()))
	}
	f.Add(arpAnswer(guestMAC(2), ip("172.16.0.12")))
	f.Fuzz(func(t *testing.T, frame []byte) {
		b := newBench(&testing.T{}, kv.NewRecords(), "n1", blue("172.16.0.11", "172.16.0.20"))
		for range 3 {
			b.a.heard(b.port, frame, b.now)
			b.a.tick(b.now + time.Second)
			if c, ok := b.a.commit(b.now); ok {
				b.a.answered(c, b.store.Commit(c.txn), nil, b.now)
			}
			b.now += time.Second
		}
		b.a.tick(b.now)
		for _, s := range b.a.take().frames {
			if s.Port.Port == "" {
				continue
			}
			if _, err := dhcpv4.FromBytes(s.Frame[sizeEthernet+sizeHeaders:]); err != nil {
				t.Error("an answer cannot be read:", err)
			}
		}
	})
}

// FuzzRecord has an agent read anything that is in the store.
func FuzzRecord(f *testing.F) {
	f.Add("172.16.0.12", lease{Segment: "blue", Client: "x", Kind: leased, Hold: time.Hour, Run: "n1-1", Sent: time.Minute}.encode())
	f.Add("172.16.0.12", []byte("{}"))
	f.Add("fd00::1", []byte(`{"hold": -1}`))
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		store := kv.NewRecords()
		store.Commit(kv.Txn{Then: []kv.Operation{kv.Put(leasesPrefix+key, append([]byte{}, value...))}})
		b := newBench(t, store, "n1", blue("172.16.0.11", "172.16.0.14"))
		b.a.changed(store.Whole(), b.now)
		b.say(dhcpv4.MessageTypeDiscover, 1)
		b.a.report(b.now)
		b.a.leases("", b.now)
	})
}
