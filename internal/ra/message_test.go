package ra

import (
	"bytes"
	"net"
	"testing"

	"github.com/mdlayher/ndp"
	"golang.org/x/net/bpf"
)

var mac = net.HardwareAddr{2, 0, 0, 0, 0, 7}

func TestAdvertisement(t *testing.T) {
	want := []byte{134, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 0, 0, 0, 0, 7}
	got, err := advertise(mac)
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	m, err := ndp.ParseMessage(got)
	must(t, err)
	if a := m.(*ndp.RouterAdvertisement); a.RouterLifetime != 0 {
		t.Error("it must not make us a default router")
	}
}

func TestSolicitation(t *testing.T) {
	want := []byte{133, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 0, 0, 0, 0, 7}
	got, err := solicit(mac)
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestPortWithoutMAC(t *testing.T) {
	for _, mac := range []net.HardwareAddr{nil, {10, 0, 0, 1}} {
		got, err := advertise(mac)
		must(t, err)
		if len(got) != advertisementLength {
			t.Errorf("%v: an option of %d bytes", mac, len(got)-advertisementLength)
		}
	}
}

func TestKind(t *testing.T) {
	advert := bareAdvertisement
	with := func(b []byte, more ...byte) []byte { return append(bytes.Clone(b), more...) }
	for _, tt := range []struct {
		name    string
		message []byte
		want    byte // 0: not whole
	}{
		{"empty", nil, 0},
		{"one byte", advert[:1], 0},
		{"advertisement", advert, advertisement},
		{"advertisement, short", advert[:15], 0},
		{"advertisement, code 1", with([]byte{134, 1}, advert[2:]...), 0},
		{"solicitation", []byte{133, 0, 0, 0, 0, 0, 0, 0}, solicitation},
		{"solicitation, short", []byte{133, 0, 0, 0, 0, 0, 0}, 0},
		{"neighbour advertisement", with([]byte{136}, advert[1:]...), 0},
		{"option", with(advert, 1, 1, 2, 0, 0, 0, 0, 7), advertisement},
		{"unknown option", with(advert, 200, 1, 0, 0, 0, 0, 0, 0), advertisement},
		{"option of length 0", with(advert, 1, 0, 2, 0, 0, 0, 0, 7), 0},
		{"option longer than the message", with(advert, 1, 2, 2, 0, 0, 0, 0, 7), 0},
		{"half an option header", with(advert, 1), 0},
	} {
		got, ok := kind(tt.message)
		if got != tt.want && ok || ok != (tt.want != 0) {
			t.Errorf("%s: type %d, whole %v, want %d", tt.name, got, ok, tt.want)
		}
	}
}

// What they accept is shown by sockets, in the tests of discovery.
func TestFiltersAssemble(t *testing.T) {
	full := table{self: self}
	for n := range byte(maxNeighbors) {
		full.hear(neighbour(n), start0)
	}
	for _, program := range [][]bpf.Instruction{openFilter(), closedFilter(append(full.addresses(), self))} {
		if _, err := bpf.Assemble(program); err != nil {
			t.Error(err)
		}
	}
}
