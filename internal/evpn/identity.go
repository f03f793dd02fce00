package evpn

// SetIdentity changes who the node is; Config.Now is not taken. Its segments
// and stations stay, and are told anew in the new name.
func (t *Table) SetIdentity(config Config) {
	config.Now = t.config.Now
	t.config = config
	for vni, s := range t.segments {
		s.rd = NewRD(config.RouterID, s.rd.number())
		t.originate(originKey{vni: vni}, Multicast{Attributes: t.attributes(s), Originator: config.VTEP})
		t.tellGateway(s)
		for _, m := range s.macs {
			t.touchMAC(m)
		}
		for _, a := range s.addresses {
			t.touchAddress(a)
		}
	}
	// The former name may be another node's by now, and the new one have been.
	for _, r := range t.routes {
		if t.isOwn(r) {
			t.detach(r)
		} else if !r.attached {
			t.attach(r)
		}
	}
	t.settle()
}

// isOwn tells that a route leads to this very node: told by it and come back.
// Such a route is remembered, and does not count.
func (t *Table) isOwn(r *remote) bool { return r.vtep.addr == t.config.VTEP }
