package versus

import (
	"fmt"
	"net/netip"
	"strings"
)

// makeFar gives far the prefixes as routes of its kernel, which it announces
// when it is told to, and addresses in some of them.
func (f *Fabric) makeFar() error {
	node, err := f.doc.Find(far)
	if err != nil {
		return err
	}
	if f.feeder, err = newFRR(f, frrStyle{}, node); err != nil {
		return err
	}
	var batch strings.Builder
	for i := range f.spec.Behind {
		fmt.Fprintf(&batch, "route add blackhole %s\n", prefixBehind(i))
	}
	for _, address := range f.probed() {
		fmt.Fprintf(&batch, "addr add %s/32 dev lo\n", address)
	}
	return f.feed(far, batch.String(), "ip", "-batch", "-")
}

// prefixBehind is the i-th prefix of those behind the last leaf.
func prefixBehind(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(20 + i>>16), byte(i >> 8), byte(i), 0}), 24)
}

// probed are addresses in the first and the last of the prefixes behind.
func (f *Fabric) probed() []netip.Addr {
	return []netip.Addr{prefixBehind(0).Addr().Next(), prefixBehind(f.spec.Behind - 1).Addr().Next()}
}

// announceAll has far announce its prefixes, or withdraw them.
func (f *Fabric) announceAll(announce bool) error {
	redistribute := "redistribute kernel"
	if !announce {
		redistribute = "no " + redistribute
	}
	node, err := f.doc.Find(far)
	if err != nil {
		return err
	}
	return f.feeder.ask(far, "configure terminal", fmt.Sprint("router bgp ", node.ASN), "address-family ipv4 unicast", redistribute)
}
