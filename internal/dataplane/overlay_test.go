package dataplane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var (
	vtep1 = netip.MustParseAddr("10.0.0.1")
	vtep2 = netip.MustParseAddr("10.0.0.2")
	vtep3 = netip.MustParseAddr("10.0.0.3")
	mac1  = MAC{2, 0, 0, 0, 0, 1}
	mac2  = MAC{2, 0, 0, 0, 0, 2}
	ip1   = netip.MustParseAddr("172.16.0.1")
	blue  = Segment{Name: "blue", Bridge: "br-blue", VXLAN: "vx-blue", VNI: 100, Local: vtep1, MTU: 8950, MACLimit: 1000}
	green = Segment{Name: "green", Bridge: "br-green", VXLAN: "vx-green", VNI: 200, Local: vtep1, MTU: 8950}
)

// fakeOverlay is an OverlayTarget that keeps what it is given, and refuses
// entries without their device, as the kernel does.
type fakeOverlay struct {
	state   OverlayState
	applied []OverlayOp
	dumps   int
	refuse  func(OverlayOp) error
	batches func([]OverlayOp) // told of each; nil: nobody
}

func newFakeOverlay() *fakeOverlay {
	f := &fakeOverlay{}
	f.state.whole()
	return f
}

func (f *fakeOverlay) DumpOverlay(_ context.Context, segments []Segment) (OverlayState, error) {
	f.dumps++
	if f.refuse != nil {
		if err := f.refuse(lookOp{}); err != nil {
			return OverlayState{}, err
		}
	}
	dump := OverlayState{Devices: maps.Clone(f.state.Devices), Entries: make(map[uint32]*OverlayEntries)}
	for _, segment := range segments {
		have := f.state.of(segment.VNI)
		dump.Entries[segment.VNI] = &OverlayEntries{
			MACs: maps.Clone(have.MACs), Neighbors: maps.Clone(have.Neighbors), Flood: maps.Clone(have.Flood),
		}
	}
	dump.Addresses = maps.Clone(f.state.Addresses)
	return dump, nil
}

func (f *fakeOverlay) ApplyOverlay(_ context.Context, ops []OverlayOp) []OpError {
	if f.batches != nil {
		f.batches(ops)
	}
	var failed []OpError
	for i, op := range ops {
		f.applied = append(f.applied, op)
		if err := f.apply(op); err != nil {
			failed = append(failed, OpError{Index: i, Op: op, Err: err})
		}
	}
	return failed
}

func (f *fakeOverlay) apply(op OverlayOp) error {
	if f.refuse != nil {
		if err := f.refuse(op); err != nil {
			return err
		}
	}
	var device string
	switch op := op.(type) {
	case SetMAC:
		device = op.VXLAN
	case AddFlood:
		device = op.VXLAN
	case SetNeighbor:
		device = op.Bridge
	case AddBridgeAddress:
		device = op.Bridge
	case SetDevice:
		if have, exists := f.state.Devices[op.Device.Name]; exists && (!have.Owned || remade(have.Device, op.Device)) {
			return errors.New("file exists")
		}
	}
	if _, exists := f.state.Devices[device]; device != "" && !exists {
		return errors.New("no such device")
	}
	f.state.record(op)
	return nil
}

// take returns what was applied since the last time.
func (f *fakeOverlay) take() []OverlayOp {
	ops := f.applied
	f.applied = nil
	return ops
}

// newTestOverlay returns an overlay whose steps the test takes.
func newTestOverlay(target OverlayTarget) *Overlay {
	return NewOverlay(target, slog.New(slog.DiscardHandler))
}

// workOff takes steps until nothing is due, looks included.
func (o *Overlay) workOff(t *testing.T) {
	t.Helper()
	o.notYet = time.Time{}
	for range 10 {
		if wait := o.step(t.Context()); wait > 0 {
			return
		}
		o.notYet = time.Time{}
	}
	t.Fatal("there is no end to it")
}

func texts(ops []OverlayOp) string {
	lines := make([]string, len(ops))
	for i, op := range ops {
		lines[i] = op.String()
	}
	return strings.Join(lines, "; ")
}

func (f *fakeOverlay) expect(t *testing.T, want ...string) {
	t.Helper()
	if got := texts(f.take()); got != strings.Join(want, "; ") {
		t.Errorf("did %q, want %q", got, strings.Join(want, "; "))
	}
}

func update(macs map[MAC]netip.Addr, flood ...netip.Addr) OverlayUpdate {
	u := OverlayUpdate{MACs: make(map[MACKey]netip.Addr)}
	for mac, vtep := range macs {
		u.MACs[MACKey{100, mac}] = vtep
	}
	if flood != nil {
		u.Flood = map[uint32][]netip.Addr{100: flood}
	}
	return u
}

// at is a node with segment blue, a MAC behind vtep2, and vtep2 to flood to.
func at(t *testing.T) (*Overlay, *fakeOverlay) {
	t.Helper()
	f := newFakeOverlay()
	o := newTestOverlay(f)
	o.SetSegments([]Segment{blue})
	o.Update(update(map[MAC]netip.Addr{mac1: vtep2}, vtep2))
	o.Complete()
	o.workOff(t)
	f.expect(t, "set bridge br-blue", "set vxlan vx-blue",
		"flood from vx-blue to VTEP 10.0.0.2", "send 02:00:00:00:00:01 on vx-blue to VTEP 10.0.0.2")
	return o, f
}

func TestOverlayUpdates(t *testing.T) {
	key := NeighborKey{100, ip1}
	tests := []struct {
		name   string
		update OverlayUpdate
		want   []string
	}{
		{"nothing", OverlayUpdate{}, nil},
		{"the same again", update(map[MAC]netip.Addr{mac1: vtep2}, vtep2), nil},
		{"a MAC moves", update(map[MAC]netip.Addr{mac1: vtep3}), []string{"send 02:00:00:00:00:01 on vx-blue to VTEP 10.0.0.3"}},
		{"a MAC goes", update(map[MAC]netip.Addr{mac1: {}}), []string{"delete 02:00:00:00:00:01 from vx-blue"}},
		{"a MAC goes that never was", update(map[MAC]netip.Addr{mac2: {}}), nil},
		{
			"add before delete", update(map[MAC]netip.Addr{mac1: {}, mac2: vtep3}, vtep3),
			[]string{
				"flood from vx-blue to VTEP 10.0.0.3", "send 02:00:00:00:00:02 on vx-blue to VTEP 10.0.0.3",
				"stop flooding from vx-blue to VTEP 10.0.0.2", "delete 02:00:00:00:00:01 from vx-blue",
			},
		},
		{"nobody to flood to any more", OverlayUpdate{Flood: map[uint32][]netip.Addr{100: {}}}, []string{"stop flooding from vx-blue to VTEP 10.0.0.2"}},
		{"a neighbour", OverlayUpdate{Neighbors: map[NeighborKey]MAC{key: mac1}}, []string{"answer for 172.16.0.1 on br-blue with 02:00:00:00:00:01"}},
		{"no neighbour", OverlayUpdate{Neighbors: map[NeighborKey]MAC{key: {}}}, nil},
		{"of a segment that is not here", OverlayUpdate{MACs: map[MACKey]netip.Addr{{200, mac1}: vtep2}}, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			o, f := at(t)
			o.Update(test.update)
			o.workOff(t)
			f.expect(t, test.want...)
			o.Resync()
			o.workOff(t)
			f.expect(t)
		})
	}
}

func TestOverlayAdopts(t *testing.T) {
	_, f := at(t)
	again := newTestOverlay(f)
	again.workOff(t)
	if f.dumps != 1 {
		t.Errorf("%d dumps, want none before the segments are known", f.dumps-1)
	}
	again.SetSegments([]Segment{blue})
	again.workOff(t)
	again.Update(update(map[MAC]netip.Addr{mac2: vtep3}, vtep3))
	again.workOff(t)
	f.expect(t, "flood from vx-blue to VTEP 10.0.0.3", "send 02:00:00:00:00:02 on vx-blue to VTEP 10.0.0.3")
	// What was said this time can be unsaid, what the run before knew waits.
	again.Update(update(map[MAC]netip.Addr{mac2: {}}, vtep1))
	again.workOff(t)
	f.expect(t, "flood from vx-blue to VTEP 10.0.0.1",
		"stop flooding from vx-blue to VTEP 10.0.0.3", "delete 02:00:00:00:00:02 from vx-blue")
	again.Complete()
	again.workOff(t)
	f.expect(t, "stop flooding from vx-blue to VTEP 10.0.0.2", "delete 02:00:00:00:00:01 from vx-blue")
}

func TestOverlaySegmentsChange(t *testing.T) {
	renamed, moved, widened := blue, blue, blue
	renamed.Name, renamed.Bridge, renamed.VXLAN = "red", "br-red", "vx-red"
	moved.VNI = 300
	widened.MTU = 1450
	entries := []string{"flood from vx-blue to VTEP 10.0.0.2", "send 02:00:00:00:00:01 on vx-blue to VTEP 10.0.0.2"}
	tests := []struct {
		name     string
		segments []Segment
		want     []string
	}{
		{"as before", []Segment{blue}, nil},
		{"one more", []Segment{blue, green}, []string{"set bridge br-green", "set vxlan vx-green"}},
		{"none", nil, []string{"delete device vx-blue", "delete device br-blue"}},
		{"MTU", []Segment{widened}, []string{"set bridge br-blue", "set vxlan vx-blue"}},
		{"VNI", []Segment{moved}, []string{"delete device vx-blue", "set vxlan vx-blue"}},
		{"name", []Segment{renamed}, []string{
			"delete device vx-blue", "set bridge br-red", "set vxlan vx-red",
			strings.ReplaceAll(entries[0], "blue", "red"), strings.ReplaceAll(entries[1], "blue", "red"),
			"delete device br-blue",
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			o, f := at(t)
			o.SetSegments(test.segments)
			o.workOff(t)
			f.expect(t, test.want...)
			if problems := o.Report().Problems; len(problems) > 0 {
				t.Errorf("problems: %v", problems)
			}
			o.Resync()
			o.workOff(t)
			f.expect(t)
		})
	}
}

func TestOverlayRepairs(t *testing.T) {
	flood := "flood from vx-blue to VTEP 10.0.0.2"
	send := "send 02:00:00:00:00:01 on vx-blue to VTEP 10.0.0.2"
	tests := []struct {
		name   string
		damage func(*OverlayState)
		want   []string
	}{
		{"none", func(*OverlayState) {}, nil},
		{"no VXLAN device", func(s *OverlayState) { s.removeDevice("vx-blue") }, []string{"set vxlan vx-blue", flood, send}},
		{"no bridge", func(s *OverlayState) { s.removeDevice("br-blue") }, []string{"set bridge br-blue", "set vxlan vx-blue", send}},
		{"no devices", func(s *OverlayState) { s.removeDevice("br-blue"); s.removeDevice("vx-blue") }, []string{"set bridge br-blue", "set vxlan vx-blue", flood, send}},
		{"an entry lost", func(s *OverlayState) { delete(s.of(100).MACs, mac1) }, []string{send}},
		{"half an entry lost", func(s *OverlayState) { s.of(100).MACs[mac1] = InstalledMAC{VTEP: vtep2} }, []string{send}},
		{"another VTEP", func(s *OverlayState) { s.of(100).MACs[mac1] = InstalledMAC{VTEP: vtep3, Bridged: true} }, []string{send}},
		{"the guest is here", func(s *OverlayState) { s.of(100).MACs[mac1] = InstalledMAC{VTEP: vtep2, Taken: true} }, nil},
		{"an entry too many", func(s *OverlayState) { s.of(100).MACs[mac2] = InstalledMAC{VTEP: vtep2, Bridged: true} }, []string{"delete 02:00:00:00:00:02 from vx-blue"}},
		{"a neighbour too many", func(s *OverlayState) { s.of(100).Neighbors[ip1] = mac2 }, []string{"delete neighbour 172.16.0.1 from br-blue"}},
		{"a VTEP too many", func(s *OverlayState) { s.of(100).Flood[vtep3] = struct{}{} }, []string{"stop flooding from vx-blue to VTEP 10.0.0.3"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			o, f := at(t)
			test.damage(&f.state)
			o.Observe(OverlayDrifted{})
			o.workOff(t)
			f.expect(t, test.want...)
		})
	}
}

func TestOverlayLooksWhenItIsQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, f := at(t)
		step := func() {
			o.step(t.Context())
			time.Sleep(quietTime / 2)
		}
		f.dumps = 0
		for began := time.Now(); time.Since(began) < resyncLast-2*quietTime; {
			mac := MAC{2, byte(time.Since(began) / time.Second), byte(time.Since(began) / time.Millisecond)}
			o.Update(update(map[MAC]netip.Addr{mac: vtep2}))
			step()
		}
		if f.dumps > 0 {
			t.Errorf("looked %d times while things changed", f.dumps)
		}
		step()
		step()
		if step(); f.dumps != 1 {
			t.Errorf("looked %d times when they did no more", f.dumps)
		}
		for began, i := time.Now(), 0; time.Since(began) < resyncLast+quietTime; i++ {
			o.Update(update(map[MAC]netip.Addr{{4, byte(i)}: vtep2}))
			step()
		}
		if f.dumps < 2 {
			t.Error("never looks while things change")
		}
	})
}

// Where a guest is, the update decides, not the order of what is seen.
func TestOverlayTakenMAC(t *testing.T) {
	o, f := at(t)
	f.state.take(MACKey{100, mac1})
	o.Observe(LocalMACs{{VNI: 100, MAC: mac1, Port: "tap1"}})
	o.workOff(t)
	f.expect(t)
	o.Update(update(map[MAC]netip.Addr{mac1: vtep2}))
	o.workOff(t)
	f.expect(t, "send 02:00:00:00:00:01 on vx-blue to VTEP 10.0.0.2")
	o.Observe(LocalMACs{{VNI: 100, MAC: mac1, Port: "tap1", Aged: true}})
	o.Update(update(map[MAC]netip.Addr{mac1: vtep2}))
	o.workOff(t)
	f.expect(t)
}

func TestOverlayRefused(t *testing.T) {
	refusal := errors.New("no buffer space available")
	o, f := at(t)
	f.refuse = func(op OverlayOp) error {
		if set, ok := op.(SetMAC); ok && set.MACKey.MAC != mac1 {
			return refusal
		}
		return nil
	}
	many := make(map[MAC]netip.Addr)
	for i := range 100 {
		many[MAC{4, 0, 0, 0, 0, byte(i)}] = vtep3
	}
	called := false
	o.Update(update(many))
	o.Then(func() { called = true })
	o.workOff(t)
	if got := len(f.take()); got != 100 || !called {
		t.Errorf("%d tries, want 100, and those who wait are told: %v", got, called)
	}
	o.step(t.Context())
	if got := len(f.take()); got != 0 {
		t.Errorf("%d tries before the kernel was looked at again", got)
	}
	report := o.Report()
	want := "send MACs on vx-blue: no buffer space available"
	if len(report.Problems) != 1 || report.Problems[0].Text != want || report.Problems[0].Count != 100 {
		t.Errorf("problems %+v, want %q 100 times", report.Problems, want)
	}
	if got := report.Segments; len(got) != 1 || got[0].Pending != 100 || got[0].MACs != 101 || !got[0].Ready {
		t.Errorf("segments %+v, want 100 of 101 MACs pending", got)
	}
	f.refuse = nil
	o.Resync()
	o.workOff(t)
	if got, report := len(f.take()), o.Report(); got != 100 || len(report.Problems) != 0 || report.Segments[0].Pending != 0 {
		t.Errorf("%d tries, then %+v", got, report)
	}
}

func TestOverlayCannotLook(t *testing.T) {
	f := newFakeOverlay()
	f.refuse = func(OverlayOp) error { return errors.New("permission denied") }
	o := newTestOverlay(f)
	o.SetSegments([]Segment{blue})
	o.step(t.Context())
	if got := o.Report().Problems; len(got) != 1 || got[0].Text != "read the segments' state: permission denied" {
		t.Errorf("problems %+v", got)
	}
	f.expect(t)
}

func TestOverlayForeignDevices(t *testing.T) {
	for _, name := range []string{blue.Bridge, blue.VXLAN} {
		f := newFakeOverlay()
		theirs := InstalledDevice{Device: Device{Name: name, Kind: KindBridge, Alias: "operator's"}}
		f.state.Devices[name] = theirs
		o := newTestOverlay(f)
		o.SetSegments([]Segment{blue, green})
		o.Update(update(map[MAC]netip.Addr{mac1: vtep2}, vtep2))
		o.Complete()
		o.workOff(t)
		for _, op := range f.take() {
			if strings.Contains(op.String(), name) {
				t.Errorf("%s, which is somebody else's", op)
			}
		}
		report := o.Report()
		if len(report.Problems) != 1 || !strings.Contains(report.Problems[0].Text, name) {
			t.Errorf("problems %+v, want one that names %s", report.Problems, name)
		}
		if report.Segments[0].Ready || !report.Segments[1].Ready {
			t.Errorf("segments %+v, want green alone to be ready", report.Segments)
		}
		if err := o.Withdraw(t.Context()); err != nil {
			t.Error(err)
		}
		if left := slices.Collect(maps.Keys(f.state.Devices)); len(left) != 1 || f.state.Devices[name] != theirs {
			t.Errorf("left after withdrawal: %v, want %s", left, name)
		}
	}
}

// Removals hold up all other changes: bridges go a few at a time, and what is
// asked for meanwhile comes before the rest.
func TestOverlayRemovesInRuns(t *testing.T) {
	o, f := at(t)
	var many []Segment
	for i := range 10 {
		s := Segment{Name: string(rune('a' + i)), VNI: uint32(200 + i), Local: vtep1, MTU: 1450}
		s.Bridge, s.VXLAN = "br-"+s.Name, "vx-"+s.Name
		many = append(many, s)
	}
	o.SetSegments(append(many, blue))
	o.workOff(t)
	var runs []string
	f.batches = func(ops []OverlayOp) {
		runs = append(runs, fmt.Sprintf("%d× %s", len(ops), ops[0]))
		if len(runs) == 2 {
			o.Update(update(map[MAC]netip.Addr{mac2: vtep2}))
		}
	}
	o.SetSegments([]Segment{blue})
	o.workOff(t)
	want := []string{
		"10× delete device vx-a", "4× delete device br-a",
		"1× send 02:00:00:00:00:02 on vx-blue to VTEP 10.0.0.2",
		"4× delete device br-e", "2× delete device br-i",
	}
	if !slices.Equal(runs, want) {
		t.Errorf("did %q, want %q", runs, want)
	}
}

func TestOverlayWithdrawn(t *testing.T) {
	o, f := at(t)
	if err := o.Withdraw(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.expect(t, "delete device vx-blue", "delete device br-blue")
	o.Resync()
	o.step(t.Context())
	f.expect(t)
	f.refuse = func(OverlayOp) error { return errors.New("not permitted") }
	if err := o.Withdraw(t.Context()); err == nil {
		t.Error("no error, though the kernel could not be read")
	}
}

// A segment's entries are not touched before they were looked at.
func TestOverlaySegmentIsAdopted(t *testing.T) {
	o, f := at(t)
	for _, op := range []OverlayOp{
		SetDevice{green.bridge()}, SetDevice{green.vxlan()}, SetMAC{MACKey{200, mac2}, green.VXLAN, vtep2},
	} {
		if err := f.apply(op); err != nil {
			t.Fatal(err)
		}
	}
	o.SetSegments([]Segment{blue, green})
	o.Update(OverlayUpdate{MACs: map[MACKey]netip.Addr{{200, mac2}: vtep2}})
	o.notYet = time.Now().Add(time.Hour)
	o.step(t.Context())
	f.expect(t)
	o.workOff(t)
	f.expect(t)
}

// A kernel that cannot limit what a bridge learns is not asked for it again
// and again.
func TestUnlimitedBridge(t *testing.T) {
	o, f := at(t)
	bridge := f.state.Devices[blue.Bridge]
	bridge.MaxLearned, bridge.Unlimited = 0, true
	f.state.Devices[blue.Bridge] = bridge
	o.Resync()
	o.workOff(t)
	f.expect(t)
}

func TestParseMAC(t *testing.T) {
	for text, want := range map[string]MAC{
		"02:00:00:00:00:01": mac1,
		"FF:ff:0a:0B:00:10": {255, 255, 10, 11, 0, 16},
		"00:00:00:00:00:00": {},
	} {
		got, err := ParseMAC(text)
		if err != nil || got != want || got.String() != strings.ToLower(text) {
			t.Errorf("%s is %s, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "02:00:00:00:00", "02:00:00:00:00:01:02", "02-00-00-00-00-01", "2:0:0:0:0:1", "0g:00:00:00:00:01", "02:00:00:00:00:", "0200:00:00:00:00:01", "020:0:00:00:00:01", "02:00:00:00:000:1", "02:00:00:00:00:01 "} {
		if got, err := ParseMAC(text); err == nil {
			t.Errorf("%q is taken for %s", text, got)
		}
	}
}

func TestBridgeMAC(t *testing.T) {
	seen := make(map[MAC]netip.Addr)
	for _, text := range []string{"10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2"} {
		vtep := netip.MustParseAddr(text)
		mac := ownMAC(vtep)
		if mac != ownMAC(vtep) || mac.IsGroup() || mac[0]&2 == 0 {
			t.Errorf("%s is no fixed, locally administered address of one device", mac)
		}
		if other, twice := seen[mac]; twice {
			t.Errorf("%s and %s are both %s", vtep, other, mac)
		}
		seen[mac] = vtep
	}
}
