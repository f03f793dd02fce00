package lab

import (
	"slices"
)

// Cut takes the carrier from all cables between two nodes, or from the one at
// the port that an end names. Here as below, the zero End b stands for all
// nodes: a node without any cable is as good as one without power.
func (l *Lab) Cut(a, b End) error {
	return l.onCables(a, b, func(p *patch, cables []Cable, _ States) error { return p.setCarrier(false, cables...) })
}

// Mute lets packets vanish in both directions, or only in that from a to b,
// and leaves the carrier.
func (l *Lab) Mute(a, b End, oneWay bool) error {
	return l.onCables(a, b, func(p *patch, cables []Cable, states States) error {
		for _, c := range cables {
			s, forth := states[c.ID], a.covers(c.A)
			s.MutedAB = s.MutedAB || forth || !oneWay
			s.MutedBA = s.MutedBA || !forth || !oneWay
			if err := p.setMuted(c, s); err != nil {
				return err
			}
		}
		return nil
	})
}

// Mend undoes Cut and Mute.
func (l *Lab) Mend(a, b End) error {
	return l.onCables(a, b, func(p *patch, cables []Cable, _ States) error {
		if err := p.unmute(cables); err != nil {
			return err
		}
		return p.setCarrier(true, cables...)
	})
}

// Unmute undoes Mute and leaves the carrier as it is.
func (l *Lab) Unmute(a, b End) error {
	return l.onCables(a, b, func(p *patch, cables []Cable, _ States) error { return p.unmute(cables) })
}

// States tells what is done to each cable.
func (l *Lab) States() (States, error) {
	p, err := openPatch(l.Name)
	if err != nil {
		return nil, err
	}
	defer p.close()
	return p.states(l.Topology.AllCables())
}

func (l *Lab) onCables(a, b End, do func(*patch, []Cable, States) error) error {
	return l.withPatch(func(p *patch) error {
		cables, err := l.Topology.Between(a, b)
		if err != nil {
			return err
		}
		states, err := p.states(cables)
		if err != nil {
			return err
		}
		return do(p, cables, states)
	})
}

func (p *patch) unmute(cables []Cable) error {
	for _, c := range cables {
		if err := p.setMuted(c, State{}); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) withPatch(do func(*patch) error) error {
	return l.locked(func() error {
		p, err := openPatch(l.Name)
		if err != nil {
			return err
		}
		defer p.close()
		return do(p)
	})
}

// Recable cables port a to port b, whatever they were cabled to before. The
// port a (or b, if a had no cable) keeps its device, which sees its carrier
// go and come back; the port at the far end of its cable vanishes, and so does
// whatever was cabled to b.
func (l *Lab) Recable(a, b End) error {
	return l.withPatch(func(p *patch) error {
		f, err := l.Fabric()
		if err != nil {
			return err
		}
		next, move, err := l.Topology.recable(a, b)
		if err != nil {
			return err
		}
		if err := next.check(f); err != nil {
			return err
		}
		if err := move.apply(p); err != nil {
			return err
		}
		l.Topology = next
		return l.save()
	})
}

// move is the way from one topology to the next.
type move struct {
	remove []Cable
	from   *Cable // the cable as it was, where one stays
	to     Cable  // the cable as it is to be
}

// recable plans the cable between two ports.
func (t Topology) recable(a, b End) (Topology, move, error) {
	for _, e := range []End{a, b} {
		if err := t.checkNode(e.Node); err != nil {
			return t, move{}, err
		}
		if e.Port == "" {
			return t, move{}, inputf("%s: name the port too, as in %s:eth1", e, e.Node)
		}
	}
	atA, hasA := t.cableAt(a)
	atB, hasB := t.cableAt(b)
	if hasA && hasB && atA == atB {
		return t, move{}, inputf("%s and %s are cabled to each other already", a, b)
	}
	next := t
	next.Cables = slices.Clone(t.Cables)
	m := move{to: Cable{ID: t.nextID(), A: a, B: b}}
	switch {
	case hasA:
		m.from, m.to = &atA, atA.with(a, b)
		if hasB {
			m.remove = []Cable{atB}
		}
	case hasB:
		m.from, m.to = &atB, atB.with(b, a)
	}
	next.Cables = slices.DeleteFunc(next.Cables, func(c Cable) bool { return hasA && c == atA || hasB && c == atB })
	next.Cables = append(next.Cables, m.to)
	slices.SortFunc(next.Cables, func(c, d Cable) int { return c.ID - d.ID })
	return next, m, nil
}

// with is the cable whose end stays at one port and whose other is at far.
func (c Cable) with(stays, far End) Cable {
	if c.A == stays {
		return Cable{ID: c.ID, A: stays, B: far}
	}
	return Cable{ID: c.ID, A: far, B: stays}
}

func (m move) apply(p *patch) error {
	for _, c := range m.remove {
		if err := p.remove(c); err != nil {
			return err
		}
	}
	if m.from == nil {
		return p.connect(m.to)
	}
	moved := side('a')
	if m.from.A == m.to.A {
		moved = 'b'
	}
	if err := p.setMuted(*m.from, State{}); err != nil {
		return err
	}
	if err := p.setCarrier(false, *m.from); err != nil {
		return err
	}
	if err := p.unplug(*m.from, moved); err != nil {
		return err
	}
	if err := p.plug(m.to, moved); err != nil {
		return err
	}
	return p.setCarrier(true, m.to)
}
