package lab

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"frond/internal/fabric"
)

// Draw draws the fabric: spines above, each with a line of its own, all other
// nodes below, and a dot where one is cabled to the other. What does not fit
// into that, and shapes without spines, are listed cable by cable.
//
//	     spine1    spine2
//	       │         │
//	  ●────┴────●────┼────●
//	  ●─────────●────┴────●
//	  │         │         │
//	leaf1     leaf2     leaf3
func Draw(t Topology, states States) string {
	d := layOut(t)
	var rest []Cable
	for _, c := range t.Cables {
		if !d.add(c, states[c.ID]) {
			rest = append(rest, c)
		}
	}
	var b strings.Builder
	if len(d.spines) > 0 && len(d.others) > 0 {
		d.draw(&b)
		b.WriteString(legend(t.Cables, states))
	}
	for _, c := range append(rest, t.Uplinks...) {
		fmt.Fprintf(&b, "%s ── %s", c.A, c.B)
		if s := states[c.ID]; s != (State{}) {
			fmt.Fprintf(&b, "  (%s)", s)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// drawing is a grid: each spine has a row, each node a column.
type drawing struct {
	spines, others []string
	column         map[string]int // of the node's vertical line, in characters
	row            map[string]int // of the spine's horizontal line
	junctions      map[[2]int]*junction
	width          int
}

// junction is where the cables of a spine and another node are.
type junction struct {
	cables int
	worst  State
}

// layOut gives every node a column of its own: nodes that are no spines at
// multiples of the pitch, spines half a pitch beside one, as evenly as they can.
func layOut(t Topology) *drawing {
	d := &drawing{column: map[string]int{}, row: map[string]int{}, junctions: map[[2]int]*junction{}}
	for _, n := range t.Nodes {
		if n.Role == fabric.Spine {
			d.row[n.Name] = len(d.spines)
			d.spines = append(d.spines, n.Name)
		} else {
			d.others = append(d.others, n.Name)
		}
	}
	if len(d.spines) == 0 || len(d.others) == 0 {
		return d
	}
	pitch := max(widest(d.spines), widest(d.others)) + 1
	if len(d.others) <= spacious {
		pitch = max(pitch, 10)
	}
	stretch := 1 + (len(d.spines)-1)/len(d.others) // pitches from one node to the next
	for i, name := range d.others {
		d.column[name] = pitch * (1 + i*stretch + stretch/2)
	}
	// Between the nodes if there is room, else also to the left and right.
	first, places := 0, len(d.others)*stretch+1
	if len(d.spines) <= places-2 {
		first, places = 1, places-2
	}
	for i, name := range d.spines {
		d.column[name] = pitch/2 + pitch*(first+(2*i+1)*places/(2*len(d.spines)))
	}
	d.width = pitch * (len(d.others)*stretch + 2)
	return d
}

// spacious is the number of nodes below the spines up to which a drawing is
// wider than it would have to be.
const spacious = 6

func widest(names []string) (w int) {
	for _, n := range names {
		w = max(w, utf8.RuneCountInString(n))
	}
	return w
}

// add draws a cable between a spine and another node; it refuses others.
func (d *drawing) add(c Cable, s State) bool {
	spine, other := c.A.Node, c.B.Node
	if _, ok := d.row[spine]; !ok {
		spine, other = other, spine
	}
	row, ok := d.row[spine]
	if _, both := d.row[other]; !ok || both {
		return false
	}
	at := [2]int{row, d.column[other]}
	if d.junctions[at] == nil {
		d.junctions[at] = &junction{}
	}
	j := d.junctions[at]
	j.cables++
	j.worst = j.worst.or(s)
	return true
}

func (d *drawing) draw(b *strings.Builder) {
	d.names(b, d.spines)
	d.line(b, func(col int) rune { return d.spineLine(col, -1) })
	for row := range d.spines {
		d.line(b, func(col int) rune { return d.cell(row, col) })
	}
	d.line(b, func(col int) rune { return d.otherLine(col, len(d.spines)) })
	d.names(b, d.others)
}

func (d *drawing) names(b *strings.Builder, names []string) {
	line := []rune{}
	for _, n := range names {
		start := max(d.column[n]-utf8.RuneCountInString(n)/2, 0)
		for len(line) < start {
			line = append(line, ' ')
		}
		line = append(line, []rune(n)...)
	}
	b.WriteString(string(line) + "\n")
}

func (d *drawing) line(b *strings.Builder, at func(col int) rune) {
	line := make([]rune, d.width)
	for col := range line {
		line[col] = at(col)
	}
	b.WriteString(strings.TrimRight(string(line), " ") + "\n")
}

// cell is one character of a spine's row.
func (d *drawing) cell(row, col int) rune {
	first, last := d.span(row)
	if j := d.junctions[[2]int{row, col}]; j != nil {
		return j.mark()
	}
	if col == d.column[d.spines[row]] {
		return corner(col > first, col < last)
	}
	vertical := d.spineLine(col, row) == '│' || d.otherLine(col, row) == '│'
	switch inside := col > first && col < last; {
	case vertical && inside:
		return '┼'
	case vertical:
		return '│'
	case inside:
		return '─'
	}
	return ' '
}

// corner is where a spine's line comes down to its row.
func corner(left, right bool) rune {
	switch {
	case left && right:
		return '┴'
	case left:
		return '┘'
	case right:
		return '└'
	}
	return '╵'
}

// span is where a spine's row begins and ends.
func (d *drawing) span(row int) (first, last int) {
	first = d.column[d.spines[row]]
	last = first
	for at := range d.junctions {
		if at[0] == row {
			first, last = min(first, at[1]), max(last, at[1])
		}
	}
	return first, last
}

// spineLine is the line from a spine down to its row.
func (d *drawing) spineLine(col, row int) rune {
	i := slices.IndexFunc(d.spines, func(n string) bool { return d.column[n] == col })
	if i > row {
		return '│'
	}
	return ' '
}

// otherLine is the line from a node up to the highest row that it is cabled to.
func (d *drawing) otherLine(col, row int) rune {
	for above := range row {
		if d.junctions[[2]int{above, col}] != nil {
			return '│'
		}
	}
	return ' '
}

func (j *junction) mark() rune {
	switch {
	case j.worst.Cut:
		return '╳'
	case j.worst != State{}:
		return '○'
	case j.cables > 9:
		return '#'
	case j.cables > 1:
		return '0' + rune(j.cables)
	}
	return '●'
}

// legend explains the marks that are not plain, and names what is broken.
func legend(cables []Cable, states States) string {
	var broken []string
	for _, c := range cables {
		if s := states[c.ID]; s != (State{}) {
			broken = append(broken, c.String()+" "+s.String())
		}
	}
	if len(broken) == 0 {
		return ""
	}
	return "╳ cut, ○ muted: " + strings.Join(broken, "; ") + "\n"
}
