package uplink

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
)

var begun = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

// given is a server's last message, with an hour of lease.
func given(address string, options ...dhcpv4.Option) *nclient4.Lease {
	ack, _ := dhcpv4.New(dhcpv4.WithYourIP(net.ParseIP(address)))
	for _, o := range append([]dhcpv4.Option{dhcpv4.OptIPAddressLeaseTime(time.Hour)}, options...) {
		ack.UpdateOption(o)
	}
	return &nclient4.Lease{Offer: ack, ACK: ack, CreationTime: begun}
}

func mask(bits int) dhcpv4.Option { return dhcpv4.OptSubnetMask(net.CIDRMask(bits, 32)) }

func router(addresses ...string) dhcpv4.Option {
	var all []net.IP
	for _, a := range addresses {
		all = append(all, net.ParseIP(a))
	}
	return dhcpv4.OptRouter(all...)
}

func TestBind(t *testing.T) {
	for name, test := range map[string]struct {
		lease   *nclient4.Lease
		want    Lease
		problem string
	}{
		"all": {
			lease: given("192.0.2.2", mask(24), router("192.0.2.1"), dhcpv4.OptServerIdentifier(net.ParseIP("192.0.2.3"))),
			want: Lease{netip.MustParsePrefix("192.0.2.2/24"), netip.MustParseAddr("192.0.2.1"),
				netip.MustParseAddr("192.0.2.3"), begun.Add(time.Hour)},
		},
		"the second router": {
			lease: given("192.0.2.2", mask(24), router("0.0.0.0", "192.0.2.2", "192.0.2.9")),
			want:  Lease{netip.MustParsePrefix("192.0.2.2/24"), netip.MustParseAddr("192.0.2.9"), netip.Addr{}, begun.Add(time.Hour)},
		},
		"for ever": {
			lease: given("192.0.2.2", mask(24), router("192.0.2.1"), dhcpv4.OptIPAddressLeaseTime(0xffffffff*time.Second)),
			want:  Lease{netip.MustParsePrefix("192.0.2.2/24"), netip.MustParseAddr("192.0.2.1"), netip.Addr{}, time.Time{}},
		},
		"for no time": {
			lease: given("192.0.2.2", mask(24), router("192.0.2.1"), dhcpv4.OptIPAddressLeaseTime(0)),
			want:  Lease{netip.MustParsePrefix("192.0.2.2/24"), netip.MustParseAddr("192.0.2.1"), netip.Addr{}, begun.Add(2 * rest)},
		},
		"no router":          {lease: given("192.0.2.2", mask(24)), problem: "without a router"},
		"itself as router":   {lease: given("192.0.2.2", mask(24), router("192.0.2.2")), problem: "without a router"},
		"no mask":            {lease: given("192.0.2.2", router("192.0.2.1")), problem: "without a subnet mask"},
		"a mask with holes":  {lease: given("192.0.2.2", router("192.0.2.1"), dhcpv4.OptSubnetMask(net.IPv4Mask(255, 0, 255, 0))), problem: "without a subnet mask"},
		"no address":         {lease: given("0.0.0.0", mask(24), router("192.0.2.1")), problem: "no machine's"},
		"a group as address": {lease: given("224.0.0.9", mask(24), router("192.0.2.1")), problem: "no machine's"},
	} {
		b, err := bind(test.lease)
		switch {
		case test.problem != "":
			if err == nil || !strings.Contains(err.Error(), test.problem) {
				t.Errorf("%s: %v, want an error about %q", name, err, test.problem)
			}
		case err != nil:
			t.Errorf("%s: %v", name, err)
		case b.Lease != test.want:
			t.Errorf("%s: %+v, want %+v", name, b.Lease, test.want)
		}
	}
}

func TestWaitForRenewal(t *testing.T) {
	nak := &nclient4.ErrNak{Nak: given("0.0.0.0").ACK}
	until := func(left time.Duration) *binding { return &binding{Lease: Lease{Ends: begun.Add(left)}} }
	for name, test := range map[string]struct {
		binding *binding
		trouble error
		want    time.Duration
	}{
		"new":                 {until(20 * time.Minute), nil, 10 * time.Minute},
		"long":                {until(24 * time.Hour), nil, longest},
		"for ever":            {&binding{}, nil, longest},
		"short":               {until(12 * time.Second), nil, 6 * time.Second},
		"renewal failed":      {until(8 * time.Minute), errSilent, 4 * time.Minute},
		"near the end":        {until(7 * time.Second), errSilent, rest},
		"at the end":          {until(3 * time.Second), errSilent, 3 * time.Second},
		"no server":           {nil, errSilent, rest},
		"refused, begin anew": {nil, nak, 0},
	} {
		if got := test.binding.wait(begun, test.trouble); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

func TestLeaseOutlivesARestart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "lease")
	lease := given("192.0.2.2", mask(24), router("192.0.2.1"))
	b, err := bind(lease)
	if err != nil {
		t.Fatal(err)
	}
	recalled := func(port string, at time.Time) (*binding, error) { return recall(file, port, at) }
	if got, err := recalled("up0", begun); got != nil || err != nil {
		t.Errorf("before any lease: %v, %v", got, err)
	}
	if err := keep(file, "up0", b); err != nil {
		t.Fatal(err)
	}
	got, err := recalled("up0", begun.Add(30*time.Minute))
	if err != nil || got == nil || got.Lease != b.Lease || got.lease.ACK.Summary() != lease.ACK.Summary() {
		t.Errorf("kept %+v, recalled %+v, %v", b, got, err)
	}
	if got, _ := recalled("up1", begun); got != nil {
		t.Error("the lease of another port is used")
	}
	if got, _ := recalled("up0", begun.Add(time.Hour)); got != nil {
		t.Error("a lease that is over is used")
	}
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := recalled("up0", begun); got != nil || err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("of a damaged file: %v, %v", got, err)
	}
	for range 2 {
		if err := keep(file, "up0", nil); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a lease that is over is kept: %v", err)
	}
}
