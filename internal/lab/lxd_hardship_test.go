package lab

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"frond/internal/status"
)

var pingLoss = regexp.MustCompile(`(\d+) packets transmitted, (\d+) received`)

// losesNothing has somebody on another node ping an instance while something
// happens to its hypervisor.
func (w *world) losesNothing(i Instance, happens func()) {
	w.t.Helper()
	ns, err := w.Host(w.ask(w.elsewhere(i.Node)).Name)
	must(w.t, err)
	defer func() { must(w.t, ns.Close()) }()
	var out bytes.Buffer
	ping := exec.CommandContext(w.t.Context(), "ping", "-i", "0.02", "-q", i.Address.String())
	ping.Stdout = &out
	must(w.t, ns.Start(ping))
	happens()
	must(w.t, ping.Process.Signal(os.Interrupt))
	must(w.t, ping.Wait())
	counts := pingLoss.FindStringSubmatch(out.String())
	if counts == nil || counts[1] != counts[2] {
		w.t.Errorf("packets are lost:\n%s", out.String())
	}
}

// knows tells whether an agent's hypervisor tells all of an instance.
func knows(h status.Hypervisor, i Instance) bool {
	return slices.ContainsFunc(h.Instances, func(o status.Instance) bool {
		return o.Name == i.Name && len(o.NICs) == 1 && o.NICs[0].Segment == "blue" && slices.Contains(o.NICs[0].IPs, i.Address.String())
	})
}

// away waits until an agent's hypervisor is away for a reason, and wants what it
// said to hold.
func (w *world) away(i Instance, contact, reason string) {
	w.t.Helper()
	w.hypervisor(i.Node, "is "+contact+", and what it said holds", func(h status.Hypervisor) bool {
		return h.Contact == contact && strings.Contains(h.Trouble, reason) && knows(h, i)
	})
	w.eventually(i.Node, "says so", func(s status.Snapshot) bool { return strings.Contains(fmt.Sprint(s.Conditions), "hypervisor-away") })
	w.station(w.elsewhere(i.Node), i.MAC, "stays where it is", func(m status.MAC) bool { return !gone(m) })
}

// connected waits until it is connected.
func (w *world) connected(i Instance) {
	w.t.Helper()
	w.hypervisor(i.Node, "is connected", func(h status.Hypervisor) bool { return h.Contact == "connected" && knows(h, i) })
	w.eventually(i.Node, "says nothing", func(s status.Snapshot) bool { return !strings.Contains(fmt.Sprint(s.Conditions), "hypervisor-") })
}

// outlivesLXD has the LXD of an instance's node end and start again. Meanwhile
// another member of the cluster has nothing to say of its instances, whose names
// stay.
func (w *world) outlivesLXD(i Instance) {
	w.losesNothing(i, func() {
		w.connected(i)
		must(w.t, w.StopLXD(w.t.Context(), i.Node))
		w.away(i, "away", "refused")
		nodes := slices.DeleteFunc(w.LXDNodes(), func(n string) bool { return n == i.Node })
		out, err := w.LXC(w.t.Context(), nodes[0], "launch", ImageAlias, "meanwhile", "--quiet", "--target", nodes[1])
		if err != nil {
			w.t.Errorf("launch another: %v\n%s", err, out)
		}
		mac := w.macOf(nodes[0], "meanwhile")
		w.station(nodes[0], mac, "is known by name", func(m status.MAC) bool { return m.Name == "meanwhile" })
		w.station(nodes[0], i.MAC, "keeps its name", func(m status.MAC) bool { return m.Name == i.Name })
		must(w.t, w.StartLXD(w.t.Context(), i.Node))
		w.connected(i)
	})
	w.lxc("delete -f meanwhile")
}

// macOf asks the LXD of a node for the MAC of an instance.
func (w *world) macOf(node, name string) string {
	w.t.Helper()
	out, err := w.LXC(w.t.Context(), node, "config", "get", name, "volatile.eth0.hwaddr")
	must(w.t, err)
	return strings.TrimSpace(out)
}

// outlivesFreeze has the LXD of an instance's node stand still: it takes
// connections, and does not answer.
func (w *world) outlivesFreeze(i Instance) {
	signal := func(s unix.Signal) {
		w.t.Helper()
		daemons, err := w.lxdDaemons(i.Node)
		must(w.t, err)
		for _, pid := range daemons {
			must(w.t, unix.Kill(pid, s))
		}
	}
	w.losesNothing(i, func() {
		signal(unix.SIGSTOP)
		w.away(i, "away", "no answer within")
		signal(unix.SIGCONT)
		w.connected(i)
	})
}

// outlivesImpostor has somebody else answer at the socket, and then nobody be there.
func (w *world) outlivesImpostor(i Instance) {
	socket := filepath.Join(w.LXDDir(i.Node), "unix.socket")
	w.losesNothing(i, func() {
		must(w.t, w.StopLXD(w.t.Context(), i.Node))
		must(w.t, os.Remove(socket))
		w.away(i, "absent", "")
		l, err := net.Listen("unix", socket)
		must(w.t, err)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = conn.Read(make([]byte, 4096)) // else it may be reset before it is read
				_, _ = io.WriteString(conn, strings.Repeat("\x00\xff", 4096))
				_ = conn.Close()
			}
		}()
		w.away(i, "away", "none of LXD's API")
		must(w.t, l.Close())
		<-done
		must(w.t, w.StartLXD(w.t.Context(), i.Node))
		w.connected(i)
	})
}

// outlivesCertificate has the cluster get another certificate, and then another
// instance.
func (w *world) outlivesCertificate(i Instance) {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	must(w.t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "another"}, DNSNames: []string{"another"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(w.t, err)
	private, err := x509.MarshalECPrivateKey(key)
	must(w.t, err)
	dir := w.t.TempDir()
	for name, block := range map[string]*pem.Block{"crt": {Type: "CERTIFICATE", Bytes: certificate}, "key": {Type: "EC PRIVATE KEY", Bytes: private}} {
		must(w.t, os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600))
	}
	w.losesNothing(i, func() {
		w.lxc("cluster update-certificate " + filepath.Join(dir, "crt") + " " + filepath.Join(dir, "key"))
		// The members have no way to each other for a moment.
		_, err := w.LXC(w.t.Context(), i.Node, "launch", ImageAlias, "later", "--target", i.Node, "--quiet")
		must(w.t, err)
		later, err := w.Addressed(w.t.Context(), "later")
		must(w.t, err)
		w.connected(later)
		w.connected(i)
		w.station(w.elsewhere(i.Node), later.MAC, "is known by name", func(m status.MAC) bool { return m.Name == "later" }) // an event may be lost
	})
	w.lxc("delete -f later")
}

// outlivesRemoval has a member be removed from the cluster by force: its
// instances run on, though no LXD knows of them.
func (w *world) outlivesRemoval(all []Instance) {
	for n := range all { // where it is by now
		var err error
		all[n], err = w.Instance(w.t.Context(), all[n].Name)
		must(w.t, err)
	}
	i := all[slices.IndexFunc(all, func(i Instance) bool { return i.Node != "leaf1" })]
	w.losesNothing(i, func() {
		w.lxc("cluster remove " + i.Node + " --force --yes")
		w.hypervisor(i.Node, "knows nothing of it", func(h status.Hypervisor) bool { return h.Contact == "connected" && !knows(h, i) })
		w.station(w.elsewhere(i.Node), i.MAC, "stays where it is", func(m status.MAC) bool { return !gone(m) })
		here := w.station(i.Node, i.MAC, "stays where it is", func(m status.MAC) bool { return m.Local })
		w.shows(i.Node, "nft list set netdev frond-guard places", place(here.Port, i.MAC))
	})
	left := all[slices.IndexFunc(all, func(o Instance) bool { return o.Node != i.Node })]
	w.connected(left)
}
