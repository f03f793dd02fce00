package kernel

import (
	"maps"
	"net/netip"
	"slices"

	"frond/internal/dataplane"

	"golang.org/x/sys/unix"
)

// switchboard is what is known of the ports of segments' bridges and the
// guests behind them. It is used by one goroutine at a time.
type switchboard struct {
	segments map[string]dataplane.Segment // by bridge
	devices  map[string]bool              // names of the segments' devices
	links    map[uint32]overlayLink
	ports    map[uint32]*guestPort
	where    map[dataplane.MACKey]uint32 // index of the port
	news     *overlayNews
	// tap begins to listen to what guests say on a port, until it is closed.
	tap func(index uint32, port dataplane.LocalPort) (closeTap func())
	// serve hands over what guests of a port ask DHCP servers and routers, until
	// it is closed.
	serve func(index uint32, port dataplane.LocalPort) (closeServe func())
	// suspect is told of ports that may loop: new and newly cabled ones, and
	// those that a MAC has moved between.
	suspect func(index uint32)
	closed  bool
	// lost and unclear tell that everything must be read anew: because
	// notifications are lost, or because a port may be over its limit.
	lost, unclear bool
}

// guestPort is a port of a segment's bridge that guests are behind.
type guestPort struct {
	dataplane.LocalPort
	limit    int
	macs     map[dataplane.MAC]struct{} // that are told of
	over     bool
	closeTap func()
	unserve  func() // nil: nobody answers there
}

func newSwitchboard(news *overlayNews, tap, serve func(uint32, dataplane.LocalPort) func(), suspect func(uint32)) *switchboard {
	return &switchboard{
		links:   make(map[uint32]overlayLink),
		ports:   make(map[uint32]*guestPort),
		where:   make(map[dataplane.MACKey]uint32),
		news:    news,
		tap:     tap,
		serve:   serve,
		suspect: suspect,
	}
}

func (s *switchboard) setSegments(segments []dataplane.Segment) {
	s.segments = make(map[string]dataplane.Segment, len(segments))
	s.devices = make(map[string]bool, 2*len(segments))
	for _, segment := range segments {
		s.segments[segment.Bridge] = segment
		s.devices[segment.Bridge], s.devices[segment.VXLAN] = true, true
	}
}

// notice takes in one notification.
func (s *switchboard) notice(m message) {
	switch m.kind {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		if link, ok := parseOverlayLink(m); ok {
			s.noticeLink(link, m.kind == unix.RTM_DELLINK)
		}
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		if e, ok := parseEntry(m); ok {
			s.noticeEntry(e, m.kind == unix.RTM_DELNEIGH)
		}
	}
}

func (s *switchboard) noticeLink(link overlayLink, gone bool) {
	before := s.links[link.index]
	link.Bridge = ""
	if link.Kind == dataplane.KindVXLAN {
		link.Bridge = s.links[link.master].Name
	}
	if gone {
		delete(s.links, link.index)
	} else {
		s.links[link.index] = link
	}
	plugged := link.carrier && !before.carrier && !gone
	before.carrier = link.carrier
	changed := gone || link != before
	if changed && (link.Owned || before.Owned || s.devices[link.Name] || s.devices[before.Name]) {
		s.news.drifted = true
	}
	if link.Kind == dataplane.KindBridge && changed && (s.isWatched(before) || s.isWatched(link)) {
		s.arrangeAll()
		s.unclear = s.unclear || !s.isWatched(before) // it may have learned already
		return
	}
	s.arrange(link.index)
	if _, ok := s.ports[link.index]; ok && plugged {
		s.suspect(link.index)
	}
}

func (s *switchboard) isWatched(bridge overlayLink) bool {
	_, named := s.segments[bridge.Name]
	return named && bridge.Owned && bridge.Kind == dataplane.KindBridge
}

// bridgeOf is the index of a segment's bridge; 0 if there is none.
func (s *switchboard) bridgeOf(vni uint32) uint32 {
	for index, link := range s.links {
		if s.isWatched(link) && s.segments[link.Name].VNI == vni {
			return index
		}
	}
	return 0
}

// portOf returns the segment that a link is a guests' port of.
func (s *switchboard) portOf(index uint32) (dataplane.Segment, bool) {
	link, ok := s.links[index]
	if !ok || link.master == 0 || s.devices[link.Name] && link.Owned {
		return dataplane.Segment{}, false
	}
	bridge := s.links[link.master]
	return s.segments[bridge.Name], s.isWatched(bridge)
}

func (s *switchboard) arrangeAll() {
	for index := range s.ports {
		s.arrange(index)
	}
	for index := range s.links {
		s.arrange(index)
	}
}

// arrange begins or ends to watch a port, as it should be.
func (s *switchboard) arrange(index uint32) {
	segment, watched := s.portOf(index)
	want := dataplane.LocalPort{VNI: segment.VNI, Port: s.links[index].Name}
	if port, ok := s.ports[index]; ok {
		port.limit = segment.MACLimit
		if watched && port.LocalPort == want {
			s.arrangeServe(index, port, segment.Asks())
			return
		}
		s.removePort(index, port)
	}
	if !watched || s.closed {
		return
	}
	s.suspect(index)
	s.ports[index] = &guestPort{
		LocalPort: want,
		limit:     segment.MACLimit,
		macs:      make(map[dataplane.MAC]struct{}),
		closeTap:  s.tap(index, want),
	}
	s.arrangeServe(index, s.ports[index], segment.Asks())
}

// arrangeServe begins or ends to listen to what guests ask DHCP servers and
// routers.
func (s *switchboard) arrangeServe(index uint32, port *guestPort, wanted bool) {
	switch {
	case wanted && port.unserve == nil:
		port.unserve = s.serve(index, port.LocalPort)
	case !wanted && port.unserve != nil:
		port.unserve()
		port.unserve = nil
	}
}

func (s *switchboard) removePort(index uint32, port *guestPort) {
	port.closeTap()
	s.arrangeServe(index, port, false)
	for mac := range port.macs {
		delete(s.where, dataplane.MACKey{VNI: port.VNI, MAC: mac})
	}
	delete(s.ports, index)
	s.news.portGone(port.LocalPort)
}

// close ends all listening.
func (s *switchboard) close() {
	s.closed = true
	for index, port := range s.ports {
		port.closeTap()
		s.arrangeServe(index, port, false)
	}
	clear(s.ports)
}

// isLearned tells that a bridge knows the MAC by itself or by the operator,
// neither as one of its own nor from a control plane.
func (e entry) isLearned() bool {
	return e.family == unix.AF_BRIDGE && e.master != 0 &&
		e.flags&(unix.NTF_SELF|unix.NTF_EXT_LEARNED) == 0 && e.state&unix.NUD_PERMANENT == 0
}

// ntfSticky is NTF_STICKY: the bridge does not learn the MAC elsewhere.
const ntfSticky = 1 << 6

// isSticky tells that the operator has put the entry where it is for good.
func (e entry) isSticky() bool {
	return e.state&unix.NUD_NOARP != 0 || e.flags&ntfSticky != 0
}

func (s *switchboard) noticeEntry(e entry, gone bool) {
	switch {
	case e.family != unix.AF_BRIDGE:
		// A neighbour of a control plane's that somebody else has changed.
		if s.isWatched(s.links[e.index]) {
			s.news.drifted = true
		}
	case !e.isLearned():
	case gone:
		s.forget(e)
	default:
		s.learn(e)
	}
}

// learn notes a MAC behind a port.
func (s *switchboard) learn(e entry) {
	port, ok := s.ports[e.index]
	if !ok {
		return
	}
	key := dataplane.MACKey{VNI: port.VNI, MAC: e.mac}
	if _, known := port.macs[e.mac]; !known && !s.admit(port) {
		return
	}
	if before, ok := s.where[key]; ok && before != e.index {
		s.leave(before, e.mac)
		s.suspect(before)
		s.suspect(e.index)
	}
	port.macs[e.mac] = struct{}{}
	s.where[key] = e.index
	s.news.mac(key, dataplane.LocalMAC{VNI: port.VNI, MAC: e.mac, Port: port.Port, Sticky: e.isSticky()})
}

// neighbor notes an address that a bridge knows of a guest on a port.
func (s *switchboard) neighbor(e entry) {
	bridge := s.links[e.index]
	if !s.isWatched(bridge) {
		return
	}
	vni := s.segments[bridge.Name].VNI
	at, ok := s.where[dataplane.MACKey{VNI: vni, MAC: e.mac}]
	if !ok {
		return
	}
	port := s.ports[at]
	s.news.address(port.LocalPort, dataplane.LocalAddress{VNI: vni, MAC: e.mac, IP: e.dst, Port: port.Port})
}

// admit tells whether one more MAC of a port is told of.
func (s *switchboard) admit(port *guestPort) bool {
	if port.limit <= 0 || len(port.macs) < port.limit {
		return true
	}
	if !port.over {
		port.over = true
		s.news.overflow(port)
		// MACs that other nodes have now still count.
		s.unclear = true
	}
	return false
}

// forget notes that a bridge does not know a MAC any more.
func (s *switchboard) forget(e entry) {
	port, ok := s.ports[e.index]
	if !ok {
		return
	}
	key := dataplane.MACKey{VNI: port.VNI, MAC: e.mac}
	if where, ok := s.where[key]; !ok || where != e.index {
		return
	}
	delete(s.where, key)
	s.leave(e.index, e.mac)
	s.news.mac(key, dataplane.LocalMAC{VNI: port.VNI, MAC: e.mac, Port: port.Port, Aged: true})
}

// leave takes a MAC off a port.
func (s *switchboard) leave(index uint32, mac dataplane.MAC) {
	port, ok := s.ports[index]
	if !ok {
		return
	}
	delete(port.macs, mac)
	if port.over && len(port.macs) < port.limit {
		s.unclear = true // those that were left out may be told of now
	}
}

// replace takes in everything as it was just read.
func (s *switchboard) replace(links map[uint32]overlayLink, learned []entry) {
	s.news.drifted = s.news.drifted || s.lost
	s.lost, s.unclear = false, false
	s.links = links
	s.arrangeAll()
	found := make(map[dataplane.MACKey]entry, len(learned))
	for _, e := range learned {
		if port, ok := s.ports[e.index]; ok {
			found[dataplane.MACKey{VNI: port.VNI, MAC: e.mac}] = e
		}
	}
	for key, index := range maps.Clone(s.where) {
		if e, still := found[key]; !still || e.index != index {
			s.forget(entry{index: index, mac: key.MAC})
		}
	}
	before := make(map[uint32]bool)
	for index, port := range s.ports {
		before[index] = port.over
		port.over = false
	}
	s.learnAll(found)
	for index, port := range s.ports {
		if before[index] != port.over {
			s.news.overflow(port)
		}
	}
	s.unclear = false
}

// learnAll learns what was found. What is known comes first, so that a flood
// does not push it out.
func (s *switchboard) learnAll(found map[dataplane.MACKey]entry) {
	keys := slices.Collect(maps.Keys(found))
	isNew := func(key dataplane.MACKey) bool { _, known := s.where[key]; return !known }
	for _, e := range keys {
		if !isNew(e) {
			s.learn(found[e])
			delete(found, e)
		}
	}
	for _, e := range found {
		s.learn(e)
	}
}

// overlayNews is what nobody was told of yet.
type overlayNews struct {
	gone      map[dataplane.LocalPort]struct{}
	macs      map[dataplane.MACKey]dataplane.LocalMAC
	addresses map[addressKey]dataplane.LocalAddress
	waiting   map[dataplane.LocalPort]int // addresses of each port
	overflows map[dataplane.LocalPort]dataplane.LocalOverflow
	loops     map[dataplane.LocalPort]dataplane.LocalLoop
	drifted   bool
	read      bool // see dataplane.LocalRead
}

type addressKey struct {
	port dataplane.LocalPort
	ip   netip.Addr
}

// addressesPerPort bounds the addresses of a port that wait to be told.
const addressesPerPort = 4096

func (n *overlayNews) portGone(port dataplane.LocalPort) {
	if n.gone == nil {
		n.gone = make(map[dataplane.LocalPort]struct{})
	}
	n.gone[port] = struct{}{}
	maps.DeleteFunc(n.macs, func(_ dataplane.MACKey, m dataplane.LocalMAC) bool {
		return m.VNI == port.VNI && m.Port == port.Port
	})
	maps.DeleteFunc(n.addresses, func(key addressKey, _ dataplane.LocalAddress) bool { return key.port == port })
	delete(n.waiting, port)
	delete(n.overflows, port)
	delete(n.loops, port)
}

func (n *overlayNews) mac(key dataplane.MACKey, told dataplane.LocalMAC) {
	if n.macs == nil {
		n.macs = make(map[dataplane.MACKey]dataplane.LocalMAC)
	}
	n.macs[key] = told
}

func (n *overlayNews) overflow(port *guestPort) {
	if n.overflows == nil {
		n.overflows = make(map[dataplane.LocalPort]dataplane.LocalOverflow)
	}
	n.overflows[port.LocalPort] = dataplane.LocalOverflow{
		VNI: port.VNI, Port: port.Port, Limit: port.limit, Over: port.over,
	}
}

func (n *overlayNews) loop(told dataplane.LocalLoop) {
	if n.loops == nil {
		n.loops = make(map[dataplane.LocalPort]dataplane.LocalLoop)
	}
	n.loops[dataplane.LocalPort{VNI: told.VNI, Port: told.Port}] = told
}

func (n *overlayNews) address(port dataplane.LocalPort, told dataplane.LocalAddress) {
	if n.addresses == nil {
		n.addresses = make(map[addressKey]dataplane.LocalAddress)
		n.waiting = make(map[dataplane.LocalPort]int)
	}
	key := addressKey{port, told.IP}
	if _, already := n.addresses[key]; !already {
		if n.waiting[port] == addressesPerPort {
			return
		}
		n.waiting[port]++
	}
	n.addresses[key] = told
}

// take returns what is new: what is gone first, and addresses after MACs.
func (n *overlayNews) take() []dataplane.OverlayEvent {
	news := *n
	*n = overlayNews{}
	var events []dataplane.OverlayEvent
	if news.drifted {
		events = append(events, dataplane.OverlayDrifted{})
	}
	if len(news.gone) > 0 {
		events = append(events, dataplane.LocalPortsGone(slices.Collect(maps.Keys(news.gone))))
	}
	if len(news.overflows) > 0 {
		events = append(events, dataplane.LocalOverflows(slices.Collect(maps.Values(news.overflows))))
	}
	if len(news.loops) > 0 {
		events = append(events, dataplane.LocalLoops(slices.Collect(maps.Values(news.loops))))
	}
	if len(news.macs) > 0 {
		events = append(events, dataplane.LocalMACs(slices.Collect(maps.Values(news.macs))))
	}
	if len(news.addresses) > 0 {
		events = append(events, dataplane.LocalAddresses(slices.Collect(maps.Values(news.addresses))))
	}
	if news.read {
		events = append(events, dataplane.LocalRead{})
	}
	return events
}
