package kernel_test

import (
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"frond/internal/dataplane"
	"frond/internal/kernel"
)

// leases is a namespace with a bridge that leased addresses are on.
func leases(t testing.TB) (*space, []dataplane.BridgeAddress) {
	t.Helper()
	s := newSpace(t)
	s.ip("link add br-blue type bridge")
	s.ip("link set br-blue addrgenmode none")
	s.ip("link set br-blue up")
	return s, []dataplane.BridgeAddress{
		{Bridge: "br-blue", Prefix: netip.MustParsePrefix("172.16.0.254/24")},
		{Bridge: "br-blue", Prefix: netip.MustParsePrefix("fd00::ff/64")},
	}
}

var began = time.Now()

func sinceBegan() time.Duration { return time.Since(began) }

func leased(addresses []dataplane.BridgeAddress, lifetime, before time.Duration) []kernel.LeasedAddress {
	var list []kernel.LeasedAddress
	for _, a := range addresses {
		list = append(list, kernel.LeasedAddress{BridgeAddress: a, Lifetime: lifetime, Before: before})
	}
	return list
}

func (s *space) leased() string { return s.ip("addr show br-blue") }

func TestLeasedAddresses(t *testing.T) {
	t.Parallel()
	s, known := leases(t)
	set := func(wanted []kernel.LeasedAddress) error {
		return s.kernel.SetLeased(t.Context(), known, nil, wanted, sinceBegan)
	}
	if err := set(leased(known, 100*time.Second, time.Hour)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"172.16.0.254/24", "fd00::ff/64", "valid_lft 100sec", "nodad"} {
		if got := s.leased(); !strings.Contains(got, want) {
			t.Errorf("want %s in\n%s", want, got)
		}
	}
	if got := s.leased(); strings.Contains(got, "tentative") {
		t.Errorf("want both usable:\n%s", got)
	}

	// Refreshed in place, one more often than the other.
	if err := set(append(leased(known[:1], 200*time.Second, time.Hour), leased(known[1:], 0, 0)...)); err != nil {
		t.Fatal(err)
	}
	if got := s.leased(); !strings.Contains(got, "valid_lft 200sec") || strings.Count(got, "valid_lft 1") != 0 && !strings.Contains(got, "fd00::ff") {
		t.Errorf("after a refresh:\n%s", got)
	}

	// Too late: nothing changes.
	if err := set(leased(known, 300*time.Second, sinceBegan()-1)); err == nil {
		t.Error("an address was set too late, without an error")
	}
	if got := s.leased(); strings.Contains(got, "valid_lft 300sec") {
		t.Errorf("set too late:\n%s", got)
	}

	// What somebody else sets stays, though it is not wanted here.
	if err := s.kernel.SetLeased(t.Context(), known[:1], known[1:], nil, sinceBegan); err != nil {
		t.Fatal(err)
	}
	if got := s.leased(); strings.Contains(got, "172.16.0.254/24") || !strings.Contains(got, "fd00::ff/64") {
		t.Errorf("beside somebody else:\n%s", got)
	}

	// What an earlier document had, on a bridge that is not known any more.
	s.ip("link add br-old type bridge")
	s.ip("link set br-old up")
	old := []dataplane.BridgeAddress{{Bridge: "br-old", Prefix: netip.MustParsePrefix("172.18.0.254/24")}}
	if err := s.kernel.SetLeased(t.Context(), old, nil, leased(old, 100*time.Second, time.Hour), sinceBegan); err != nil {
		t.Fatal(err)
	}
	s.ip("link set br-old name renamed")
	if err := set(leased(known, 100*time.Second, time.Hour)); err != nil {
		t.Fatal(err)
	}
	if got := s.ip("addr show renamed"); strings.Contains(got, "172.18.0.254") {
		t.Errorf("what nobody wants is still there:\n%s", got)
	}

	s.ip("addr add 172.16.9.9/24 dev br-blue") // the operator's
	if err := set(nil); err != nil {
		t.Fatal(err)
	}
	if got := s.leased(); strings.Contains(got, "172.16.0.254") || strings.Contains(got, "fd00::ff") || !strings.Contains(got, "172.16.9.9") {
		t.Errorf("after the lease:\n%s", got)
	}
	if err := set(nil); err != nil {
		t.Errorf("once more: %v", err)
	}
}

// An address of the operator's is not made one with a lifetime.
func TestLeasedAddressThatIsTaken(t *testing.T) {
	t.Parallel()
	s, known := leases(t)
	s.ip("addr add %s dev br-blue", known[0].Prefix)
	err := s.kernel.SetLeased(t.Context(), known, nil, leased(known, 100*time.Second, time.Hour), sinceBegan)
	if err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("error %v", err)
	}
	if err := s.kernel.SetLeased(t.Context(), known, nil, nil, sinceBegan); err != nil {
		t.Fatal(err)
	}
	if got := s.leased(); !strings.Contains(got, known[0].Prefix.String()) {
		t.Errorf("the operator's is gone:\n%s", got)
	}
}

func TestLeasedAddressWithoutBridge(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	known := []dataplane.BridgeAddress{{Bridge: "none", Prefix: netip.MustParsePrefix("172.16.0.254/24")}}
	if err := s.kernel.SetLeased(t.Context(), known, nil, nil, sinceBegan); err != nil {
		t.Error(err)
	}
	if err := s.kernel.SetLeased(t.Context(), known, nil, leased(known, time.Second, time.Hour), sinceBegan); err == nil {
		t.Error("no error")
	}
}

// BenchmarkLifetime measures how late the kernel removes an address whose
// lifetime is over: alone, and when another one was set shortly before.
//
//	go test ./internal/kernel -run - -bench Lifetime -benchtime 10x
func BenchmarkLifetime(b *testing.B) {
	for _, disturbed := range []bool{false, true} {
		for i, family := range []string{"ipv4", "ipv6"} {
			b.Run(fmt.Sprintf("%s/disturbed=%t", family, disturbed), func(b *testing.B) {
				s, known := leases(b)
				known = known[i : i+1]
				gone := removals(b, s)
				var late []time.Duration
				for n := 0; b.Loop(); n++ {
					if err := s.kernel.SetLeased(b.Context(), known, nil, leased(known, time.Second, 1<<62), sinceBegan); err != nil {
						b.Fatal(err)
					}
					over := time.Now().Add(time.Second)
					if disturbed {
						time.Sleep(time.Duration(100+80*(n%10)) * time.Millisecond)
						s.ip("addr replace 10.0.%d.1/32 dev lo", n%250)
						s.ip("addr replace fd01::%d/128 dev lo", n)
					}
					late = append(late, (<-gone).Sub(over))
				}
				slices.Sort(late)
				b.ReportMetric(late[len(late)/2].Seconds()*1000, "ms-late-median")
				b.ReportMetric(late[len(late)-1].Seconds()*1000, "ms-late-max")
			})
		}
	}
}

// removals tells when addresses of br-blue are removed.
func removals(b *testing.B, s *space) <-chan time.Time {
	b.Helper()
	monitor := exec.Command("ip", "-n", s.name, "-o", "monitor", "address")
	out, err := monitor.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := monitor.Start(); err != nil {
		b.Fatal(err)
	}
	gone := make(chan time.Time, 64)
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 64<<10)
		for {
			n, err := out.Read(buf)
			if err != nil {
				return
			}
			if strings.Contains(string(buf[:n]), "Deleted") {
				gone <- time.Now()
			}
		}
	}()
	b.Cleanup(func() {
		_ = monitor.Process.Kill()
		<-done
		_ = monitor.Wait()
	})
	time.Sleep(200 * time.Millisecond) // until it listens; a late one only loses the first figure
	return gone
}
