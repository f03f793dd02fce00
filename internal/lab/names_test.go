package lab

import (
	"net"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"frond/internal/api"
)

// naming has the guests of a document with exits get their addresses by DHCP,
// and ask a name server in the internet for what is not the fabric's.
func naming(document string) string {
	return strings.Replace(document, "gateway: {",
		"dns: ["+FarAway()[0].String()+"], dhcp: {range: 172.16.1.0-172.16.9.255, reservations: "+
			`{printer: {mac: "02:00:00:00:00:99", address: 172.16.0.9}}}, gateway: {`, 1)
}

// TestNamesOfGuests has guests behind different nodes find each other by name, beside
// the guard, and what is outside by the document's name server.
func TestNamesOfGuests(t *testing.T) {
	w := outward(t, "names", 1, naming)
	w.whole()
	w.nameServer(Internet)
	one, two := w.ask("leaf1"), w.ask("leaf2")
	const dig = "dig +timeout=2 +tries=1 "
	below := ".blue." + w.Name
	for asking, other := range map[string]Guest{one.Name: two, two.Name: one} {
		for _, at := range []string{"@172.16.0.1 ", "+tcp @172.16.0.1 ", "@fd00:172:16::1 "} {
			w.shows(asking, dig+"+short "+at+other.Name+below, other.Address.Addr().String())
			w.shows(asking, dig+"+short "+at+"-x "+other.Address.Addr().String(), other.Name+below)
			w.shows(asking, dig+"+short "+at+"gateway"+below, "172.16.0.1")
			w.shows(asking, dig+"+short "+at+"printer"+below, "172.16.0.9")
			w.shows(asking, dig+"+short "+at+"www.example", "203.0.113.1")
			w.shows(asking, dig+at+"nobody"+below, "NXDOMAIN")
		}
	}
	for _, host := range []string{"spine1", Internet} {
		if out, _ := w.shell(host, dig+"@172.16.0.1 gateway"+below); !strings.Contains(out, "no servers could be reached") {
			t.Errorf("%s is no guest, but answered:\n%s", host, out)
		}
	}
	for _, node := range []string{"leaf1", "leaf2"} {
		guarded, err := api.NewClient(w.Socket(node)).Guard(t.Context())
		must(t, err)
		for _, d := range guarded.Drops {
			if d.Packets > 0 {
				t.Errorf("%s has dropped %d packets by %s: rule %s", node, d.Packets, d.Port, d.Rule)
			}
		}
	}

	must(t, api.NewClient(w.Socket("leaf2")).Release(t.Context(), two.Address.Addr().String()))
	w.shows(one.Name, dig+"@172.16.0.1 "+two.Name+below, "NXDOMAIN")
	w.shows(one.Name, dig+"@172.16.0.1 -x "+two.Address.Addr().String(), "NXDOMAIN")
}

// nameServer answers every question on a host with one address until the test
// ends.
func (w *world) nameServer(host string) {
	w.t.Helper()
	var conn net.PacketConn
	must(w.t, w.namespace(host).Do(func() (err error) {
		conn, err = net.ListenPacket("udp", ":53")
		return err
	}))
	server := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(to dns.ResponseWriter, query *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(query)
		m.Answer = []dns.RR{&dns.A{
			Hdr: dns.RR_Header{Name: query.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1},
			A:   net.IPv4(203, 0, 113, 1),
		}}
		_ = to.WriteMsg(m)
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.ActivateAndServe() // it ends when the socket is closed
	}()
	w.t.Cleanup(func() {
		_ = conn.Close()
		<-done
	})
}
