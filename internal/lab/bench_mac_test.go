package lab

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	vns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// BenchmarkGuestMACs is the time from the first of many MACs behind a guest's port
// of leaf1 until leaf2's kernel sends to all of them, and from the port's end
// until it sends to none; through a spine. The time until the MACs are in
// leaf1's own bridge (s-entered) is part of it. Processor time is that of the
// agent of leaf1, the spine and leaf2, for one time there and back.
func BenchmarkGuestMACs(b *testing.B) {
	for _, many := range []int{10000, 50000} {
		b.Run(fmt.Sprint(many), func(b *testing.B) {
			waitForRTNL(b)
			w := populate(b, "bench", SpineLeaf(1, 2), 2, func(document string) string {
				return strings.Replace(document, "vni: 100,", "vni: 100, mac_limit: 60000,", 1)
			})
			w.whole()
			w.sendsTo("leaf2", "leaf1", 1)
			agents := make(map[string]int)
			for _, node := range []string{"leaf1", "spine1", "leaf2"} {
				pid, ok := w.AgentPID(node)
				if !ok {
					b.Fatalf("%s has no agent", node)
				}
				agents[node] = pid
			}
			before := w.cpu(b, agents)
			var entered, announced, withdrawn []float64
			const rounds = 5
			for range rounds {
				changed := w.watchEntries("leaf2", unix.RTM_NEWNEIGH, many)
				started := time.Now()
				w.addMACs("leaf1", "vg1", many)
				entered = append(entered, time.Since(started).Seconds())
				announced = append(announced, changed().Sub(started).Seconds())
				w.sendsTo("leaf2", "leaf1", many+1)
				changed = w.watchEntries("leaf2", unix.RTM_DELNEIGH, many+1)
				started = time.Now()
				w.onPort("leaf1", "vg1", netlink.LinkSetNoMaster)
				withdrawn = append(withdrawn, changed().Sub(started).Seconds())
				w.sendsTo("leaf2", "leaf1", 0)
				bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br-blue"}}
				w.onPort("leaf1", "vg1", func(port netlink.Link) error { return netlink.LinkSetMaster(port, bridge) })
				w.whole()
				w.sendsTo("leaf2", "leaf1", 1)
			}
			report(b, "s-entered", entered)
			report(b, "s-announced", announced)
			report(b, "s-withdrawn", withdrawn)
			for node, seconds := range w.cpu(b, agents) {
				b.ReportMetric((seconds-before[node])/rounds, "s-CPU-"+node)
				b.ReportMetric(residentMiB(b, agents[node]), "MiB-"+node)
			}
		})
	}
}

func (w *world) cpu(b *testing.B, agents map[string]int) map[string]float64 {
	b.Helper()
	used := make(map[string]float64)
	for node, pid := range agents {
		used[node] = cpuSeconds(b, pid)
	}
	return used
}

// addMACs has a bridge know so many MACs behind a port, as if it had learned them.
func (w *world) addMACs(node, port string, many int) {
	w.t.Helper()
	var batch strings.Builder
	for i := range many {
		fmt.Fprintf(&batch, "fdb add 02:68:00:%02x:%02x:%02x dev %s master dynamic\n", i>>16, i>>8&0xff, i&0xff, port)
	}
	must(w.t, w.namespace(node).Do(func() error {
		bridge := exec.Command("bridge", "-batch", "-")
		bridge.Stdin = strings.NewReader(batch.String())
		return bridge.Run()
	}))
}

func (w *world) onPort(node, port string, change func(netlink.Link) error) {
	w.t.Helper()
	must(w.t, w.namespace(node).Do(func() error {
		link, err := netlink.LinkByName(port)
		if err != nil {
			return err
		}
		return change(link)
	}))
}

// watchEntries hears a node's kernel until it has changed so many MACs of its
// VXLAN device and of the bridge, and returns when that was. To read the table
// again and again would hold up who changes it.
func (w *world) watchEntries(node string, change uint16, many int) func() time.Time {
	w.t.Helper()
	ns := w.namespace(node)
	space := vns.NsHandle(ns.Fd())
	updates, done := make(chan netlink.NeighUpdate, 1024), make(chan struct{})
	must(w.t, netlink.NeighSubscribeWithOptions(updates, done, netlink.NeighSubscribeOptions{
		Namespace: &space, ReceiveBufferSize: 64 << 20, ReceiveBufferForceSize: true,
	}))
	last := make(chan time.Time, 1)
	go func() {
		seen := make(map[string]struct{}, 2*many)
		for u := range updates {
			if u.Type == change && u.Family == unix.AF_BRIDGE && u.Flags&unix.NTF_EXT_LEARNED != 0 {
				seen[fmt.Sprint(u.HardwareAddr, u.Flags&unix.NTF_SELF)] = struct{}{}
			}
			if len(seen) == 2*many {
				last <- time.Now()
				close(done)
				return
			}
		}
	}()
	return func() time.Time {
		select {
		case at := <-last:
			return at
		case <-time.After(30 * time.Second):
			w.t.Fatalf("%s has not changed %d MACs", node, many)
			return time.Time{}
		}
	}
}

// sendsTo waits until a node's kernel sends so many MACs of segment blue to
// another node, no more and no fewer, by bridge and VXLAN device both.
func (w *world) sendsTo(node, to string, many int) {
	w.t.Helper()
	vtep, ns := w.node(to).Loopback.AsSlice(), w.namespace(node)
	var tunneled, bridged int
	for limit := time.Now().Add(30 * time.Second); ; time.Sleep(askInterval) {
		var entries []netlink.Neigh
		must(w.t, ns.Do(func() error {
			vxlan, err := netlink.LinkByName("vx-blue")
			if err != nil {
				return err
			}
			entries, err = netlink.NeighList(vxlan.Attrs().Index, unix.AF_BRIDGE)
			return err
		}))
		tunneled, bridged = 0, 0
		for _, e := range entries {
			switch {
			case e.Flags&unix.NTF_EXT_LEARNED == 0 || e.HardwareAddr.String() == "00:00:00:00:00:00":
			case e.Flags&unix.NTF_SELF == 0:
				bridged++
			case e.IP.Equal(vtep):
				tunneled++
			}
		}
		if tunneled == many && bridged == many {
			return
		}
		if time.Now().After(limit) {
			w.t.Fatalf("%s sends %d MACs to %s, %d of them from the bridge; want %d", node, tunneled, to, bridged, many)
		}
	}
}
