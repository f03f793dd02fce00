package lab

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"

	"frond/internal/netns"
)

// What all DHCP servers are told that are measured beside each other. The lease
// is the shortest that dnsmasq gives.
const (
	loadLease = 2 * time.Minute
	loadFirst = "172.16.1.0"
	loadLast  = "172.16.99.255"
)

// Patience of clients, and of who waits for a server to start.
const (
	loadPatience = 2 * time.Second
	loadTries    = 10
)

// loadClient is one of the many clients that ask a server.
type loadClient struct {
	mac     net.HardwareAddr
	address net.IP // nil: it has none yet
	said    []byte // last
}

// loadedServer is a DHCP server, and the cable of all of its clients, from a
// namespace of theirs to a port of the server's bridge.
type loadedServer struct {
	name    string
	clients loadCable
	window  int // how many clients wait for it at a time
	cohorts [][]*loadClient

	leases, renewals []float64 // a second
	repeated         int       // messages that were not answered in time, or with a refusal
}

// BenchmarkDHCPServers has the same load of clients ask frond, dnsmasq and kea
// in turns: clients that have no address yet, and, when a quarter of the lease
// is over, the same ones as after a reboot (RFC 2131 §3.2), by which servers
// give the lease anew. Each asks from its own MAC, as a guest does, so that frond
// tells the fabric of it. Answers are broadcast, so that no server has to find
// out a client's MAC first.
func BenchmarkDHCPServers(b *testing.B) {
	const rounds, clients = 3, 1000
	kea, dnsmasq := needs(b, "kea-dhcp4", "kea-dhcp4-server"), needs(b, "dnsmasq", "dnsmasq-base")
	w := populate(b, "bench", SpineLeaf(1, 2), 1, leasing, func(document string) string {
		return strings.Replace(document, "dhcp: {range: 172.16.1.0-172.16.9.255}",
			fmt.Sprintf("mac_limit: 20000, dhcp: {range: %s-%s, lease: %s, port_limit: 20000}", loadFirst, loadLast, loadLease), 1)
	})
	w.steady()
	ns, err := w.Host("g1")
	must(b, err)
	servers := []*loadedServer{
		{name: "frond", clients: w.loadCable(ns), window: 512}, // each address is probed for 150 ms
		{name: "dnsmasq", clients: w.beside("dnsmasq", dnsmasqCommand(dnsmasq, b.TempDir())), window: 64},
		{name: "kea", clients: w.beside("kea", keaCommand(b, kea, b.TempDir())), window: 64},
	}
	for _, s := range servers {
		s.serve(b, newLoad(0, 16)) // until it is there
		s.repeated = 0
		for round := range rounds {
			s.cohorts = append(s.cohorts, newLoad(1+round, clients))
		}
	}
	inTurns := func(round int, measure func(*loadedServer)) {
		for i := range servers {
			s := servers[(round+i)%len(servers)]
			measure(s)
			if s.name == "frond" { // which goes on with what follows from leases
				w.metric("leaf1", "curl -s --unix-socket "+w.Socket("leaf1")+" http://frond/metrics", "frond_dhcp_unwritten_leases 0")
				time.Sleep(2 * time.Second)
			}
		}
	}
	for round := range rounds {
		inTurns(round, func(s *loadedServer) { s.leases = append(s.leases, s.serve(b, s.cohorts[round])) })
	}
	time.Sleep(loadLease / 4) // before that, frond has nothing to write down
	for round := range rounds {
		inTurns(round, func(s *loadedServer) { s.renewals = append(s.renewals, s.serve(b, s.cohorts[round])) })
	}
	for _, s := range servers {
		b.Logf("%s: new leases/s %.0f, renewals/s %.0f, %d messages repeated", s.name, s.leases, s.renewals, s.repeated)
		s.distinct(b)
		b.ReportMetric(median(s.leases), s.name+"-leases/s")
		b.ReportMetric(median(s.renewals), s.name+"-renewals/s")
		b.ReportMetric(float64(s.repeated), s.name+"-repeated")
	}
	for _, other := range servers[1:] {
		b.ReportMetric(median(servers[0].leases)/median(other.leases), "frond/"+other.name+"-leases")
		b.ReportMetric(median(servers[0].renewals)/median(other.renewals), "frond/"+other.name+"-renewals")
	}
	b.ReportMetric(0, "ns/op")
}

// needs finds a program of a Debian package that tests do not need.
func needs(b *testing.B, program, packageName string) string {
	b.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		b.Skipf("%s is not installed (Debian: apt-get install --no-install-recommends %s)", program, packageName)
	}
	return path
}

// newLoad is a cohort of clients, with MACs that are spread: dnsmasq offers one
// address to many clients at a time whose MACs follow each other.
func newLoad(number, clients int) (all []*loadClient) {
	const spread = 2654435769 // odd: no two are the same
	for i := range clients {
		mac := binary.BigEndian.AppendUint32([]byte{2, 0x64}, uint32(number<<16|i)*spread) //nolint:gosec // modulo 2³²
		all = append(all, &loadClient{mac: mac})
	}
	return all
}

// say sends what a client says next, or, for nil, what it has said last.
func (s *loadedServer) say(b *testing.B, c *loadClient, m *dhcpv4.DHCPv4) {
	b.Helper()
	if m != nil {
		m.SetBroadcast()
		c.said = m.ToBytes()
	}
	must(b, s.clients.say(c.mac, c.said))
}

// begin has a client ask for an address, or for the one that it had before it
// was booted.
func (s *loadedServer) begin(b *testing.B, c *loadClient) {
	b.Helper()
	m, err := dhcpv4.NewDiscovery(c.mac)
	must(b, err)
	if c.address != nil {
		m.UpdateOption(dhcpv4.OptMessageType(dhcpv4.MessageTypeRequest))
		m.UpdateOption(dhcpv4.OptRequestedIPAddress(c.address))
	}
	s.say(b, c, m)
}

// serve waits until each of the clients has a lease, and returns how many got
// one in a second.
func (s *loadedServer) serve(b *testing.B, clients []*loadClient) float64 {
	b.Helper()
	waiting := make(map[string]*loadClient, s.window)
	begun, tries := time.Now(), 0
	for next, done := 0, 0; done < len(clients); {
		if next < len(clients) && len(waiting) < s.window {
			c := clients[next]
			waiting[c.mac.String()] = c
			s.begin(b, c)
			next++
			continue
		}
		m := s.answer(b)
		if m == nil {
			if tries++; tries > loadTries {
				b.Fatalf("%s does not answer %d clients", s.name, len(waiting))
			}
			s.repeated += len(waiting)
			for _, c := range waiting {
				s.say(b, c, nil)
			}
			continue
		}
		c := waiting[m.ClientHWAddr.String()]
		if c == nil {
			continue // answered twice
		}
		switch m.MessageType() { //nolint:exhaustive // what a server says
		case dhcpv4.MessageTypeOffer:
			request, err := dhcpv4.NewRequestFromOffer(m)
			must(b, err)
			s.say(b, c, request)
		case dhcpv4.MessageTypeAck:
			c.address = m.YourIPAddr
			delete(waiting, m.ClientHWAddr.String())
			done++
		case dhcpv4.MessageTypeNak: // it begins again, as clients do
			s.repeated++
			c.address = nil
			s.begin(b, c)
		default:
			b.Fatalf("%s answers %s with %s", s.name, c.mac, m.Summary())
		}
	}
	return float64(len(clients)) / time.Since(begun).Seconds()
}

// answer is the next message of the server; nil: none for long.
func (s *loadedServer) answer(b *testing.B) *dhcpv4.DHCPv4 {
	b.Helper()
	m, err := s.clients.hear(time.Now().Add(loadPatience))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	must(b, err)
	return m
}

// distinct wants no two clients to have one address.
func (s *loadedServer) distinct(b *testing.B) {
	b.Helper()
	all := slices.Concat(s.cohorts...)
	slices.SortFunc(all, func(x, y *loadClient) int { return cmp.Compare(x.address.String(), y.address.String()) })
	for i, c := range all[1:] {
		if c.address.Equal(all[i].address) {
			b.Errorf("%s gives %s to %s and %s", s.name, c.address, c.mac, all[i].mac)
		}
	}
}

// loadCable is where many clients are behind, each with a MAC of its own: a packet
// socket, as answers may be sent to that.
type loadCable struct{ *os.File }

// loadCable is the eth0 of a namespace.
func (w *world) loadCable(ns *netns.NS) loadCable {
	w.t.Helper()
	var c loadCable
	must(w.t, ns.Do(func() error {
		eth0, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		const ip, buffer = unix.ETH_P_IP>>8 | unix.ETH_P_IP&0xff<<8, 16 << 20 // in network order; octets
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return err
		}
		c.File = os.NewFile(uintptr(fd), "eth0")
		return errors.Join(
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer),
			unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: eth0.Index, Protocol: ip}),
		)
	}))
	w.t.Cleanup(func() { _ = c.Close() })
	return c
}

// say sends what a client says to all DHCP servers.
func (c loadCable) say(mac net.HardwareAddr, message []byte) error {
	_, err := c.Write(append(ethernet(broadcast, mac, unix.ETH_P_IP),
		ipv4(netip.IPv4Unspecified(), netip.AddrFrom4([4]byte{255, 255, 255, 255}), unix.IPPROTO_UDP, udp(68, 67, string(message)))...))
	return err
}

// hear is the next that a DHCP server says.
func (c loadCable) hear(limit time.Time) (*dhcpv4.DHCPv4, error) {
	const headers = 14 + 20 + 8 // Ethernet, IPv4, UDP
	if err := c.SetReadDeadline(limit); err != nil {
		return nil, err
	}
	for {
		var buffer [1500]byte
		n, err := c.Read(buffer[:])
		if err != nil {
			return nil, err
		}
		if n > headers && buffer[14+9] == unix.IPPROTO_UDP && binary.BigEndian.Uint16(buffer[14+20+2:]) == 68 {
			return dhcpv4.FromBytes(buffer[headers:n])
		}
	}
}

// clientSocket is where the clients of a namespace hear and speak, by its eth0.
func (w *world) clientSocket(ns *netns.NS) *net.UDPConn {
	w.t.Helper()
	var conn net.PacketConn
	const buffer = 4 << 20 // octets
	listen := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var set error
		err := raw.Control(func(fd uintptr) {
			set = errors.Join(
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer),
				unix.BindToDevice(int(fd), "eth0"),
			)
		})
		return errors.Join(err, set)
	}}
	must(w.t, ns.Do(func() (err error) {
		conn, err = listen.ListenPacket(w.t.Context(), "udp4", ":68")
		return err
	}))
	w.t.Cleanup(func() { _ = conn.Close() })
	return conn.(*net.UDPConn)
}

// beside runs a server on a bridge in a namespace of its own, beside frond's,
// until the benchmark ends.
func (w *world) beside(name string, server *exec.Cmd) loadCable {
	w.t.Helper()
	commands := map[string][]string{name: {
		"ip link add br0 type bridge",
		"ip address add 172.16.0.1/16 dev br0",
		"ip link set br0 up",
		"ip link add vg1 type veth peer name eth0 netns " + namespace(w.Name, name+"-clients"),
		"ip link set vg1 master br0 up",
	}, name + "-clients": {
		"ip address add 172.16.0.11/16 dev eth0",
		"ip link set eth0 up",
	}}
	spaces := make(map[string]*netns.NS)
	for host := range commands {
		must(w.t, makeNode(namespace(w.Name, host)))
		ns, err := netns.Open(namespace(w.Name, host))
		must(w.t, err)
		w.t.Cleanup(func() { must(w.t, ns.Close()) })
		spaces[host] = ns
	}
	for _, host := range []string{name, name + "-clients"} {
		for _, line := range commands[host] {
			fields := strings.Fields(line)
			must(w.t, spaces[host].Do(func() error {
				out, err := exec.Command(fields[0], fields[1:]...).CombinedOutput()
				if err != nil {
					return fmt.Errorf("%s: %s: %w: %s", host, line, err, out)
				}
				return nil
			}))
		}
	}
	server.Stderr = os.Stderr
	must(w.t, spaces[name].Start(server))
	w.t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	})
	return w.loadCable(spaces[name+"-clients"])
}

// dnsmasqCommand has dnsmasq give addresses, and do nothing else. It asks for
// none of them by ping first: it would wait for three seconds, for one client
// at a time.
func dnsmasqCommand(program, dir string) *exec.Cmd {
	return exec.Command(program, "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--pid-file=", "--port=0",
		"--interface=br0", "--bind-interfaces", "--dhcp-authoritative", "--no-ping", "--quiet-dhcp", "--log-facility="+filepath.Join(dir, "log"),
		"--dhcp-leasefile="+filepath.Join(dir, "leases"), "--dhcp-lease-max=100000",
		fmt.Sprintf("--dhcp-range=%s,%s,255.255.0.0,%d", loadFirst, loadLast, int(loadLease.Seconds())))
}

// keaConfig is kea as it comes, with its leases in a file.
const keaConfig = `{"Dhcp4": {
	"interfaces-config": {"interfaces": ["br0"]},
	"lease-database": {"type": "memfile", "persist": true, "name": "%[1]s/leases.csv"},
	"authoritative": true,
	"valid-lifetime": %[2]d,
	"subnet4": [{
		"subnet": "172.16.0.0/16",
		"pools": [{"pool": "%[3]s - %[4]s"}],
		"option-data": [{"name": "routers", "data": "172.16.0.1"}]
	}],
	"loggers": [{"name": "kea-dhcp4", "severity": "WARN", "output_options": [{"output": "stderr"}]}]
}}`

func keaCommand(b *testing.B, program, dir string) *exec.Cmd {
	b.Helper()
	file := filepath.Join(dir, "kea.json")
	must(b, os.WriteFile(file, fmt.Appendf(nil, keaConfig, dir, int(loadLease.Seconds()), loadFirst, loadLast), 0o600))
	cmd := exec.Command(program, "-c", file)
	cmd.Env = append(os.Environ(), "KEA_PIDFILE_DIR="+dir, "KEA_LOCKFILE_DIR="+dir)
	return cmd
}
