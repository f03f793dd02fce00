package cli

import (
	"fmt"
	"strings"

	"frond/internal/status"
	"frond/internal/trace"
)

// renderTrace draws a trace as a tree: a line per hop, with its legs below it.
func renderTrace(t trace.Trace, v view) string {
	d := &traceTree{view: v, hops: t.Hops, drawn: make(map[int]bool)}
	d.line(endpointText(t.From))
	d.line("→ " + endpointText(t.To))
	if t.From.Problem != "" {
		d.line(v.paint(printable(t.From.Problem), yellow))
	}
	d.line("")
	if len(t.Hops) > 0 {
		d.hop("", "", printable(t.Hops[0].Node), 0)
	}
	d.line("")
	d.line(outcomeText(t.Outcome, v))
	return d.text.String()
}

// endpointText is who is meant, and where that is.
func endpointText(e trace.Endpoint) string {
	var words []string
	for _, word := range []string{e.Name, e.MAC, e.Address} {
		if word != "" {
			words = append(words, word)
		}
	}
	text := strings.Join(words, " ")
	if e.Segment != "" {
		text += " on segment " + e.Segment
	}
	if e.Node != "" && e.Node != e.Name {
		text += " at " + e.Node
	}
	if e.Port != "" {
		text += ", port " + e.Port
	}
	return printable(text)
}

func outcomeText(o trace.Outcome, v view) string {
	switch o {
	case trace.Delivered:
		return v.paint("delivered", green)
	case trace.Partly:
		return v.paint("lost on some legs", red)
	case trace.Lost:
		return v.paint("lost", red)
	}
	return v.paint("not known: not every node on the way could be asked", yellow)
}

// traceTree is a drawing in the making.
type traceTree struct {
	view  view
	hops  []trace.Hop
	drawn map[int]bool
	text  strings.Builder
}

func (d *traceTree) line(text string) { d.text.WriteString(strings.TrimRight(text, " ") + "\n") }

// hop draws a hop and all below it. What happens on one node is one line.
func (d *traceTree) hop(head, indent, name string, id int) {
	words, last := d.onNode(id)
	legs := d.legs(last)
	if d.drawn[last] && len(legs) > 0 {
		d.line(head + name + ": as above")
		return
	}
	d.drawn[last] = true
	d.line(head + name + ": " + strings.Join(words, ", "))
	for i, next := range legs {
		branch, below := "├─ ", "│  "
		if i == len(legs)-1 {
			branch, below = "└─ ", "   "
		}
		d.leg(indent+branch, indent+below, next)
	}
}

// onNode says what happens to a packet until it leaves the node, and returns
// the hop that it leaves from.
func (d *traceTree) onNode(id int) ([]string, int) {
	hop := d.hops[id]
	words := d.hopWords(hop)
	if len(hop.Next) != 1 || hop.Next[0].Leg != nil {
		return words, id
	}
	next := hop.Next[0]
	if next.Problem != "" {
		return append(words, d.view.paint(next.Problem, red)), id
	}
	rest, last := d.onNode(*next.Hop)
	return append(words, rest...), last
}

func (d *traceTree) hopWords(hop trace.Hop) []string {
	var words []string
	if hop.Answer != nil {
		words = append(words, actionWords(hop)...)
	}
	if hop.Problem != "" {
		words = append(words, d.view.paint(printable(hop.Problem), red))
	}
	return words
}

// actionWords say what the kernel does, where Hop.Problem does not.
func actionWords(hop trace.Hop) []string {
	a := hop.Answer
	switch a.Action {
	case status.Deliver:
		if hop.Outer {
			return []string{"unpacked"}
		}
		return []string{"delivered on " + printable(a.Port)}
	case status.Encapsulate:
		return []string{fmt.Sprintf("in VXLAN %d to VTEP %s", a.VNI, printable(a.VTEP))}
	case status.Forward:
		return []string{"by the route to " + printable(a.Match)}
	}
	return nil
}

// legs are the ways from a hop to other nodes, or out of the fabric.
func (d *traceTree) legs(id int) []trace.Next {
	var legs []trace.Next
	for _, next := range d.hops[id].Next {
		if next.Leg != nil {
			legs = append(legs, next)
		}
	}
	return legs
}

func (d *traceTree) leg(head, indent string, next trace.Next) {
	name := printable(legText(*next.Leg))
	switch {
	case next.Problem != "" && next.Hop != nil: // a loop
		d.line(head + name + ": " + d.view.paint(next.Problem, red))
	case next.Problem != "":
		d.line(head + name + ": " + d.view.paint(printable(next.Problem), yellow))
	case next.Hop == nil:
		d.line(head + name)
	default:
		d.hop(head, indent, name, *next.Hop)
	}
}

// legText is a port and who is behind it.
func legText(leg status.Leg) string {
	behind := leg.Node
	switch {
	case leg.Segment != "" && leg.MAC != "":
		behind = leg.MAC + " on segment " + leg.Segment
	case leg.Segment != "":
		behind = "segment " + leg.Segment
	case leg.Outside && leg.Via != "":
		behind = "out of the fabric, via " + leg.Via
	case leg.Outside:
		behind = "out of the fabric"
	case behind == "":
		behind = leg.Via
	}
	return leg.Port + " → " + behind
}
